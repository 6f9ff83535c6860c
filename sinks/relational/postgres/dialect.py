"""The SQL of PostgreSQL: staging in unlogged tables, merges by one MERGE where the server knows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.dialect import IDLE_LIMIT_S, LOCK_WAIT_S, Dialect, Merge
from sinks.relational.naming import PART_NUMBER, PLACE, RUN, Limits
from sinks.relational.schema_plan import ActualColumn, NewColumn, TableKey
from sinks.relational.statements import Name, Sql, Value, column_of, joined, names, sql

MERGE_SINCE = 150000
WORK_MEMORY_KB = 65536
_PAGE_BITS = 16
_TYPES = {
    Kind.INTEGER: "bigint",
    Kind.UNSIGNED: "numeric(20,0)",
    Kind.NUMBER: "double precision",
    Kind.BOOLEAN: "boolean",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamp with time zone",
    Kind.TEXT: "text",
    Kind.JSON: "jsonb",
}
_SYSTEM_COLUMNS = frozenset(("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"))
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
"""The forms of a text that may be cast: the casts alone would take "today" for a date."""


@dataclass(frozen=True)
class PostgresDialect(Dialect):
    """The tables of one schema. A staged row's address is its place in the table's file."""

    name: ClassVar[str] = "PostgreSQL"
    limits: ClassVar[Limits] = Limits(longest=63, counts_bytes=True, reserved=_SYSTEM_COLUMNS)
    types: ClassVar[Mapping[Kind, str]] = _TYPES
    own_types: ClassVar[Mapping[str, str]] = {
        "name": "text",
        "text": "text",
        "integer": "bigint",
        "time": "timestamp with time zone",
    }
    block_rows: ClassVar[int] = 100_000
    merge_rows: ClassVar[int] = 1_000_000
    create_volatile: ClassVar[str] = "CREATE UNLOGGED TABLE"

    version: int = MERGE_SINCE
    """The server's, as 150004."""

    def beginning(self, *, limit_s: int, only_reads: bool) -> list[Sql]:
        return [
            sql(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
                f"SET LOCAL statement_timeout = '{limit_s}s'; SET LOCAL lock_timeout = '{LOCK_WAIT_S}s';"
                f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_LIMIT_S}s';"
                "SET LOCAL TimeZone = 'UTC'; SET CONSTRAINTS ALL IMMEDIATE"
            )
        ]

    # --- what is there

    def namespace_check(self) -> tuple[Sql, str] | None:
        query = sql("SELECT 1 FROM pg_namespace WHERE nspname = {}", Value(self.namespace))
        return query, f"the database has no schema {self.namespace!r}"

    def listing(self) -> Sql:
        return sql("SELECT tablename FROM pg_tables WHERE schemaname = {}", Value(self.namespace))

    def describing(self, table: str) -> Sql:
        return sql(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull FROM pg_attribute a"
            " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = {} AND c.relname = {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            Value(self.namespace),
            Value(table),
        )

    def finding_key(self, table: str) -> Sql:
        return sql(
            "SELECT a.attname, c.conname FROM pg_constraint c"
            " JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace"
            " CROSS JOIN LATERAL unnest(c.conkey) WITH ORDINALITY AS k(number, place)"
            " JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number"
            " WHERE c.contype = 'p' AND n.nspname = {} AND t.relname = {} ORDER BY k.place",
            Value(self.namespace),
            Value(table),
        )

    def measuring(self, table: str) -> Sql:
        return sql("SELECT pg_total_relation_size({})", self._oid(table))

    # --- tables

    def creating(self, table: str, columns: Sequence[NewColumn], *, key: Sequence[str]) -> list[Sql]:
        parts = [self.definition(new) for new in columns]
        if key:
            parts.append(sql("PRIMARY KEY ({})", names(key)))
        whole = self.table(table)
        statements = [sql("CREATE TABLE {} ({})", whole, joined(", ", parts))]
        if any(new.column == RUN for new in columns):
            # A few pages however large the table is: runs lie together, and nothing else is asked by run.
            statements.append(sql("CREATE INDEX ON {} USING brin ({})", whole, Name(RUN)))
        return statements

    def retyping(self, table: str, column: str, column_type: str) -> list[Sql]:
        return [
            *self.requiring(table, column, column_type=column_type, is_required=False),
            sql("ALTER TABLE {} ALTER COLUMN {} TYPE {} USING NULL", self.table(table), Name(column), column_type),
        ]

    def requiring(self, table: str, column: str, *, column_type: str, is_required: bool) -> list[Sql]:
        change = "SET" if is_required else "DROP"
        return [sql("ALTER TABLE {} ALTER COLUMN {} {} NOT NULL", self.table(table), Name(column), change)]

    def rekeying(
        self, table: str, *, old: TableKey, new: Sequence[str], columns: Mapping[str, ActualColumn]
    ) -> list[Sql]:
        statements = []
        if old.constraint:
            statements.append(sql("ALTER TABLE {} DROP CONSTRAINT {}", self.table(table), Name(old.constraint)))
        if new:
            statements.append(sql("ALTER TABLE {} ADD PRIMARY KEY ({})", self.table(table), names(new)))
        return statements

    # --- values

    def as_text(self, column: Sql, kind: Kind) -> Sql:
        if kind is Kind.TIMESTAMP:
            return sql("""to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""", column)
        return sql("CAST({} AS text)", column)

    def parsed(self, text: Sql, kind: Kind) -> Sql:
        return sql("pg_temp.{}(substring({} from {}))", _function(kind), text, Value(_FORMS[kind]))

    def preparing_parsing(self) -> list[Sql]:
        # Functions, since a cast alone would end the statement at the first text that is no value of the kind.
        return [
            sql(
                "CREATE OR REPLACE FUNCTION pg_temp.{}(value text) RETURNS {} LANGUAGE plpgsql IMMUTABLE STRICT"
                " AS $$ BEGIN RETURN value::{}; EXCEPTION WHEN OTHERS THEN RETURN NULL; END $$",
                _function(kind),
                self.types[kind],
                self.types[kind],
            )
            for kind in _FORMS
        ]

    def differ(self, left: Sql, right: Sql) -> Sql:
        return sql("{} IS DISTINCT FROM {}", left, right)

    # --- checksums

    def truth(self, column: Sql) -> Sql:
        return sql("CAST(CAST({} AS int) AS bigint)", column)

    def whole(self, number: Sql) -> Sql:
        return sql("CAST(trunc({}) AS bigint)", number)

    def days(self, column: Sql) -> Sql:
        return sql("CAST({} - DATE '1970-01-01' AS bigint)", column)

    def microseconds(self, column: Sql) -> Sql:
        # Seconds and their fraction each by themselves: together they are too many digits for a float. And as floats:
        # `extract` answers with slow numerics.
        seconds = sql("CAST(date_part('epoch', date_trunc('second', {})) AS bigint)", column)
        return sql("({} * 1000000 + CAST(date_part('microseconds', {}) AS bigint) % 1000000)", seconds, column)

    def text_number(self, text: Sql) -> Sql:
        return sql("CAST(CAST('x' || substr(md5({}), 1, 8) AS bit(32)) AS bigint)", text)

    # --- staged rows

    def creating_staging(
        self, staging: str, *, target: str, columns: Mapping[str, str], key: Sequence[str]
    ) -> list[Sql]:
        return [
            sql(
                "CREATE UNLOGGED TABLE {} AS SELECT 0::bigint AS {}, 0::bigint AS {}, {} FROM {} WITH NO DATA",
                self.table(staging),
                Name(PART_NUMBER),
                Name(PLACE),
                names(columns),
                self.table(target),
            )
        ]

    def extent(self, staging: str) -> Sql:
        return sql(
            "SELECT pg_relation_size(oid) / current_setting('block_size')::bigint, reltuples FROM pg_class WHERE oid = {}",
            self._oid(staging),
        )

    def ranges(self, least: Any, most: Any) -> list[tuple[int, int]]:
        pages, rows = int(least), max(float(most), 1.0)
        # A little more than the number, so that a million rows are one range though the estimate is one.
        step = max(1, int(1.1 * self.merge_rows * pages / rows))
        return [(page << _PAGE_BITS, (page + step) << _PAGE_BITS) for page in range(0, pages, step)]

    def within(self, alias: str, first: int, end: int) -> Sql:
        place = column_of(alias, "ctid")
        return sql("{} >= {}::tid AND {} < {}::tid", place, _tid(first), place, _tid(end))

    def addresses(self, staging: str, first: int, end: int) -> Sql:
        return sql("SELECT s.ctid::text FROM {} AS s WHERE {}", self.table(staging), self.within("s", first, end))

    def address_of(self, answer: Any) -> int:
        page, _, place = str(answer).strip("()").partition(",")
        return int(page) << _PAGE_BITS | int(place)

    # --- merging

    def preparing_merge(self, merge: Merge) -> list[Sql]:
        return [
            sql(
                # Compiling a statement takes longer than it saves where every row is written anyway.
                "SELECT set_config('jit', 'off', true),"
                " CASE WHEN setting::bigint < {} THEN set_config('work_mem', {}, true) END"
                " FROM pg_settings WHERE name = 'work_mem'",
                Value(WORK_MEMORY_KB),
                Value(f"{WORK_MEMORY_KB}kB"),
            ),
            sql("ANALYZE {} ({})", self.table(merge.staging), names(merge.key)),
        ]

    def indexing_staging(self, merge: Merge) -> list[Sql]:
        # For more than one range; below that a hash of all of them is quicker.
        return [sql("CREATE INDEX ON {} ({})", self.table(merge.staging), names(merge.key))]

    def merging(self, merge: Merge, first: int, end: int) -> Sql | None:
        """Return a MERGE, which does not even lock a row that stays as it is."""
        if self.version < MERGE_SINCE:
            return None
        return sql(
            "MERGE INTO {} AS t USING (SELECT * FROM {} AS s WHERE {}) AS s ON {}"
            " WHEN MATCHED AND {} THEN UPDATE SET {} WHEN NOT MATCHED THEN INSERT ({}, {}) VALUES ({}, {})",
            self.table(merge.target),
            self.table(merge.staging),
            self.within("s", first, end),
            self.same_key("t", "s", merge.key),
            self.changeable(merge),
            self.assignments(merge),
            names(merge.copied),
            Name(RUN),
            names(merge.copied, of="s"),
            Value(merge.run_id),
        )

    def counters(self, target: str) -> Sql:
        oid = self._oid(target)
        return sql("SELECT pg_stat_get_xact_tuples_inserted({}), pg_stat_get_xact_tuples_updated({})", oid, oid)

    def _oid(self, table: str) -> Sql:
        return sql("to_regclass({})", Value(f"{self.quote(self.namespace)}.{self.quote(table)}"))


def _function(kind: Kind) -> str:
    return f"headgate_{kind.value}"


def _tid(address: int) -> str:
    return f"'({address >> _PAGE_BITS},{address & ((1 << _PAGE_BITS) - 1)})'"
