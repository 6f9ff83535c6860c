"""The changes that a table needs so that a run's rows fit into it. Pure.

    the table is missing                    it is created, the contract's columns first and in its order
    a column is missing                     it is added behind the others, filled where the rows there have values
    a column holds another kind of values,  the old one is set aside under another name and a new one takes its place,
      or comes back into the contract       filled from the lake; nothing is rewritten in place, so readers wait for a
                                            rename at most and the old values stay
      ... and the table has no rows         the column changes its type where it stands
    the contract lets go of a column        it stays for some days, may be null from now on, and is not compared
    it lets go of its "not null"            it may be null from now on
    the contract names another key          the primary key changes

A declared column has the kind its contract says. One that no contract declares holds what all parts so far brought:
whole numbers and floats together as floats where these hold them exactly, other kinds that differ as text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ingestion.ports.schema import ContractBody, ExtraColumns
from ingestion.toolkit.clean.kinds import DECLARED_KINDS, Kind
from sinks.relational.naming import DELETED_AT, LINEAGE, PART, Limits, aside_name, column_name
from sinks.relational.table_kinds import Content, unify

_NOTHING = Content(None)
TECHNICAL: Mapping[str, Kind] = {
    **{name: Kind.TEXT if name == PART else Kind.INTEGER for name in LINEAGE},
    DELETED_AT: Kind.TIMESTAMP,
}


@dataclass(frozen=True, slots=True)
class RequiredColumn:
    """A column of the data, by its name there, that the table has to take."""

    source: str
    content: Content
    nullable: bool = True
    is_declared: bool = False
    is_held: bool = False
    """The runs that the table has rows of hold values in it."""


@dataclass(frozen=True, slots=True)
class MappedColumn:
    """The column of the table in which one of the data lies, and what we put there.

    `was_declared` by any contract so far; `is_required` where it was we who forbade it to be null; `is_seen` through the
    contract that the table follows.
    """

    column: str
    kind: Kind
    was_declared: bool = False
    is_required: bool = False
    is_seen: bool = True


@dataclass(frozen=True, slots=True)
class ActualColumn:
    """A column as the database describes it."""

    type: str
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class TableKey:
    """The columns by which a table tells its rows apart, and what that constraint is called."""

    columns: tuple[str, ...] = ()
    constraint: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is: what the database says of it and what we noted."""

    name: str
    actual: Mapping[str, ActualColumn] = field(default_factory=dict)
    """Empty where there is no such table."""
    mapped: Mapping[str, MappedColumn] = field(default_factory=dict)
    """By the column's name in the data."""
    key: tuple[str, ...] = ()
    asides: frozenset[str] = frozenset()
    is_empty: bool = False
    seen_since: int | None = None
    contract: ContractBody | None = None
    """The contract through which its rows are seen, brought by that run; None where nobody noted it."""

    @property
    def exists(self) -> bool:
        """Return whether the database has the table."""
        return bool(self.actual)

    def follows(self, contract: ContractBody) -> bool:
        """Return whether the table's rows are seen through this contract already."""
        # As they are stored: a contract that was read again may hold a list where the given one has a tuple.
        noted = self.contract and self.contract.model_dump(mode="json", exclude_defaults=True)
        return noted == contract.model_dump(mode="json", exclude_defaults=True)

    @property
    def has_deletions(self) -> bool:
        """Return whether a row can be marked as deleted."""
        return DELETED_AT in self.actual


@dataclass(frozen=True, slots=True)
class NewColumn:
    """A column to be made."""

    column: str
    kind: Kind
    nullable: bool = True
    is_key: bool = False


@dataclass(frozen=True, slots=True)
class CreateTable:
    """There is no table yet."""

    columns: tuple[NewColumn, ...]
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AddColumn:
    """The table lacks a column; `is_filled` where the rows that are there have values in it."""

    new: NewColumn
    is_filled: bool = False


@dataclass(frozen=True, slots=True)
class RetypeColumn:
    """A column of a table without rows holds another kind from now on."""

    new: NewColumn


@dataclass(frozen=True, slots=True)
class ReplaceColumn:
    """A column is set aside as `aside`, and a new one filled as the contract sees the rows that are there."""

    new: NewColumn
    old_kind: Kind
    aside: str


@dataclass(frozen=True, slots=True)
class RelaxColumn:
    """A column may be null from now on."""

    column: str
    type: str


@dataclass(frozen=True, slots=True)
class ReleaseColumn:
    """The contract has a column no more, which is removed some days later."""

    column: str


@dataclass(frozen=True, slots=True)
class ChangeKey:
    """Other columns tell rows apart from now on; none: nothing does."""

    old: tuple[str, ...]
    new: tuple[str, ...]


