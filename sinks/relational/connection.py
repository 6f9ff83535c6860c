"""One open connection to a database: statements, transactions and rows through its driver."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ingestion.ports.context import Context
from sinks.relational.diagnosis import Diagnosis
from sinks.relational.dialect import Dialect
from sinks.relational.statements import Sql, sql
from sinks.relational.watchdog import watchdog

if TYPE_CHECKING:
    import polars as pl

WRITE_LIMIT_S = 60
"""A block of rows is written in a second or two; who holds a lock for longer while writing one is gone or frozen."""
STATEMENT_LIMIT_S = 1200
TIMESTAMP_FORMAT = "%Y-%m-%d %H:%M:%S%.6f"


class RowWriter(Protocol):
    """Appends rows to a table."""

    def encode(self, frame: "pl.DataFrame") -> Any:
        """Return the rows as `write` takes them. Done in another thread, beside the writing of other rows."""
        ...

    def write(self, encoded: Any) -> None:
        """Append the encoded rows."""
        ...


class Connection(ABC):
    """One open connection; statements run at once unless a transaction is open."""

    dialect: Dialect
    dialect_class: ClassVar[type[Dialect]]
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (OSError,)

    @staticmethod
    @abstractmethod
    def diagnose(error: Exception) -> Diagnosis:
        """Return what an error of the driver means."""

    @abstractmethod
    def send(self, text: str, values: Sequence[Any]) -> Any:
        """Run a statement and return the driver's cursor over its answer."""

    @abstractmethod
    def end(self, *, commits: bool) -> None:
        """Close the transaction; on a broken connection a rollback does nothing."""

    @abstractmethod
    def lock(self, name: str, *, shared: bool) -> None:
        """Take the lock of that name within the open transaction, waiting LOCK_WAIT_S at most."""

    @abstractmethod
    def writer(self, table: str, columns: Sequence[str]) -> RowWriter:
        """Return what appends rows with these columns to the table."""

    @abstractmethod
    def cancel(self) -> None:
        """Break off the statement that runs; called from another thread."""

    @abstractmethod
    def is_working(self) -> bool:
        """Ask the server, over another connection, whether it works on the statement that runs."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def encryption(self) -> str:
        """Return how the connection is encrypted, or that it is not; empty where there is no network between."""
        return ""

    def watched(self, ctx: Context) -> AbstractContextManager[None]:
        """Break statements of the block off when the work must stop, and beat while the server works."""
        return watchdog(ctx, cancel=self.cancel, is_working=self.is_working)

    def execute(self, *statements: Sql) -> int:
        """Run the statements and return the number of rows that the last one touched."""
        count = 0
        for statement in statements:
            count = int(self.send(*self.dialect.render(statement)).rowcount)
        return count

    def rows(self, query: Sql) -> list[tuple[Any, ...]]:
        """Return what a query answers."""
        return list(self.send(*self.dialect.render(query)).fetchall())

    def first(self, query: Sql) -> tuple[Any, ...] | None:
        """Return the first row of what a query answers, or None."""
        return next(iter(self.rows(query)), None)

    def number(self, query: Sql) -> int:
        """Return the number that a query answers with."""
        found = self.first(query)
        return int(found[0] or 0) if found else 0

    @contextmanager
    def transaction(self, *, limit_s: int = WRITE_LIMIT_S, only_reads: bool = False) -> Iterator[None]:
        """Keep all of the block's effects, or none; what waits for others, or takes too long, fails."""
        self.execute(*self.dialect.beginning(limit_s=limit_s, only_reads=only_reads))
        try:
            yield
        except BaseException:
            self.end(commits=False)
            raise
        self.end(commits=True)

    @contextmanager
    def locked(self, table: str, *, shared: bool = False, limit_s: int = WRITE_LIMIT_S) -> Iterator[None]:
        """Keep others of ours out of the table for one transaction; those who share it let each other in."""
        with self.transaction(limit_s=limit_s):
            self.lock(f"{self.dialect.namespace}/{table}", shared=shared)
            yield

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo the block's effects alone where it fails, so that the transaction goes on."""
        self.execute(sql("SAVEPOINT headgate"))
        try:
            yield
        except self.driver_errors:
            self.execute(sql("ROLLBACK TO SAVEPOINT headgate"))
            raise
        self.execute(sql("RELEASE SAVEPOINT headgate"))


@dataclass(frozen=True, slots=True)
class InsertWriter:
    """Inserts rows as the driver does many."""

    statement: str
    insert: Callable[[str, list[tuple[Any, ...]]], Any]

    def encode(self, frame: "pl.DataFrame") -> list[tuple[Any, ...]]:
        """Return the rows, their dates and times as text."""
        import polars as pl  # noqa: PLC0415 (heavy)
        import polars.selectors as cs  # noqa: PLC0415

        return frame.with_columns(
            cs.datetime().dt.strftime(TIMESTAMP_FORMAT),
            cs.date().dt.strftime("%Y-%m-%d"),
            cs.by_dtype(pl.UInt64).cast(pl.String),
        ).rows()

    def write(self, encoded: list[tuple[Any, ...]]) -> None:
        """Append the rows."""
        self.insert(self.statement, encoded)
