"""SQLite: one file, one writer at a time, readers undisturbed in its WAL mode."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError
from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.counted import CountedSession, inserting, with_timestamps_as_text
from sinks.relational.database import LOCK_WAIT_S, RowWriter
from sinks.relational.naming import PREFIX, RUN, Limits, digest_of
from sinks.relational.schema_plan import Found, NewColumn
from sinks.relational.sqlite_errors import NotANumberError, explain
from sinks.relational.sqlite_values import parse, text_of
from sinks.relational.statements import Name, Sql, Value, column_of, joined, names, sql
from sinks.relational.troubles import Trouble

if TYPE_CHECKING:
    import polars as pl

OWN_TABLE = "ingestion_run"
"""Where it is, the file is Headgate's own database."""
_STEPS = 100_000
"""Of SQLite's machine between two looks: some milliseconds."""
_TYPES = {
    Kind.INTEGER: "INTEGER",
    Kind.UNSIGNED: "UNSIGNED_TEXT",
    Kind.NUMBER: "REAL",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.DATE: "DATE",
    Kind.TIMESTAMP: "DATETIME",
    Kind.TEXT: "TEXT",
    # With TEXT in the name a type keeps what it is given; JSON alone would turn the text 1.0 into the number 1.
    Kind.JSON: "JSON_TEXT",
}