Change: TypeAlias = CreateTable | AddColumn | RetypeColumn | ReplaceColumn | RelaxColumn | ReleaseColumn | ChangeKey


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes, in order, and what is noted of the table once they are made."""

    changes: tuple[Change, ...]
    mapped: Mapping[str, MappedColumn]

    def is_needed_by(self, table: Table) -> bool:
        """Return whether anything is to be done."""
        return bool(self.changes) or dict(self.mapped) != dict(table.mapped)


def required_columns(
    contract: ContractBody, contents: Mapping[str, Content], *, held: Mapping[str, Content] | None = None
) -> list[RequiredColumn]:
    """Return the columns that a table needs: the contract's in its order, then others that the data have and it keeps.

    `contents` are those of the data on their way, `held` those of the runs that the table has rows of.
    """
    held = held or {}
    declared = [
        RequiredColumn(
            column.name,
            Content(DECLARED_KINDS[column.type]),
            nullable=column.nullable and column.name not in contract.key,
            is_declared=True,
            is_held=held.get(column.name, _NOTHING).kind is not None,
        )
        for column in contract.columns
    ]
    names = {column.name for column in contract.columns}
    if contract.extra_columns is not ExtraColumns.KEEP:
        return declared
    extras = [
        RequiredColumn(
            name,
            unify(held.get(name, _NOTHING), contents.get(name, _NOTHING)),
            is_held=held.get(name, _NOTHING).kind is not None,
        )
        for name in dict.fromkeys((*held, *contents))
        if name not in names
    ]
    return [*declared, *extras]


def plan_changes(
    table: Table,
    required: Sequence[RequiredColumn],
    *,
    key: Sequence[str],
    marks_deletions: bool,
    limits: Limits,
    day: str,
    fits_number: Callable[[str], bool],
    keeps_extras: bool = True,
) -> Plan:
    """Return what the table needs to take these columns under this key (names as in the data).

    `keeps_extras`: columns that the contract does not name belong to the record, so they are seen.
    `fits_number` says whether a float holds every value that a column of whole numbers has now; it is asked where
    that decides. `day` (YYYYMMDD) goes into the names of columns that are set aside.
    """
    mapped = dict(table.mapped)
    taken = [*table.actual, *TECHNICAL]
    changes: list[Change] = []
    new_columns: list[NewColumn] = []
    altered: set[str] = set()
    for item in required:
        before = mapped.get(item.source) or _adopted(item, table, mapped=mapped, limits=limits)
        kind = _kind_of(item, before, fits_number=fits_number)
        if kind is None:
            continue
        column = before.column if before else column_name(item.source, taken=taken, limits=limits)
        was_declared = item.is_declared or bool(before and before.was_declared)
        is_required = bool(before and before.is_required and not item.nullable)
        mapped[item.source] = MappedColumn(column, kind, was_declared, is_required)
        is_back = before is not None and not before.is_seen
        taken.append(column)
        new = NewColumn(column, kind, nullable=item.nullable, is_key=item.source in key)
        if not table.exists:
            new_columns.append(new)
            mapped[item.source] = MappedColumn(column, kind, was_declared, is_required=not item.nullable)
        elif column not in table.actual:
            changes.append(AddColumn(_nullable(new), is_filled=item.is_held and not table.is_empty))
        elif before is not None and (before.kind is not kind or (is_back and not table.is_empty)):
            altered.add(column)
            changes.append(_changed(new, before, table, taken=taken, limits=limits, day=day))
    technical = [NewColumn(name, TECHNICAL[name]) for name in _technical(marks_deletions=marks_deletions)]
    whole_key = tuple(mapped[source].column for source in key)
    if not table.exists:
        return Plan((CreateTable((*new_columns, *technical), whole_key),), mapped)
    changes += [AddColumn(new) for new in technical if new.column not in table.actual]
    if table.key != whole_key or altered & set(whole_key):
        if altered & set(table.key):
            # Before its column is: the constraint would follow the old column under its new name.
            changes.insert(0, ChangeKey(table.key, ()))
            changes.append(ChangeKey((), whole_key))
        else:
            changes.append(ChangeKey(table.key, whole_key))
    gone = set(mapped) - {item.source for item in required}
    for source in gone:
        entry = mapped[source]
        mapped[source] = replace(entry, is_required=False, is_seen=entry.is_seen and keeps_extras)
        if mapped[source].is_seen is not entry.is_seen and entry.column in table.actual:
            changes.append(ReleaseColumn(entry.column))
    changes += [
        RelaxColumn(entry.column, table.actual[entry.column].type)
        for source, entry in mapped.items()
        if entry.column in table.actual
        and not table.actual[entry.column].nullable
        and entry.column not in {*whole_key, *altered}
        and (
            (source in gone and entry.was_declared)
            or (source in table.mapped and table.mapped[source].is_required and not entry.is_required)
        )
    ]
    return Plan(tuple(changes), mapped)


def _kind_of(item: RequiredColumn, before: MappedColumn | None, *, fits_number: Callable[[str], bool]) -> Kind | None:
    if item.is_declared or before is None:
        return item.content.kind
    content = Content(before.kind)
    if before.kind is Kind.INTEGER and item.content.kind is Kind.NUMBER:
        content = Content(before.kind, is_exact_as_number=fits_number(before.column))
    return unify(content, item.content).kind


def _adopted(
    item: RequiredColumn, table: Table, *, mapped: Mapping[str, MappedColumn], limits: Limits
) -> MappedColumn | None:
    """Return a column that somebody else made under this name as ours; what it cannot take, it rejects row by row."""
    if item.content.kind is None:
        return None
    used = {entry.column for entry in mapped.values()} | table.asides | set(TECHNICAL)
    for name in table.actual:
        if limits.folded(name) == limits.folded(item.source) and name not in used:
            return MappedColumn(name, item.content.kind, item.is_declared)
    return None


def _changed(
    new: NewColumn, before: MappedColumn, table: Table, *, taken: list[str], limits: Limits, day: str
) -> RetypeColumn | ReplaceColumn:
    if table.is_empty:
        return RetypeColumn(_nullable(new))
    aside = aside_name(new.column, day=day, taken=taken, limits=limits)
    taken.append(aside)
    return ReplaceColumn(_nullable(new), old_kind=before.kind, aside=aside)


def _nullable(new: NewColumn) -> NewColumn:
    """Return the column without its "not null": rows that are there have no value for it."""
    return replace(new, nullable=True)


def _technical(*, marks_deletions: bool) -> tuple[str, ...]:
    return (*LINEAGE, DELETED_AT) if marks_deletions else LINEAGE
