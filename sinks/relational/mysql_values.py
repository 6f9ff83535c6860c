"""Values of one kind read as another, in the words of MySQL and MariaDB."""

from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.statements import Sql, sql

_DAY = "^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_LARGEST = "1.7976931348623157e308"


def as_text(column: Sql, kind: Kind) -> Sql:
    """Return the expression for a column's values as text."""
    match kind:
        case Kind.BOOLEAN:
            return sql("CASE {} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END", column)
        case Kind.TIMESTAMP:
            return sql("DATE_FORMAT({}, '%Y-%m-%dT%H:%i:%s.%fZ')", column)
    return sql("CAST({} AS CHAR)", column)


def parsed(text: Sql, kind: Kind) -> Sql:
    """Return the expression for texts read as values of a kind; null where one is none."""
    text = sql("TRIM({})", text)
    match kind:
        case Kind.INTEGER | Kind.UNSIGNED:
            form = "^[+-]?[0-9]{1,18}([.]0+)?$" if kind is Kind.INTEGER else "^[0-9]{1,20}([.]0+)?$"
            value = sql("CAST(SUBSTRING_INDEX({}, '.', 1) AS {})", text, "DECIMAL(20,0)")
            return sql("CASE WHEN {} REGEXP '{}' THEN {} END", text, form, value)
        case Kind.NUMBER:
            form = "^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$"
            # A number that is too large is read as the largest there is.
            value = sql("NULLIF(NULLIF({} + 0e0, {}), -{})", text, _LARGEST, _LARGEST)
            return sql("CASE WHEN {} REGEXP '{}' THEN {} END", text, form, value)
        case Kind.BOOLEAN:
            return sql("CASE {} WHEN 'true' THEN 1 WHEN 'false' THEN 0 END", text)
        case Kind.DATE:
            form = f"{_DAY}([T ]00:00(:00([.]0+)?)?(Z|[+]00(:?00)?)?)?$"
            return sql("CASE WHEN {} REGEXP '{}' AND {} THEN LEFT({}, 10) END", text, form, _is_day(text), text)
        case Kind.TIMESTAMP:
            form = f"{_DAY}([T ][0-2][0-9]:[0-5][0-9](:[0-5][0-9]([.][0-9]+)?)?(Z|[+]00(:?00)?)?)?$"
            bare = sql("REGEXP_REPLACE(REPLACE({}, 'T', ' '), '(Z|[+]00(:?00)?)$', '')", text)
            value = sql("CAST({} AS DATETIME(6))", bare)
            return sql("CASE WHEN {} REGEXP '{}' AND {} THEN {} END", text, form, _is_day(text), value)
    return sql("CASE WHEN JSON_VALID({}) THEN {} END", text, text)


def _is_day(text: Sql) -> Sql:
    """Return the condition that the month of a date has that day; casts take the 30th of February for a day."""
    month = sql("CONCAT(LEFT({}, 7), '-01')", text)
    return sql("CAST(SUBSTRING({}, 9, 2) AS SIGNED) BETWEEN 1 AND DAY(LAST_DAY({}))", text, month)
