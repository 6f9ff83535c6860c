"""What the sinks ask of a database, each dialect in its own words."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ingestion.ports.context import Context
from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.naming import DELETED_AT, LINEAGE, PREFIX, RUN, Limits, number_of
from sinks.relational.schema_plan import Found, NewColumn
from sinks.relational.statements import Name, Sql, Value, column_of, joined, names, sql
from sinks.relational.troubles import Trouble

if TYPE_CHECKING:
    import polars as pl

PART_NUMBER, PLACE = "headgate_part", "headgate_place"
"""Where a staged row comes from: the number of its part, its place in it."""
LOCK_WAIT_S = 10
WRITE_LIMIT_S = 60
"""A block of rows is written in a second or two; who holds a lock for longer while writing one is gone or frozen."""
STATEMENT_LIMIT_S = 1200
IDLE_LIMIT_S = 120


@dataclass(frozen=True, slots=True)
class Merge:
    """Rows that wait in a staging table, and the table they go into.

    `columns` are the data columns that the run writes, the key's among them. `may_change_own`: rows that this very run
    brought before may change once more, because it was published in part and is being completed.
    """

    target: str
    staging: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    run_id: int
    has_deletions: bool
    may_change_own: bool = False

    @property
    def compared(self) -> tuple[str, ...]:
        """Return the columns in which a row can have changed."""
        return tuple(column for column in self.columns if column not in self.key)

    @property
    def copied(self) -> tuple[str, ...]:
        """Return the columns that are taken from the staging table as they are."""
        return (*self.columns, *LINEAGE[1:])


class RowWriter(Protocol):
    """Appends rows to a table."""

    def encode(self, frame: "pl.DataFrame") -> Any:
        """Return the rows as `write` takes them. Done in another thread, beside the writing of other rows."""
        ...

    def write(self, encoded: Any) -> None:
        """Append the encoded rows."""
        ...


class Session(ABC):
    """One open connection; statements run at once unless a transaction is open."""

    name: ClassVar[str]
    mark: ClassVar[str]
    limits: ClassVar[Limits]
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    block_rows: ClassVar[int]
    """How many rows are written in one go at most."""
    merge_rows: ClassVar[int]
    """How many staged rows are merged in one statement."""
    refuses_nan: ClassVar[bool] = False
    own_types: ClassVar[dict[str, str]]
    """The types of our own tables' columns: name, text, integer, time."""
    waiting_table: ClassVar[str] = "CREATE TABLE"
    """What begins a table whose rows need not survive the server."""
    table_ending: ClassVar[str] = ""

    # --- statements

    @abstractmethod
    def execute(self, statement: Sql) -> int:
        """Run the statement and return the number of rows it touched."""

    @abstractmethod
    def rows(self, statement: Sql) -> list[tuple[Any, ...]]:
        """Return what a query answers."""

    @abstractmethod
    def begin(self, *, limit_s: int, only_reads: bool = False) -> None:
        """Open a transaction whose statements take at most that long."""

    @abstractmethod
    def end(self, *, commits: bool) -> None:
        """Close the transaction; on a broken connection a rollback does nothing."""

    @abstractmethod
    def hold(self, lock: str, *, shared: bool) -> None:
        """Take the lock of that name within the open transaction, waiting LOCK_WAIT_S at most."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    @abstractmethod
    def watched(self, ctx: Context) -> AbstractContextManager[None]:
        """Break statements of the block off when the work must stop, and show progress while the server works."""

    @classmethod
    @abstractmethod
    def explain(cls, error: Exception) -> Trouble:
        """Return what an error of the driver means."""

    @abstractmethod
    def quote(self, name: str) -> str:
        """Return the name in the database's quotes."""

    def first(self, statement: Sql) -> tuple[Any, ...] | None:
        """Return the first row of what a query answers, or None."""
        return next(iter(self.rows(statement)), None)

    def count(self, statement: Sql) -> int:
        """Return the number that a query answers with."""
        found = self.first(statement)
        return int(found[0] or 0) if found else 0

    @contextmanager
    def transaction(self, *, limit_s: int = WRITE_LIMIT_S, only_reads: bool = False) -> Iterator[None]:
        """Keep all of the block's effects, or none; what waits for others, or takes too long, fails."""
        self.begin(limit_s=limit_s, only_reads=only_reads)
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
            self.hold(f"{self.place}/{table}", shared=shared)
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

    # --- the check

    def encryption(self) -> str:
        """Return how the connection is encrypted, or that it is not; empty where there is no network between."""
        return ""

    @abstractmethod
    def problem_of_place(self) -> str:
        """Return why no table can be here, or nothing."""

    def probe_writing(self) -> None:
        """Create, fill and remove a table, leaving nothing."""
        probe = self.table(f"{PREFIX}check")
        with self.locked("headgate check"):
            self.execute(sql("CREATE TABLE {} (tried {})", probe, self.own_types["integer"]))
            self.execute(sql("INSERT INTO {} (tried) VALUES ({})", probe, Value(1)))
            self.execute(sql("DROP TABLE {}", probe))

    # --- tables

    @property
    @abstractmethod
    def place(self) -> str:
        """Return the schema or database whose tables are meant."""

    @abstractmethod
    def table(self, name: str) -> Name:
        """Return the table's whole name."""

    @abstractmethod
    def describe(self, table: str) -> dict[str, Found]:
        """Return the columns of a table in their order; empty where there is none."""

    @abstractmethod
    def tables(self) -> list[str]:
        """Return the names of the tables there are."""

    @abstractmethod
    def key_of(self, table: str) -> tuple[str, ...]:
        """Return the columns by which the table tells its rows apart."""

    @abstractmethod
    def type_of(self, new: NewColumn, *, key_columns: int = 1) -> str:
        """Return the type of a column, as one of `key_columns` where it is in the key."""

    @abstractmethod
    def size_of(self, table: str) -> int:
        """Return the bytes that the table takes; 0 where the database does not say."""

    def is_empty(self, table: str) -> bool:
        """Return whether the table has no rows."""
        return self.first(sql("SELECT 1 FROM {} LIMIT 1", self.table(table))) is None

    def definition(self, new: NewColumn, *, key_columns: int = 1) -> Sql:
        """Return a column as it stands in a CREATE TABLE."""
        ending = "" if new.nullable and not new.is_key else " NOT NULL"
        return sql("{} {}", Name(new.column), self.type_of(new, key_columns=key_columns) + ending)

    @abstractmethod
    def creating(self, table: str, columns: Sequence[NewColumn], *, key: Sequence[str]) -> list[Sql]:
        """Return what makes the table."""

    def adding(self, table: str, new: NewColumn) -> list[Sql]:
        """Return what adds a column that may be null."""
        return [sql("ALTER TABLE {} ADD COLUMN {} {}", self.table(table), Name(new.column), self.type_of(new))]

    @abstractmethod
    def retyping(self, table: str, new: NewColumn) -> list[Sql]:
        """Return what gives a column of an empty table another type."""

    @abstractmethod
    def swapping(self, table: str, *, column: str, aside: str, fresh: str) -> list[Sql]:
        """Return what sets a column aside, which may be null then, and lets `fresh` take its name."""

    @abstractmethod
    def relaxing(self, table: str, column: str, *, column_type: str) -> list[Sql]:
        """Return what lets a column be null."""

    @abstractmethod
    def tightening(self, table: str, column: str, *, column_type: str) -> list[Sql]:
        """Return what forbids a column to be null."""

    @abstractmethod
    def rekeying(self, table: str, *, old: Sequence[str], new: Sequence[str]) -> list[Sql]:
        """Return what changes the columns by which rows are told apart."""

    def dropping_column(self, table: str, column: str) -> list[Sql]:
        """Return what removes a column."""
        return [sql("ALTER TABLE {} DROP COLUMN {}", self.table(table), Name(column))]

    def dropping(self, table: str) -> Sql:
        """Return what removes a table if it is there."""
        return sql("DROP TABLE IF EXISTS {}", self.table(table))

    # --- values of one kind read as another

    @abstractmethod
    def as_text(self, column: Sql, kind: Kind) -> Sql:
        """Return the expression for a column's values as text."""

    @abstractmethod
    def parsed(self, text: Sql, kind: Kind) -> Sql:
        """Return the expression for texts read as values of a kind; null where one is none."""

    def prepare_parsing(self) -> None:  # noqa: B027 - not every database needs it
        """Make what `parsed` needs on this connection."""

    def recast(self, column: Sql, *, old: Kind, new: Kind) -> Sql:
        """Return the expression for a column's values as another kind; null where one cannot be read as that."""
        text = self.as_text(column, old)
        return text if new is Kind.TEXT else self.parsed(text, new)

    # --- rows

    @abstractmethod
    def writer(self, table: str, columns: Sequence[str]) -> "RowWriter":
        """Return what appends rows with these columns to the table."""

    @abstractmethod
    def create_staging(self, staging: str, *, target: str, columns: Sequence[str], key: Sequence[str]) -> None:
        """Make the table in which rows wait: these columns of the target's types, without its rules."""

    def extend_staging(self, staging: str, column: str, *, target: str, column_type: str) -> None:
        """Add a column that the target has got meanwhile."""
        self.execute(sql("ALTER TABLE {} ADD COLUMN {} {}", self.table(staging), Name(column), column_type))

    def remove_staged(self, staging: str, part: str) -> None:
        """Remove the rows of one part, by its name, that wait."""
        self.execute(
            sql("DELETE FROM {} WHERE {} = {}", self.table(staging), Name(PART_NUMBER), Value(number_of(part)))
        )

    def prepare_merge(self, merge: Merge) -> None:  # noqa: B027 - not every database needs it
        """Do what makes the merge fast, once all rows are staged."""

    @abstractmethod
    def within(self, alias: str, first: int, end: int) -> Sql:
        """Return the condition that a staged row's address lies from `first` up to `end`."""

    @abstractmethod
    def ranges(self, staging: str) -> list[tuple[int, int]]:
        """Return ranges of addresses, each with about `merge_rows` staged rows, that hold all of them."""

    @abstractmethod
    def addresses(self, staging: str, first: int, end: int) -> list[int]:
        """Return the addresses of the staged rows in a range, ascending."""

    @abstractmethod
    def distinct(self, left: str, right: str, columns: Sequence[str]) -> Sql:
        """Return the condition that two rows differ in any of the columns, null being a value like others."""

    @abstractmethod
    def differ(self, left: Sql, right: Sql) -> Sql:
        """Return the condition that two expressions differ, null being a value like others."""

    def same_key(self, left: str, right: str, key: Sequence[str]) -> Sql:
        """Return the condition that two rows have the same key."""
        return joined(" AND ", (sql("{} = {}", column_of(left, name), column_of(right, name)) for name in key))

    def merge_range(self, merge: Merge, first: int, end: int) -> tuple[int, int]:
        """Merge the staged rows of a range and return how many were inserted and how many updated."""
        updated = self.execute(self.updating(merge, first, end))
        return self.execute(self.inserting(merge, first, end)), updated

    def changeable(self, merge: Merge) -> Sql:
        """Return the condition that a row `t` of the target is not newer than the run and differs from the staged `s`."""
        run, than = column_of("t", RUN), "<=" if merge.may_change_own else "<"
        older = sql("({} IS NULL OR {} {} {})", run, run, than, Value(merge.run_id))
        changed = self.distinct("t", "s", merge.compared) if merge.compared else sql("1 = 0")
        if merge.has_deletions:
            changed = sql("({} OR t.{} IS NOT NULL)", changed, Name(DELETED_AT))
        return sql("{} AND {}", older, changed)

    def assignments(self, merge: Merge, *, alias: str = "") -> Sql:
        """Return what an update sets, from the staged row `s`."""
        settings = [
            sql("{} = s.{}", column_of(alias, column), Name(column))
            for column in merge.copied
            if column not in merge.key
        ]
        settings.append(sql("{} = {}", column_of(alias, RUN), Value(merge.run_id)))
        if merge.has_deletions:
            settings.append(sql("{} = NULL", column_of(alias, DELETED_AT)))
        return joined(", ", settings)

    def updating(self, merge: Merge, first: int, end: int) -> Sql:
        """Return what updates the rows that differ."""
        return sql(
            "UPDATE {} AS t SET {} FROM {} AS s WHERE {} AND {} AND {}",
            self.table(merge.target),
            self.assignments(merge),
            self.table(merge.staging),
            self.within("s", first, end),
            self.same_key("t", "s", merge.key),
            self.changeable(merge),
        )

    def inserting(self, merge: Merge, first: int, end: int) -> Sql:
        """Return what inserts the rows whose key the target does not have."""
        return sql(
            "INSERT INTO {} ({}, {}) SELECT {}, {} FROM {} AS s WHERE {} AND NOT EXISTS (SELECT 1 FROM {} AS t WHERE {})",
            self.table(merge.target),
            names(merge.copied),
            Name(RUN),
            names(merge.copied, of="s"),
            Value(merge.run_id),
            self.table(merge.staging),
            self.within("s", first, end),
            self.table(merge.target),
            self.same_key("t", "s", merge.key),
        )

    def absent(self, merge: Merge) -> Sql:
        """Return the condition that a row of the target is of an earlier run and its key was not staged."""
        target, than = self.table(merge.target), "<=" if merge.may_change_own else "<"
        return sql(
            "{}.{} {} {} AND NOT EXISTS (SELECT 1 FROM {} AS s WHERE {})",
            target,
            Name(RUN),
            than,
            Value(merge.run_id),
            self.table(merge.staging),
            joined(" AND ", (sql("s.{} = {}.{}", Name(name), target, Name(name)) for name in merge.key)),
        )
