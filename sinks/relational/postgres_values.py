"""Values of one kind read as another, in the words of PostgreSQL."""

from collections.abc import Iterator

from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.statements import Sql, Value, sql

TYPES = {
    Kind.INTEGER: "bigint",
    Kind.UNSIGNED: "numeric(20,0)",
    Kind.NUMBER: "double precision",
    Kind.BOOLEAN: "boolean",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamp with time zone",
    Kind.TEXT: "text",
    Kind.JSON: "jsonb",
}
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_FORMS = {
    Kind.INTEGER: r"^\s*([+-]?[0-9]+)(?:\.0+)?\s*$",
    Kind.UNSIGNED: r"^\s*(\+?[0-9]+)(?:\.0+)?\s*$",
    Kind.NUMBER: r"^\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*$",
    Kind.BOOLEAN: "^(true|false)$",
    Kind.DATE: rf"^({_DAY})(?:[T ]00:00(?::00(?:\.0+)?)?(?:Z|\+00(?::?00)?)?)?$",
    Kind.TIMESTAMP: rf"^({_DAY}(?:[T ][0-9].*)?)$",
    Kind.JSON: "^(.*)$",
}
"""What a text must look like before it is cast: the casts alone would take "today" for a date."""


def as_text(column: Sql, kind: Kind) -> Sql:
    """Return the expression for a column's values as text."""
    if kind is Kind.TIMESTAMP:
        return sql("""to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""", column)
    return sql("CAST({} AS text)", column)


def parsed(text: Sql, kind: Kind) -> Sql:
    """Return the expression for texts read as values of a kind; null where one is none."""
    return sql("pg_temp.{}(substring({} from {}))", _function(kind), text, Value(_FORMS[kind]))


def parsers() -> Iterator[Sql]:
    """Yield what makes the functions that `parsed` uses, for one connection: a cast alone would end the statement."""
    for kind in _FORMS:
        yield sql(
            "CREATE OR REPLACE FUNCTION pg_temp.{}(value text) RETURNS {} LANGUAGE plpgsql IMMUTABLE STRICT"
            " AS $$ BEGIN RETURN value::{}; EXCEPTION WHEN OTHERS THEN RETURN NULL; END $$",
            _function(kind),
            TYPES[kind],
            TYPES[kind],
        )


def _function(kind: Kind) -> str:
    return f"headgate_{kind.value}"
