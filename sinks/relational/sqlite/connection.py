"""A connection to a SQLite file, rows by INSERT of many, and what its errors mean."""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError
from sinks.relational.checksums import text_number
from sinks.relational.connection import Connection, InsertWriter, RowWriter
from sinks.relational.diagnosis import Diagnosis, ErrorClass, first_line
from sinks.relational.dialect import LOCK_WAIT_S, Dialect
from sinks.relational.inspection import table_names
from sinks.relational.sqlite.dialect import SqliteDialect
from sinks.relational.sqlite.values import parse, text_of

if TYPE_CHECKING:
    import polars as pl

HEADGATE_TABLE = "ingestion_run"
"""A table by which a file is known as Headgate's own database."""
_STEPS = 100_000
"""Of SQLite's machine between two calls: some milliseconds."""


class NotANumberError(ValueError):
    """A float that is no number, which SQLite would store as null."""


_PRIMARY = {
    "SQLITE_CONSTRAINT": ErrorClass.ROW,
    "SQLITE_TOOBIG": ErrorClass.ROW,
    "SQLITE_MISMATCH": ErrorClass.ROW,
    "SQLITE_BUSY": ErrorClass.BUSY,
    "SQLITE_LOCKED": ErrorClass.BUSY,
    "SQLITE_PROTOCOL": ErrorClass.BUSY,
    "SQLITE_IOERR": ErrorClass.UNAVAILABLE,
    "SQLITE_FULL": ErrorClass.UNAVAILABLE,
    "SQLITE_NOMEM": ErrorClass.UNAVAILABLE,
    "SQLITE_CANTOPEN": ErrorClass.CONFIG,
    "SQLITE_NOTADB": ErrorClass.CONFIG,
    "SQLITE_CORRUPT": ErrorClass.CONFIG,
    "SQLITE_READONLY": ErrorClass.AUTH,
    "SQLITE_PERM": ErrorClass.AUTH,
    "SQLITE_AUTH": ErrorClass.AUTH,
    "SQLITE_INTERRUPT": ErrorClass.STOPPED,
    "SQLITE_ABORT": ErrorClass.STOPPED,
}
_FAILED = " constraint failed: "


class SqliteConnection(Connection):
    """A connection to one SQLite file: one writer at a time, readers undisturbed in its WAL mode."""

    dialect_class: ClassVar[type[Dialect]] = SqliteDialect
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error, NotANumberError, OSError)

    def __init__(self, path: Path, *, timeout_s: float = LOCK_WAIT_S) -> None:
        """Open the file; one that is new is its owner's alone, in WAL mode. ConfigError where it is our own database."""
        is_new = not path.exists()
        if is_new:
            # SQLite makes files by the umask; its journals take the rights of the file. It says itself what is wrong.
            with suppress(OSError):
                path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None)
        self._connection.create_function("headgate_text", 1, text_of, deterministic=True)
        self._connection.create_function("headgate_number", 1, text_number, deterministic=True)
        self._connection.create_function("headgate_parse", 2, parse, deterministic=True)
        self._connection.execute("PRAGMA foreign_keys = ON")
        if is_new:
            # Else readers would be kept out while a large run is committed. A file that was there keeps its mode.
            with suppress(sqlite3.OperationalError):  # another one that opens the new file does it at this moment
                self._connection.execute("PRAGMA journal_mode = WAL")
        knows_sizes = self._connection.execute("SELECT sqlite_compileoption_used('ENABLE_DBSTAT_VTAB')").fetchone()
        self.dialect = SqliteDialect(str(path), knows_sizes=bool(knows_sizes[0]))
        if HEADGATE_TABLE in table_names(self):
            self._connection.close()
            detail = "this is Headgate's own database, whose only writer a delivery would keep waiting"
            raise ConfigError("config.invalid", where=f"the file {path}", detail=detail)

    @staticmethod
    def diagnose(error: Exception) -> Diagnosis:
        return diagnose(error)

    def send(self, text: str, values: Sequence[Any]) -> Any:
        return self._connection.execute(text, values)

    def end(self, *, commits: bool) -> None:
        if commits:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def lock(self, name: str, *, shared: bool) -> None:
        """The transaction itself is the lock."""

    def writer(self, table: str, columns: Sequence[str]) -> RowWriter:
        return _Writer(self.dialect.inserting_row(table, columns), self._connection.executemany)

    def cancel(self) -> None:
        self._connection.interrupt()

    def is_working(self) -> bool:
        return True

    @contextmanager
    def watched(self, ctx: Context) -> Iterator[None]:
        """Let SQLite itself ask, every few milliseconds of a statement, whether to go on."""
        stopped, beaten_at = threading.Event(), [time.monotonic()]

        def ask() -> bool:
            if time.monotonic() - beaten_at[0] > 1:
                beaten_at[0] = time.monotonic()
                # The signal that this may raise breaks the statement off as well.
                ctx.beat()
            return stopped.is_set()

        self._connection.set_progress_handler(ask, _STEPS)
        try:
            with ctx.on_stop(lambda _signal: stopped.set()):
                yield
        finally:
            self._connection.set_progress_handler(None, 0)

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True, slots=True)
class _Writer(InsertWriter):
    """Inserts rows, but none with a NaN, which SQLite would quietly store as null."""

    def encode(self, frame: "pl.DataFrame") -> Any:
        import polars.selectors as cs  # noqa: PLC0415 (heavy)

        floats = frame.select(cs.float().is_nan().any())
        has_nan = any(floats.row(0)) if floats.height else False
        return InsertWriter.encode(self, frame), has_nan

    def write(self, encoded: Any) -> None:
        rows, has_nan = encoded
        if has_nan:
            msg = "NaN is no number that SQLite can keep"
            raise NotANumberError(msg)
        self.insert(self.statement, rows)


def diagnose(error: Exception) -> Diagnosis:
    """Return what an error of sqlite3 means."""
    message = first_line(str(error)) or type(error).__name__
    if isinstance(error, NotANumberError):
        return Diagnosis(ErrorClass.ROW, message, rule="not_a_number")
    if not isinstance(error, sqlite3.Error):
        return Diagnosis(ErrorClass.UNAVAILABLE, message)
    name = str(getattr(error, "sqlite_errorname", ""))
    primary = "_".join(name.split("_")[:2])
    error_class = _PRIMARY.get(primary, ErrorClass.REJECTED)
    if error_class is not ErrorClass.ROW:
        return Diagnosis(error_class, message)
    # "CHECK constraint failed: price_positive", "NOT NULL constraint failed: samples.formula"
    kind, _, subject = message.partition(_FAILED)
    rule = name.removeprefix("SQLITE_").lower() or "constraint"
    column = subject.partition(", ")[0].rpartition(".")[2] if "." in subject else ""
    return Diagnosis(error_class, message, rule=subject if kind == "CHECK" and subject else rule, column=column)
