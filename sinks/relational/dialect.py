"""The SQL of one database: its types, names and statements, without a connection. Pure."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.naming import DELETED_AT, LINEAGE, PAGE, PART, PART_NUMBER, PLACE, ROW, ROW_NUMBER, RUN, Limits
from sinks.relational.schema_plan import ActualColumn, NewColumn, TableKey
from sinks.relational.statements import Name, Piece, Sql, Value, column_of, joined, names, sql

LOCK_WAIT_S = 10
IDLE_LIMIT_S = 120


@dataclass(frozen=True, slots=True)
class Merge:
    """Rows that wait in a staging table, and the table they go into.

    `columns` are the data columns that the run writes, the key's among them, each with its type in the target.
    `may_change_own`: rows that this very run brought before may change once more, because it was published in part and
    is being completed.
    """

    target: str
    staging: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    run_id: int
    has_deletions: bool
    may_change_own: bool = False
    unseen: frozenset[str] = frozenset()
    """Columns that the contract has no more: null in every row that is written, and not compared."""
    later: str = ""
    """The table of the keys that later runs brought, where there are any: theirs is the newer row."""

    @property
    def compared(self) -> tuple[str, ...]:
        """Return the columns in which a row can have changed."""
        return tuple(column for column in self.columns if column not in (*self.key, *self.unseen))

    @property
    def copied(self) -> tuple[str, ...]:
        """Return the columns that are taken from the staging table as they are."""
        return (*self.columns, *LINEAGE[1:])


@dataclass(frozen=True)
class Dialect(ABC):
    """The SQL of one database. A method that changes a table returns the statements in their order."""

    name: ClassVar[str]
    placeholder: ClassVar[str] = "%s"
    """The mark that the driver replaces by a bound value."""
    quotation_mark: ClassVar[str] = '"'
    limits: ClassVar[Limits]
    types: ClassVar[Mapping[Kind, str]]
    own_types: ClassVar[Mapping[str, str]]
    """The types of our own tables' columns: name, text, integer, time."""
    row_number: ClassVar[str] = ""
    """The declaration of a column that numbers its rows."""
    block_rows: ClassVar[int]
    """The most rows that are written in one go."""
    merge_rows: ClassVar[int]
    """The number of staged rows that are merged in one statement."""
    keeps_json: ClassVar[bool] = False
    """JSON stays the text that it was given as."""
    create_volatile: ClassVar[str] = "CREATE TABLE"
    """The beginning of a table whose rows need not survive the server."""

    namespace: str
    """The schema or database whose tables are meant."""

    @property
    def table_ending(self) -> str:
        """Return what ends a CREATE TABLE."""
        return ""

    def quote(self, name: str) -> str:
        """Return the name in the database's quotes."""
        mark = self.quotation_mark
        return mark + name.replace(mark, mark * 2) + mark

    def render(self, statement: Sql) -> tuple[str, list[Any]]:
        """Return the text and the values to bind, as the driver takes them."""
        return statement.written_for(quote=self.quote, mark=self.placeholder)

    def table(self, name: str) -> Name:
        """Return the table's whole name."""
        return Name(self.namespace, name)

    # --- transactions

    @abstractmethod
    def beginning(self, *, limit_s: int, only_reads: bool) -> list[Sql]:
        """Open a transaction whose statements take at most that long, and wait for locks LOCK_WAIT_S at most."""

    # --- what is there: queries

    def namespace_check(self) -> tuple[Sql, str] | None:
        """Return a query that answers with a row where tables can be made here, and what is wrong where it does not."""
        return None

    @abstractmethod
    def listing(self) -> Sql:
        """Ask for the names of all tables."""

    @abstractmethod
    def describing(self, table: str) -> Sql:
        """Ask for the columns of a table in their order: name, type, and whether it may be null."""

    @abstractmethod
    def finding_key(self, table: str) -> Sql:
        """Ask for the columns of a table's key in their order, each with the constraint's name."""

    @abstractmethod
    def measuring(self, table: str) -> Sql:
        """Ask for the bytes that a table takes; 0 where the database does not say."""

    # --- tables

    def type_of(self, new: NewColumn, *, key_columns: int = 1) -> str:  # noqa: ARG002 - for those with limits of a key
        """Return the type of a column, as one of `key_columns` where it is in the key."""
        return self.types[new.kind]

    def definition(self, new: NewColumn, *, key_columns: int = 1) -> Sql:
        """Return a column as it stands in a CREATE TABLE."""
        ending = "" if new.nullable and not new.is_key else " NOT NULL"
        return sql("{} {}", Name(new.column), self.type_of(new, key_columns=key_columns) + ending)

    @abstractmethod
    def creating(self, table: str, columns: Sequence[NewColumn], *, key: Sequence[str]) -> list[Sql]:
        """Make the table."""

    def creating_own(self, table: str, columns: Mapping[str, str], *, key: Sequence[str], is_volatile: bool) -> Sql:
        """Make one of our own tables, whose columns are of `own_types`."""
        definitions = [
            sql("{} {}", Name(column), self.own_types[kind] + (" NOT NULL" if column in key else ""))
            for column, kind in columns.items()
        ]
        create = self.create_volatile if is_volatile else "CREATE TABLE"
        body = joined(", ", (*definitions, sql("PRIMARY KEY ({})", names(key))))
        return sql(f"{create} {{}} ({{}}){self.table_ending}", self.table(table), body)

    def adding(self, table: str, column: str, column_type: str) -> Sql:
        """Add a column that may be null."""
        return sql("ALTER TABLE {} ADD COLUMN {} {}", self.table(table), Name(column), column_type)

    @abstractmethod
    def retyping(self, table: str, column: str, column_type: str) -> list[Sql]:
        """Give a column of an empty table another type."""

    def swapping(self, table: str, *, column: str, aside: str, fresh: str, column_type: str) -> list[Sql]:
        """Set a column aside, which may be null then, and let `fresh` take its name."""
        return [
            self.renaming(table, column, aside),
            self.renaming(table, fresh, column),
            *self.requiring(table, aside, column_type=column_type, is_required=False),
        ]

    def renaming(self, table: str, column: str, name: str) -> Sql:
        """Give a column another name."""
        return sql("ALTER TABLE {} RENAME COLUMN {} TO {}", self.table(table), Name(column), Name(name))

    @abstractmethod
    def requiring(self, table: str, column: str, *, column_type: str, is_required: bool) -> list[Sql]:
        """Forbid a column to be null, or let it."""

    @abstractmethod
    def rekeying(
        self, table: str, *, old: TableKey, new: Sequence[str], columns: Mapping[str, ActualColumn]
    ) -> list[Sql]:
        """Change the columns by which rows are told apart."""

    def dropping_column(self, table: str, column: str) -> Sql:
        """Remove a column."""
        return sql("ALTER TABLE {} DROP COLUMN {}", self.table(table), Name(column))

    def dropping(self, table: str) -> Sql:
        """Remove a table if it is there."""
        return sql("DROP TABLE IF EXISTS {}", self.table(table))

    # --- values of one kind read as another: expressions

    @abstractmethod
    def as_text(self, column: Sql, kind: Kind) -> Sql:
        """Return a column's values as text."""

    @abstractmethod
    def parsed(self, text: Sql, kind: Kind) -> Sql:
        """Return texts read as values of a kind; null where one is none."""

    def preparing_parsing(self) -> list[Sql]:
        """Make what `parsed` needs on a connection."""
        return []

    def recast(self, column: Sql, *, old: Kind, new: Kind) -> Sql:
        """Return a column's values as another kind; null where one cannot be read as that."""
        text = self.as_text(column, old)
        return text if new is Kind.TEXT else self.parsed(text, new)

    @abstractmethod
    def differ(self, left: Sql, right: Sql) -> Sql:
        """Return the condition that two expressions differ, null being a value like others."""

    def filling(self, target: str, staging: str, *, columns: Sequence[str], key: Sequence[str], run_id: int) -> Sql:
        """Set columns of the rows that wait in `staging` by the same key, or, without one, by the run and its lineage."""
        settings = joined(", ", (sql("{} = s.{}", Name(name), Name(name)) for name in columns))
        where = self.same_row(key, run_id=run_id)
        return sql(
            "UPDATE {} AS t SET {} FROM {} AS s WHERE {}", self.table(target), settings, self.table(staging), where
        )

    def same_row(self, key: Sequence[str], *, run_id: int) -> Sql:
        """Return the condition that `t` and `s` are one row: the same key, or, without one, the same row of the run."""
        if key:
            return self.same_key("t", "s", key)
        page = self.differ(column_of("t", PAGE), column_of("s", PAGE))
        return sql(
            "{} = {} AND {} AND NOT ({})",
            column_of("t", RUN),
            Value(run_id),
            self.same_key("t", "s", (PART, ROW)),
            page,
        )

    # --- checksums

    def is_own(self, column_type: str, kind: Kind) -> bool:
        """Return whether it is the type that we give to a column of the kind; a person may have made another."""
        return column_type == self.types[kind]

    def truth(self, column: Sql) -> Sql:
        """Return a boolean as 1 or 0."""
        return column

    @abstractmethod
    def whole(self, number: Sql) -> Sql:
        """Return a float without its fraction, as an integer."""

    @abstractmethod
    def days(self, column: Sql) -> Sql:
        """Return the days of a date since 1970."""

    @abstractmethod
    def microseconds(self, column: Sql) -> Sql:
        """Return the microseconds of a timestamp since 1970."""

    def byte_count(self, text: Sql) -> Sql:
        """Return the length of a text in UTF-8."""
        return sql("octet_length({})", text)

    @abstractmethod
    def text_number(self, text: Sql) -> Sql:
        """Return the first 32 bits of a text's MD5."""

    # --- staged rows, each with an address: here its number

    def inserting_row(self, table: str, columns: Sequence[str]) -> str:
        """Return the INSERT of one row, with a placeholder for each value, as a driver takes it for many."""
        marks = joined(", ", (Value(None) for _ in columns))
        return self.render(sql("INSERT INTO {} ({}) VALUES ({})", self.table(table), names(columns), marks))[0]

    def creating_staging(
        self, staging: str, *, target: str, columns: Mapping[str, str], key: Sequence[str]
    ) -> list[Sql]:
        """Make the table in which rows wait: these columns of the target and their types, without its rules."""
        integer = self.own_types["integer"]
        typed = {ROW_NUMBER: self.row_number, PART_NUMBER: integer, PLACE: integer, **columns}
        definitions = joined(", ", (sql("{} {}", Name(name), column_type) for name, column_type in typed.items()))
        whole = self.table(staging)
        return [
            sql("CREATE TABLE {} ({}){}", whole, definitions, self.table_ending),
            # The search for absent keys asks for each key of the target whether it waits here.
            sql("CREATE INDEX {} ON {} ({})", Name(f"{staging}_key"), whole, names(key)),
        ]

    def extent(self, staging: str) -> Sql:
        """Ask for the two numbers from which `ranges` finds all staged rows."""
        return sql("SELECT MIN({}), MAX({}) FROM {}", Name(ROW_NUMBER), Name(ROW_NUMBER), self.table(staging))

    def ranges(self, least: Any, most: Any) -> list[tuple[int, int]]:
        """Return ranges of addresses, each with about `merge_rows` staged rows, that hold all of them."""
        if least is None:
            return []
        return [(first, first + self.merge_rows) for first in range(int(least), int(most) + 1, self.merge_rows)]

    def within(self, alias: str, first: int, end: int) -> Sql:
        """Return the condition that a staged row's address lies from `first` up to `end`."""
        number = column_of(alias, ROW_NUMBER)
        return sql("{} >= {} AND {} < {}", number, Value(first), number, Value(end))

    def addresses(self, staging: str, first: int, end: int) -> Sql:
        """Ask for the addresses of the staged rows in a range, each as `address_of` reads it."""
        return sql("SELECT {} FROM {} WHERE {}", Name(ROW_NUMBER), self.table(staging), self.within("", first, end))

    def address_of(self, answer: Any) -> int:
        """Return an address that `addresses` answered with."""
        return int(answer)

    # --- merging

    def preparing_merge(self, merge: Merge) -> list[Sql]:  # noqa: ARG002 - not every database needs it
        """Do what makes the merge fast, once all rows are staged."""
        return []

    def indexing_staging(self, merge: Merge) -> list[Sql]:  # noqa: ARG002 - most have it from the beginning
        """Do what makes the search for absent keys fast where the staged rows take several ranges."""
        return []

    def merging(self, merge: Merge, first: int, end: int) -> Sql | None:  # noqa: ARG002
        """Update and insert in one statement where the database knows one that is quicker than two."""
        return None

    def counters(self, target: str) -> Sql:
        """Ask how many rows this transaction has inserted into a table and updated; only where `merging` is known."""
        raise NotImplementedError

    def same_key(self, left: Piece, right: Piece, key: Sequence[str]) -> Sql:
        """Return the condition that two rows, of tables or aliases, have the same key."""
        return joined(" AND ", (sql("{}.{} = {}.{}", left, Name(name), right, Name(name)) for name in key))

    def changed(self, merge: Merge) -> Sql:
        """Return the condition that a row `t` of the target differs from the staged `s`."""
        pairs = (
            self.differ(*(self.exactly(column_of(alias, name), merge.columns[name]) for alias in "ts"))
            for name in merge.compared
        )
        return sql("({})", joined(" OR ", pairs)) if merge.compared else sql("1 = 0")

    def exactly(self, column: Sql, column_type: str) -> Sql:  # noqa: ARG002 - few have inexact types
        """Return a column of that type so that `differ` tells all of its values apart."""
        return column

    def changeable(self, merge: Merge) -> Sql:
        """Return the condition that a row `t` of the target is not newer than the run and differs from the staged `s`."""
        run, than = column_of("t", RUN), "<=" if merge.may_change_own else "<"
        older = sql("({} IS NULL OR {} {} {})", run, run, than, Value(merge.run_id))
        changed = self.changed(merge)
        if merge.has_deletions:
            changed = sql("({} OR t.{} IS NOT NULL)", changed, Name(DELETED_AT))
        return sql("{} AND {}", older, changed)

    def assignments(self, merge: Merge, *, alias: str = "") -> Sql:
        """Return what an update sets, from the staged row `s`."""
        copied = [name for name in merge.copied if name not in merge.key]
        settings = [sql("{} = {}", column_of(alias, name), column_of("s", name)) for name in copied]
        settings.append(sql("{} = {}", column_of(alias, RUN), Value(merge.run_id)))
        if merge.has_deletions:
            settings.append(sql("{} = NULL", column_of(alias, DELETED_AT)))
        return joined(", ", settings)

    def updating(self, merge: Merge, first: int, end: int) -> Sql:
        """Update the rows that differ."""
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
        """Insert the rows whose key the target does not have."""
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
        older = sql("{}.{} {} {}", target, Name(RUN), than, Value(merge.run_id))
        places = (merge.staging, merge.later) if merge.later else (merge.staging,)
        return joined(" AND ", (older, *(sql("NOT {}", self.waits(place, target, merge.key)) for place in places)))

    def waits(self, staging: str, target: Name, key: Sequence[str]) -> Sql:
        """Return the condition that the key of a row of the target waits in a staging table."""
        return sql("EXISTS (SELECT 1 FROM {} AS s WHERE {})", self.table(staging), self.same_key("s", target, key))

    def removing_replaced(self, merge: Merge) -> Sql:
        """Remove the staged rows whose key a later run brought."""
        staging = self.table(merge.staging)
        return sql("DELETE FROM {} WHERE {}", staging, self.waits(merge.later, staging, merge.key))