class SqliteSession(CountedSession):
    """A connection to one SQLite file."""

    name: ClassVar[str] = "SQLite"
    mark: ClassVar[str] = "?"
    limits: ClassVar[Limits] = Limits(longest=200, ignores_case=True)
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error, NotANumberError, OSError)
    block_rows: ClassVar[int] = 20_000
    merge_rows: ClassVar[int] = 200_000
    numbering = "INTEGER PRIMARY KEY"
    own_types: ClassVar[dict[str, str]] = {"name": "TEXT", "text": "TEXT", "integer": "INTEGER", "time": "DATETIME"}

    def __init__(self, path: Path, *, timeout_s: float = LOCK_WAIT_S) -> None:
        """Open the file; one that is new is made in WAL mode. ConfigError where it is Headgate's own database."""
        is_new = not path.exists()
        self._path = path
        self._connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None)
        self._connection.create_function("headgate_text", 1, text_of, deterministic=True)
        self._connection.create_function("headgate_parse", 2, parse, deterministic=True)
        self._connection.execute("PRAGMA foreign_keys = ON")
        if is_new:
            # Else readers would be kept out while a large run is committed. A file that was there keeps its mode.
            with suppress(sqlite3.OperationalError):  # another one that opens the new file does it at this moment
                self._connection.execute("PRAGMA journal_mode = WAL")
        if OWN_TABLE in self.tables():
            self._connection.close()
            detail = "this is Headgate's own database, whose only writer a delivery would keep waiting"
            raise ConfigError("config.invalid", where=f"the file {path}", detail=detail)

    # --- statements

    def execute(self, statement: Sql) -> int:
        text, values = statement.written_for(quote=self.quote, mark=self.mark)
        return self._connection.execute(text, values).rowcount

    def rows(self, statement: Sql) -> list[tuple[Any, ...]]:
        text, values = statement.written_for(quote=self.quote, mark=self.mark)
        return self._connection.execute(text, values).fetchall()

    def begin(self, *, limit_s: int, only_reads: bool = False) -> None:
        # Nothing can wait for a lock later on: who begins to write is the only one until the end.
        self._connection.execute("BEGIN" if only_reads else "BEGIN IMMEDIATE")

    def end(self, *, commits: bool) -> None:
        if commits:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def hold(self, lock: str, *, shared: bool) -> None:
        """The transaction itself is the lock."""

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def watched(self, ctx: Context) -> Iterator[None]:
        """Let SQLite itself ask, every few milliseconds of a statement, whether to go on."""
        self._connection.set_progress_handler(_asking(ctx), _STEPS)
        try:
            yield
        finally:
            self._connection.set_progress_handler(None, 0)

    @classmethod
    def explain(cls, error: Exception) -> Trouble:
        return explain(error)

    def quote(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    # --- the check

    def problem_of_place(self) -> str:
        return ""

    # --- tables

    @property
    def place(self) -> str:
        return str(self._path)

    def table(self, name: str) -> Name:
        return Name(name)

    def tables(self) -> list[str]:
        return [str(name) for (name,) in self.rows(sql("SELECT name FROM sqlite_master WHERE type = 'table'"))]

    def describe(self, table: str) -> dict[str, Found]:
        # Whether a column may be null cannot be changed here, so it is not looked at.
        found = self.rows(sql("SELECT name, type FROM pragma_table_info({})", Value(table)))
        return {str(name): Found(str(column_type)) for name, column_type in found}

    def key_of(self, table: str) -> tuple[str, ...]:
        found = self.rows(sql("SELECT name FROM pragma_index_info({}) ORDER BY seqno", Value(_key_index(table))))
        return tuple(str(name) for (name,) in found)

    def type_of(self, new: NewColumn, *, key_columns: int = 1) -> str:
        return _TYPES[new.kind]

    def size_of(self, table: str) -> int:
        try:
            return self.count(sql("SELECT SUM(pgsize) FROM dbstat WHERE name = {}", Value(table)))
        except sqlite3.OperationalError:
            return 0  # not every build of SQLite keeps these figures

    def definition(self, new: NewColumn, *, key_columns: int = 1) -> Sql:
        # Never "not null": that could not be taken back without writing the whole table anew.
        return sql("{} {}", Name(new.column), self.type_of(new))

    def creating(self, table: str, columns: Sequence[NewColumn], *, key: Sequence[str]) -> list[Sql]:
        definitions = joined(", ", (self.definition(new) for new in columns))
        statements = [sql("CREATE TABLE {} ({})", self.table(table), definitions)]
        statements += self.rekeying(table, old=(), new=key)
        if any(new.column == RUN for new in columns):
            index = Name(f"{PREFIX}run_{digest_of(table)}")
            statements.append(sql("CREATE INDEX {} ON {} ({})", index, self.table(table), Name(RUN)))
        return statements

    def retyping(self, table: str, new: NewColumn) -> list[Sql]:
        return [*self.dropping_column(table, new.column), *self.adding(table, new)]

    def swapping(self, table: str, *, column: str, aside: str, fresh: str) -> list[Sql]:
        whole = self.table(table)
        return [
            sql("ALTER TABLE {} RENAME COLUMN {} TO {}", whole, Name(column), Name(aside)),
            sql("ALTER TABLE {} RENAME COLUMN {} TO {}", whole, Name(fresh), Name(column)),
        ]

    def relaxing(self, table: str, column: str, *, column_type: str) -> list[Sql]:
        return []

    def tightening(self, table: str, column: str, *, column_type: str) -> list[Sql]:
        return []

    def rekeying(self, table: str, *, old: Sequence[str], new: Sequence[str]) -> list[Sql]:
        index = Name(_key_index(table))
        statements = [sql("DROP INDEX IF EXISTS {}", index)] if old else []
        if new:
            statements.append(sql("CREATE UNIQUE INDEX {} ON {} ({})", index, self.table(table), names(new)))
        return statements

    # --- values

    def as_text(self, column: Sql, kind: Kind) -> Sql:
        if kind is Kind.BOOLEAN:
            return sql("CASE {} WHEN 1 THEN 'true' WHEN 0 THEN 'false' END", column)
        return sql("headgate_text({})", column)

    def parsed(self, text: Sql, kind: Kind) -> Sql:
        return sql("headgate_parse({}, {})", text, Value(kind.value))

    # --- rows

    def writer(self, table: str, columns: Sequence[str]) -> RowWriter:
        return _Writer(self._connection, inserting(self, table, columns))

    def distinct(self, left: str, right: str, columns: Sequence[str]) -> Sql:
        differing = (sql("{} IS NOT {}", column_of(left, name), column_of(right, name)) for name in columns)
        return sql("({})", joined(" OR ", differing))

    def differ(self, left: Sql, right: Sql) -> Sql:
        return sql("{} IS NOT {}", left, right)


def _key_index(table: str) -> str:
    return f"{PREFIX}key_{digest_of(table)}"


def _asking(ctx: Context) -> Callable[[], int]:
    shown_at = [time.monotonic()]

    def ask() -> int:
        if time.monotonic() - shown_at[0] > 1:
            shown_at[0] = time.monotonic()
            ctx.progress()
        return int(ctx.should_stop())

    return ask


@dataclass(frozen=True, slots=True)
class _Writer:
    """Inserts rows, but none with a NaN, which SQLite would quietly store as null."""

    connection: sqlite3.Connection
    statement: str

    def encode(self, frame: "pl.DataFrame") -> tuple[list[tuple[Any, ...]], bool]:
        import polars.selectors as cs  # noqa: PLC0415 (heavy)

        floats = frame.select(cs.float().is_nan().any())
        return with_timestamps_as_text(frame).rows(), any(floats.row(0)) if floats.height else False

    def write(self, encoded: tuple[list[tuple[Any, ...]], bool]) -> None:
        rows, has_nan = encoded
        if has_nan:
            msg = "NaN is no number that SQLite can keep"
            raise NotANumberError(msg)
        self.connection.executemany(self.statement, rows)
