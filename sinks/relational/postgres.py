"""PostgreSQL: rows by COPY, staging in unlogged tables, merges by one MERGE where the server knows it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from typing import Any, ClassVar

import psycopg

from ingestion.ports.context import Context
from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.database import IDLE_LIMIT_S, LOCK_WAIT_S, PART_NUMBER, PLACE, Merge, RowWriter, Session
from sinks.relational.naming import RUN, Limits
from sinks.relational.postgres_copy import copy_writer
from sinks.relational.postgres_errors import explain
from sinks.relational.postgres_values import TYPES, as_text, parsed, parsers
from sinks.relational.schema_plan import Found, NewColumn
from sinks.relational.statements import Name, Sql, Value, column_of, joined, names, sql
from sinks.relational.troubles import Trouble
from sinks.relational.watching import watched

CONNECT_TIMEOUT_S = 10
MERGE_SINCE = 150000
WORK_MEMORY_KB = 65536
_PAGE_BITS = 16


class PostgresSession(Session):
    """A connection to one schema of a PostgreSQL database."""

    name: ClassVar[str] = "PostgreSQL"
    mark: ClassVar[str] = "%s"
    limits: ClassVar[Limits] = Limits(longest=63, counts_bytes=True)
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (psycopg.Error, OSError)
    block_rows: ClassVar[int] = 100_000
    merge_rows: ClassVar[int] = 1_000_000
    own_types: ClassVar[dict[str, str]] = {
        "name": "text",
        "text": "text",
        "integer": "bigint",
        "time": "timestamp with time zone",
    }
    waiting_table: ClassVar[str] = "CREATE UNLOGGED TABLE"

    def __init__(self, *, schema: str, **options: Any) -> None:
        """Connect as libpq's options say."""
        self._schema, self._options = schema, options
        self._connection = psycopg.connect(
            **{
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": "headgate",
                "client_encoding": "UTF8",
                # Nothing of the account that the worker runs under: no password file, no options, no ticket.
                **{"passfile": "/dev/null/none", "options": "", "gssencmode": "disable"},
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                "tcp_user_timeout": 60_000,
                **options,
            },
            autocommit=True,
            # Poolers between us and the server may give each transaction another connection.
            prepare_threshold=None,
        )
        self._merges = self._connection.info.server_version >= MERGE_SINCE

    # --- statements

    def execute(self, statement: Sql) -> int:
        text, values = statement.written_for(quote=self.quote, mark=self.mark)
        return self._connection.execute(text.encode(), values or None).rowcount

    def rows(self, statement: Sql) -> list[tuple[Any, ...]]:
        text, values = statement.written_for(quote=self.quote, mark=self.mark)
        return self._connection.execute(text.encode(), values or None).fetchall()

    def begin(self, *, limit_s: int, only_reads: bool = False) -> None:
        self._connection.execute(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
            f"SET LOCAL statement_timeout = '{limit_s}s'; SET LOCAL lock_timeout = '{LOCK_WAIT_S}s';"
            f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_LIMIT_S}s';"
            "SET LOCAL TimeZone = 'UTC'; SET CONSTRAINTS ALL IMMEDIATE".encode()
        )

    def end(self, *, commits: bool) -> None:
        if commits:
            self._connection.execute("COMMIT")
            return
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:
            # A broken connection has rolled back already; one that is in a COPY will when it is closed.
            self._connection.close()

    def hold(self, lock: str, *, shared: bool) -> None:
        kind = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        self.rows(sql("SELECT {}(hashtextextended({}, 0))", kind, Value(f"headgate {lock}")))

    def close(self) -> None:
        self._connection.close()

    def watched(self, ctx: Context) -> AbstractContextManager[None]:
        return watched(
            ctx, interrupt=lambda: self._connection.cancel_safe(timeout=CONNECT_TIMEOUT_S), is_working=self._is_working
        )

    @classmethod
    def explain(cls, error: Exception) -> Trouble:
        return explain(error)

    def quote(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    # --- the check

    def encryption(self) -> str:
        pgconn = self._connection.pgconn
        return "the connection is encrypted" if pgconn.ssl_in_use else "the connection is not encrypted"

    def problem_of_place(self) -> str:
        is_there = self.first(sql("SELECT 1 FROM pg_namespace WHERE nspname = {}", Value(self._schema)))
        return "" if is_there else f"the database has no schema {self._schema!r}"

    # --- tables

    @property
    def place(self) -> str:
        return self._schema

    def table(self, name: str) -> Name:
        return Name(self._schema, name)

    def describe(self, table: str) -> dict[str, Found]:
        found = self.rows(
            sql(
                "SELECT a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull FROM pg_attribute a"
                " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = {} AND c.relname = {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
                Value(self._schema),
                Value(table),
            )
        )
        return {name: Found(column_type, nullable) for name, column_type, nullable in found}

    def tables(self) -> list[str]:
        return [
            str(name)
            for (name,) in self.rows(sql("SELECT tablename FROM pg_tables WHERE schemaname = {}", Value(self._schema)))
        ]

    def key_of(self, table: str) -> tuple[str, ...]:
        return tuple(name for name, _ in self._key(table))

    def type_of(self, new: NewColumn, *, key_columns: int = 1) -> str:
        return TYPES[new.kind]

    def size_of(self, table: str) -> int:
        return self.count(
            sql(
                "SELECT pg_total_relation_size(to_regclass({}))",
                Value(f"{self.quote(self._schema)}.{self.quote(table)}"),
            )
        )

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

    def retyping(self, table: str, new: NewColumn) -> list[Sql]:
        column, whole = Name(new.column), self.table(table)
        return [
            sql("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL", whole, column),
            sql("ALTER TABLE {} ALTER COLUMN {} TYPE {} USING NULL", whole, column, self.type_of(new)),
        ]

    def swapping(self, table: str, *, column: str, aside: str, fresh: str) -> list[Sql]:
        whole = self.table(table)
        return [
            sql("ALTER TABLE {} RENAME COLUMN {} TO {}", whole, Name(column), Name(aside)),
            sql("ALTER TABLE {} RENAME COLUMN {} TO {}", whole, Name(fresh), Name(column)),
            sql("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL", whole, Name(aside)),
        ]

    def relaxing(self, table: str, column: str, *, column_type: str) -> list[Sql]:
        return [sql("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL", self.table(table), Name(column))]

    def tightening(self, table: str, column: str, *, column_type: str) -> list[Sql]:
        return [sql("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL", self.table(table), Name(column))]

    def rekeying(self, table: str, *, old: Sequence[str], new: Sequence[str]) -> list[Sql]:
        whole, constraint = self.table(table), next((name for _, name in self._key(table)), "")
        statements = []
        if old and constraint:
            statements.append(sql("ALTER TABLE {} DROP CONSTRAINT {}", whole, Name(constraint)))
        if new:
            statements.append(sql("ALTER TABLE {} ADD PRIMARY KEY ({})", whole, names(new)))
        return statements

    # --- values

    def as_text(self, column: Sql, kind: Kind) -> Sql:
        return as_text(column, kind)

    def parsed(self, text: Sql, kind: Kind) -> Sql:
        return parsed(text, kind)

    def prepare_parsing(self) -> None:
        for statement in parsers():
            self.execute(statement)

    # --- rows

    def writer(self, table: str, columns: Sequence[str]) -> RowWriter:
        found = self.describe(table)
        types = [found[name].type for name in columns]
        copying = sql("COPY {} ({}) FROM STDIN (FORMAT {})", self.table(table), names(columns), "{}")
        text, _ = copying.written_for(quote=self.quote, mark=self.mark)
        return copy_writer(self._connection, statement=text, types=types)

    def create_staging(self, staging: str, *, target: str, columns: Sequence[str], key: Sequence[str]) -> None:
        self.execute(
            sql(
                "CREATE UNLOGGED TABLE {} AS SELECT 0::bigint AS {}, 0::bigint AS {}, {} FROM {} WITH NO DATA",
                self.table(staging),
                Name(PART_NUMBER),
                Name(PLACE),
                names(columns),
                self.table(target),
            )
        )

    def prepare_merge(self, merge: Merge) -> None:
        self.rows(
            sql(
                # Compiling a statement takes longer than it saves where every row is written anyway.
                "SELECT set_config('jit', 'off', true),"
                " CASE WHEN setting::bigint < {} THEN set_config('work_mem', {}, true) END"
                " FROM pg_settings WHERE name = 'work_mem'",
                Value(WORK_MEMORY_KB),
                Value(f"{WORK_MEMORY_KB}kB"),
            )
        )
        staging = self.table(merge.staging)
        self.execute(sql("ANALYZE {} ({})", staging, names(merge.key)))
        if len(self.ranges(merge.staging)) > 1:
            # For the search for absent keys; below that a hash of all of them is quicker.
            self.execute(sql("CREATE INDEX ON {} ({})", staging, names(merge.key)))

    def within(self, alias: str, first: int, end: int) -> Sql:
        place = column_of(alias, "ctid")
        return sql("{} >= {}::tid AND {} < {}::tid", place, _tid(first), place, _tid(end))

    def ranges(self, staging: str) -> list[tuple[int, int]]:
        found = self.first(
            sql(
                "SELECT pg_relation_size(oid) / current_setting('block_size')::bigint, reltuples FROM pg_class"
                " WHERE oid = to_regclass({})",
                Value(f"{self.quote(self._schema)}.{self.quote(staging)}"),
            )
        )
        pages, rows = (int(found[0]), max(float(found[1]), 1.0)) if found else (0, 1.0)
        # A little more than the number, so that a million rows are one range though the estimate is one.
        step = max(1, int(1.1 * self.merge_rows * pages / rows))
        return [(page << _PAGE_BITS, (page + step) << _PAGE_BITS) for page in range(0, pages, step)]

    def addresses(self, staging: str, first: int, end: int) -> list[int]:
        found = self.rows(
            sql("SELECT s.ctid::text FROM {} AS s WHERE {}", self.table(staging), self.within("s", first, end))
        )
        return sorted(_address(text) for (text,) in found)

    def distinct(self, left: str, right: str, columns: Sequence[str]) -> Sql:
        return sql("({}) IS DISTINCT FROM ({})", names(columns, of=left), names(columns, of=right))

    def differ(self, left: Sql, right: Sql) -> Sql:
        return sql("{} IS DISTINCT FROM {}", left, right)

    def merge_range(self, merge: Merge, first: int, end: int) -> tuple[int, int]:
        """Merge by one statement and take from the server's own counters which rows it inserted and which updated.

        MERGE is quicker than two statements, and does not even lock a row that stays as it is. Its answer is one
        number; where the counters do not add up to it (a trigger writes into the table as well), two statements do.
        """
        if not self._merges:
            return super().merge_range(merge, first, end)
        before = self._counters(merge.target)
        self.execute(sql("SAVEPOINT headgate_merge"))
        total = self.execute(self._merging(merge, first, end))
        inserted, updated = (new - old for new, old in zip(self._counters(merge.target), before, strict=True))
        if inserted + updated == total:
            self.execute(sql("RELEASE SAVEPOINT headgate_merge"))
            return inserted, updated
        self.execute(sql("ROLLBACK TO SAVEPOINT headgate_merge"))
        self._merges = False
        return super().merge_range(merge, first, end)

    def _merging(self, merge: Merge, first: int, end: int) -> Sql:
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
            joined(", ", (column_of("s", column) for column in merge.copied)),
            Value(merge.run_id),
        )

    def _is_working(self) -> bool:
        """Ask the server, over another connection, whether it works on our statement."""
        pid = self._connection.info.backend_pid
        with closing(PostgresSession(schema=self._schema, **self._options)) as other:
            found = other.first(sql("SELECT state FROM pg_stat_activity WHERE pid = {}", Value(pid)))
        return found == ("active",)

    def _counters(self, table: str) -> tuple[int, int]:
        found = self.first(
            sql(
                "SELECT pg_stat_get_xact_tuples_inserted(oid), pg_stat_get_xact_tuples_updated(oid)"
                " FROM (SELECT to_regclass({})::oid AS oid) AS target",
                Value(f"{self.quote(self._schema)}.{self.quote(table)}"),
            )
        )
        return (int(found[0]), int(found[1])) if found else (0, 0)

    def _key(self, table: str) -> list[tuple[str, str]]:
        """Return the columns of the primary key, each with the constraint's name."""
        return [
            (str(column), str(constraint))
            for column, constraint in self.rows(
                sql(
                    "SELECT a.attname, c.conname FROM pg_constraint c"
                    " JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace"
                    " CROSS JOIN LATERAL unnest(c.conkey) WITH ORDINALITY AS k(number, place)"
                    " JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number"
                    " WHERE c.contype = 'p' AND n.nspname = {} AND t.relname = {} ORDER BY k.place",
                    Value(self._schema),
                    Value(table),
                )
            )
        ]


def _tid(address: int) -> str:
    return f"'({address >> _PAGE_BITS},{address & ((1 << _PAGE_BITS) - 1)})'"


def _address(text: str) -> int:
    page, _, place = text.strip("()").partition(",")
    return int(page) << _PAGE_BITS | int(place)
