"""The SQL of MySQL and MariaDB: staging and merging in InnoDB tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.dialect import IDLE_LIMIT_S, LOCK_WAIT_S, Dialect, Merge
from sinks.relational.naming import RUN, Limits
from sinks.relational.schema_plan import ActualColumn, NewColumn, TableKey
from sinks.relational.statements import Name, Sql, Value, joined, names, sql

_STRICT = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
_EXACT_COLLATIONS = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin")
"""MariaDB's and MySQL's: the only ones in which no two different texts are equal, trailing blanks included."""
_KEY_BYTES = 3072
_LONGEST_KEY_TEXT = 255
_BYTES_A_CHARACTER = 4
SETTINGS = (
    f"SET SESSION time_zone = '+00:00', sql_mode = '{_STRICT}', innodb_lock_wait_timeout = {LOCK_WAIT_S}, "
    f"lock_wait_timeout = {LOCK_WAIT_S}, wait_timeout = {IDLE_LIMIT_S}"
)
_DAY = "^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_LARGEST = "1.7976931348623157e308"


@dataclass(frozen=True)
class MySQLDialect(Dialect):
    """The tables of one database."""

    name: ClassVar[str] = "MySQL"
    quotation_mark: ClassVar[str] = "`"
    # Names are utf8mb3 there: no characters beyond the first plane.
    limits: ClassVar[Limits] = Limits(longest=64, ignores_case=True, last_character=0xFFFF)
    types: ClassVar[Mapping[Kind, str]] = {
        Kind.INTEGER: "bigint",
        Kind.UNSIGNED: "decimal(20,0)",
        Kind.NUMBER: "double",
        Kind.BOOLEAN: "boolean",
        Kind.DATE: "date",
        Kind.TIMESTAMP: "datetime(6)",
        Kind.JSON: "json",
    }
    own_types: ClassVar[Mapping[str, str]] = {
        "name": "varchar(190)",
        "text": "longtext",
        "integer": "bigint",
        "time": "datetime(6)",
    }
    row_number: ClassVar[str] = "bigint NOT NULL AUTO_INCREMENT PRIMARY KEY"
    block_rows: ClassVar[int] = 10_000
    merge_rows: ClassVar[int] = 200_000

    collation: str = "utf8mb4_bin"
    """The collation of our texts: an exact one where the server has it."""
    is_mariadb: bool = False

    @property
    def table_ending(self) -> str:
        return f" ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE {self.collation}"

    def exact_collations(self) -> Sql:
        """Ask which exact collations the server has."""
        known = joined(", ", (Value(name) for name in _EXACT_COLLATIONS))
        return sql("SELECT collation_name FROM information_schema.collations WHERE collation_name IN ({})", known)

    def beginning(self, *, limit_s: int, only_reads: bool) -> list[Sql]:
        limit = [sql("SET SESSION max_statement_time = {}", Value(limit_s))] if self.is_mariadb else []
        isolation = sql("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        return [sql(SETTINGS), *limit, isolation, sql("START TRANSACTION")]

    # --- what is there

    def namespace_check(self) -> tuple[Sql, str] | None:
        query = "SELECT 1 FROM information_schema.engines WHERE engine = 'InnoDB' AND support IN ('YES', 'DEFAULT')"
        return sql(query), "the server has no InnoDB tables"

    def listing(self) -> Sql:
        return sql("SELECT table_name FROM information_schema.tables WHERE table_schema = {}", Value(self.namespace))

    def describing(self, table: str) -> Sql:
        return self._about(
            table,
            "SELECT column_name, CONCAT(column_type, IF(collation_name IS NULL, '', CONCAT(' CHARACTER SET ',"
            " character_set_name, ' COLLATE ', collation_name))), is_nullable = 'YES' FROM information_schema.columns"
            " WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
        )

    def finding_key(self, table: str) -> Sql:
        return self._about(
            table,
            "SELECT column_name, index_name FROM information_schema.statistics"
            " WHERE table_schema = {} AND table_name = {} AND index_name = 'PRIMARY' ORDER BY seq_in_index",
        )

    def measuring(self, table: str) -> Sql:
        return self._about(
            table,
            "SELECT data_length + index_length FROM information_schema.tables"
            " WHERE table_schema = {} AND table_name = {}",
        )

    def _about(self, table: str, query: str) -> Sql:
        return sql(query, Value(self.namespace), Value(table))

    # --- tables

    def type_of(self, new: NewColumn, *, key_columns: int = 1) -> str:
        if new.kind is not Kind.TEXT:
            return self.types[new.kind]
        return self._text_type(self._key_length(key_columns) if new.is_key else None)

    def creating(self, table: str, columns: Sequence[NewColumn], *, key: Sequence[str]) -> list[Sql]:
        parts = [self.definition(new, key_columns=max(len(key), 1)) for new in columns]
        if key:
            parts.append(sql("PRIMARY KEY ({})", names(key)))
        if any(new.column == RUN for new in columns):
            parts.append(sql("KEY ({})", Name(RUN)))
        return [sql("CREATE TABLE {} ({}){}", self.table(table), joined(", ", parts), self.table_ending)]

    def retyping(self, table: str, column: str, column_type: str) -> list[Sql]:
        return self.requiring(table, column, column_type=column_type, is_required=False)

    def swapping(self, table: str, *, column: str, aside: str, fresh: str, column_type: str) -> list[Sql]:
        return [
            # In one statement, so that no reader misses the column in between.
            sql(
                "ALTER TABLE {} CHANGE COLUMN {} {} {} NULL, RENAME COLUMN {} TO {}",
                self.table(table),
                Name(column),
                Name(aside),
                column_type,
                Name(fresh),
                Name(column),
            )
        ]

    def requiring(self, table: str, column: str, *, column_type: str, is_required: bool) -> list[Sql]:
        ending = "NOT NULL" if is_required else "NULL"
        return [sql("ALTER TABLE {} MODIFY COLUMN {} {} {}", self.table(table), Name(column), column_type, ending)]

    def rekeying(
        self, table: str, *, old: TableKey, new: Sequence[str], columns: Mapping[str, ActualColumn]
    ) -> list[Sql]:
        steps = [sql("DROP PRIMARY KEY")] if old.columns else []
        for name in new:
            if name in columns:
                found = columns[name].type
                kind = self._text_type(self._key_length(len(new))) if found.startswith("longtext") else found
                steps.append(sql("MODIFY COLUMN {} {} NOT NULL", Name(name), kind))
        if new:
            steps.append(sql("ADD PRIMARY KEY ({})", names(new)))
        return [sql("ALTER TABLE {} {}", self.table(table), joined(", ", steps))] if steps else []

    def _key_length(self, key_columns: int) -> int:
        # An index takes so many bytes and no more; a longer value is rejected, not cut.
        return min(_LONGEST_KEY_TEXT, _KEY_BYTES // _BYTES_A_CHARACTER // key_columns)

    def _text_type(self, length: int | None) -> str:
        name = "longtext" if length is None else f"varchar({length})"
        return f"{name} CHARACTER SET utf8mb4 COLLATE {self.collation}"

    # --- values

    def as_text(self, column: Sql, kind: Kind) -> Sql:
        match kind:
            case Kind.BOOLEAN:
                return sql("CASE {} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END", column)
            case Kind.TIMESTAMP:
                return sql("DATE_FORMAT({}, '%Y-%m-%dT%H:%i:%s.%fZ')", column)
        return sql("CAST({} AS CHAR)", column)

    def parsed(self, text: Sql, kind: Kind) -> Sql:
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

    def preparing_parsing(self) -> list[Sql]:
        # Under the strict rules one text that is no date would end the whole statement; the next transaction sets them.
        return [sql("SET SESSION sql_mode = 'NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION'")]

    def differ(self, left: Sql, right: Sql) -> Sql:
        return sql("NOT ({} <=> {})", left, right)

    def filling(self, target: str, staging: str, *, columns: Sequence[str], key: Sequence[str], run_id: int) -> Sql:
        settings = joined(", ", (sql("t.{} = s.{}", Name(name), Name(name)) for name in columns))
        where = self.same_row(key, run_id=run_id)
        return sql("UPDATE {} AS t JOIN {} AS s ON {} SET {}", self.table(target), self.table(staging), where, settings)

    # --- checksums

    def is_own(self, column_type: str, kind: Kind) -> bool:
        beginnings = {Kind.TEXT: ("longtext", "varchar"), Kind.BOOLEAN: ("tinyint",)}
        return column_type.startswith(beginnings.get(kind) or (self.types[kind],))

    def whole(self, number: Sql) -> Sql:
        return sql("CAST(TRUNCATE({}, 0) AS SIGNED)", number)

    def days(self, column: Sql) -> Sql:
        return sql("DATEDIFF({}, '1970-01-01')", column)

    def microseconds(self, column: Sql) -> Sql:
        return sql("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {})", column)

    def text_number(self, text: Sql) -> Sql:
        return sql("CAST(CONV(LEFT(MD5({}), 8), 16, 10) AS SIGNED)", text)

    # --- merging

    def exactly(self, column: Sql, column_type: str) -> Sql:
        """Return the column as bytes where somebody gave it a collation in which different texts are equal."""
        is_exact = "COLLATE" not in column_type or column_type.endswith((*_EXACT_COLLATIONS, "utf8mb4_bin"))
        return column if is_exact else sql("CAST({} AS BINARY)", column)

    def updating(self, merge: Merge, first: int, end: int) -> Sql:
        return sql(
            "UPDATE {} AS t JOIN {} AS s ON {} SET {} WHERE {} AND {}",
            self.table(merge.target),
            self.table(merge.staging),
            self.same_key("t", "s", merge.key),
            self.assignments(merge, alias="t"),
            self.within("s", first, end),
            self.changeable(merge),
        )


def _is_day(text: Sql) -> Sql:
    """Return the condition that the month of a date has that day; casts take the 30th of February for a day."""
    month = sql("CONCAT(LEFT({}, 7), '-01')", text)
    return sql("CAST(SUBSTRING({}, 9, 2) AS SIGNED) BETWEEN 1 AND DAY(LAST_DAY({}))", text, month)
