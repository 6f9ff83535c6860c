"""The few types in which rows are read, and what becomes of a column whose parts disagree about its type."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from ingestion.ports.batch import CLEAN_COLUMNS, PAGE, PART, ROW, RUN
from ingestion.ports.schema import Column, ColumnType

EXACT_INTEGER = 2**53
"""Above this a number no longer tells neighbouring integers apart."""
_LARGEST_SIGNED = 2**63 - 1


class Kind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    INTEGER = "integer"
    UNSIGNED = "unsigned"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    NOTHING = "nothing"


LINEAGE = {RUN: Kind.INTEGER, PART: Kind.TEXT, ROW: Kind.INTEGER, PAGE: Kind.INTEGER}
"""The columns that tell where a row came from."""
_DECLARED = {
    ColumnType.INTEGER: Kind.INTEGER,
    ColumnType.NUMBER: Kind.NUMBER,
    ColumnType.BOOLEAN: Kind.BOOLEAN,
    ColumnType.DATE: Kind.DATE,
    ColumnType.DATETIME: Kind.TIMESTAMP,
}


@dataclass(frozen=True, slots=True)
class ColumnShape:
    """One column of one part, as its footer tells: least and greatest value where both are known."""

    name: str
    kind: Kind
    null_count: int | None = None
    low: Any = None
    high: Any = None

    @property
    def is_bounded(self) -> bool:
        """Return whether the least and the greatest value are known."""
        return self.low is not None and self.high is not None


@dataclass(frozen=True, slots=True)
class PartShape:
    """What is known of a part without reading its rows."""

    columns: tuple[ColumnShape, ...]
    group_rows: tuple[int, ...]
    _by_name: dict[str, ColumnShape] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        self._by_name.update({column.name: column for column in self.columns})

    @property
    def rows(self) -> int:
        """Return how many rows the part has."""
        return sum(self.group_rows)

    def column(self, name: str) -> ColumnShape | None:
        """Return the column of that name, or None."""
        return self._by_name.get(name)

    def has_values(self, column: ColumnShape) -> bool:
        """Return whether some row may have a value there."""
        return column.kind is not Kind.NOTHING and column.null_count != self.rows


def declared_kinds(columns: Iterable[Column]) -> dict[str, Kind]:
    """Return the kinds that a contract declares; nested values are text of JSON."""
    return {column.name: _DECLARED.get(column.type, Kind.TEXT) for column in columns}


def agreed_kinds(shapes: Sequence[PartShape], *, declared: Mapping[str, Kind]) -> dict[str, Kind]:
    """Return name and kind of every column, data first, the columns of the lineage last.

    Parts that hold no value in a column have no say. Integers and numbers agree on numbers where no integer is too
    large to be told from its neighbours then. Whoever else disagrees is read as text, which loses nothing. `declared`
    speaks for columns that no part has.
    """
    names = dict.fromkeys(column.name for shape in shapes for column in shape.columns)
    names |= dict.fromkeys(declared)
    data = {name: _agreed(name, shapes, declared) for name in names if name not in CLEAN_COLUMNS}
    return data | LINEAGE


def _agreed(name: str, shapes: Sequence[PartShape], declared: Mapping[str, Kind]) -> Kind:
    found = [(shape, column) for shape in shapes if (column := shape.column(name)) is not None]
    voters = [column for shape, column in found if shape.has_values(column)]
    kinds = {column.kind for column in voters}
    if not kinds:
        known = [column.kind for _, column in found if column.kind is not Kind.NOTHING]
        return declared.get(name) or (known[0] if known else Kind.TEXT)
    if len(kinds) == 1:
        return kinds.pop()
    integers = [column for column in voters if column.kind in (Kind.INTEGER, Kind.UNSIGNED)]
    if kinds == {Kind.INTEGER, Kind.UNSIGNED} and all(_is_within(column, _LARGEST_SIGNED) for column in integers):
        return Kind.INTEGER
    if kinds <= {Kind.INTEGER, Kind.UNSIGNED, Kind.NUMBER} and all(
        _is_within(column, EXACT_INTEGER) for column in integers
    ):
        return Kind.NUMBER
    return Kind.TEXT


def _is_within(column: ColumnShape, limit: int) -> bool:
    return column.is_bounded and -limit - 1 <= column.low and column.high <= limit


def as_text(value: Any) -> str | None:
    """Return a value of any kind as the text that stands for it where types disagree."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    return value.isoformat() if isinstance(value, date) else str(value)
