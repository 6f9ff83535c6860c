"""Kinds of values, the one list of them, and the kind of a column whose parts disagree. Pure: loads no Arrow.

A contract's types, Arrow's, and those of every destination are tables over `Kind`; nobody keeps a list of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from ingestion.ports.batch import CLEAN_COLUMNS, PAGE, PART, ROW, RUN
from ingestion.ports.schema import Column, ColumnType

EXACT_INTEGER = 2**53
"""Above this a number no longer tells neighbouring integers apart."""
_SIGNED = (-(2**63), 2**63 - 1)
_EXACT = (-EXACT_INTEGER, EXACT_INTEGER)


class Kind(StrEnum):
    """Kinds of values that a column can hold. Destinations write these names down, so they never change."""

    TEXT = "text"
    INTEGER = "integer"
    UNSIGNED = "unsigned"
    """Whole numbers up to 2^64; only columns that no contract declares have them."""
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "datetime"
    JSON = "json"
    """Objects and arrays, which clean parts carry as text."""
    NOTHING = "nothing"
    """Nulls alone."""


LINEAGE = {RUN: Kind.INTEGER, PART: Kind.TEXT, ROW: Kind.INTEGER, PAGE: Kind.INTEGER}
"""The columns that tell where a row came from."""
DECLARED_KINDS = {
    ColumnType.STRING: Kind.TEXT,
    ColumnType.INTEGER: Kind.INTEGER,
    ColumnType.NUMBER: Kind.NUMBER,
    ColumnType.BOOLEAN: Kind.BOOLEAN,
    ColumnType.DATE: Kind.DATE,
    ColumnType.DATETIME: Kind.TIMESTAMP,
    ColumnType.OBJECT: Kind.JSON,
    ColumnType.ARRAY: Kind.JSON,
    # Clean parts carry `any` as plain text, where Si and "Si" are two values: as JSON the first would be rejected.
    ColumnType.ANY: Kind.TEXT,
}
_ARROW_KINDS = {
    "null": Kind.NOTHING,
    "bool": Kind.BOOLEAN,
    "uint64": Kind.UNSIGNED,
    **dict.fromkeys(("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"), Kind.INTEGER),
    **dict.fromkeys(("halffloat", "float", "double"), Kind.NUMBER),
    **dict.fromkeys(("date32[day]", "date64[ms]"), Kind.DATE),
    **dict.fromkeys(("string", "large_string", "string_view"), Kind.TEXT),
}


@dataclass(frozen=True, slots=True)
class ColumnShape:
    """One column of one part, as its footer tells: least and greatest value where both are known.

    `type` is the name that Arrow has for its type; where clean parts have no such type, `kind` is text.
    """

    name: str
    type: str
    null_count: int | None = None
    low: Any = None
    high: Any = None

    @property
    def kind(self) -> Kind:
        """Return the kind in which the column is read."""
        return kind_of_arrow(self.type) or Kind.TEXT

    @property
    def is_bounded(self) -> bool:
        """Return whether the least and the greatest value are known."""
        return self.low is not None and self.high is not None

    @property
    def is_exact_as_number(self) -> bool:
        """Return whether a float is known to hold every whole number of the column without loss."""
        return self.kind in (Kind.INTEGER, Kind.UNSIGNED) and self._is_within(_EXACT)

    @property
    def is_signed(self) -> bool:
        """Return whether all whole numbers of the column are known to fit into 64 bits with a sign."""
        return self._is_within(_SIGNED)

    def _is_within(self, limits: tuple[int, int]) -> bool:
        return self.is_bounded and bool(limits[0] <= self.low and self.high <= limits[1])


@dataclass(frozen=True, slots=True)
class PartShape:
    """Shape of a part: all that is known without reading its rows."""

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


def kind_of_arrow(name: str) -> Kind | None:
    """Return the kind of values of an Arrow type, given by its name; None where clean parts have no such type."""
    return Kind.TIMESTAMP if name.startswith("timestamp[") else _ARROW_KINDS.get(name)


def declared_kinds(columns: Iterable[Column]) -> dict[str, Kind]:
    """Return the kinds that a contract declares."""
    return {column.name: DECLARED_KINDS[column.type] for column in columns}


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
    if kinds == {Kind.INTEGER, Kind.UNSIGNED} and all(column.is_signed for column in integers):
        return Kind.INTEGER
    if kinds <= {Kind.INTEGER, Kind.UNSIGNED, Kind.NUMBER} and all(column.is_exact_as_number for column in integers):
        return Kind.NUMBER
    return Kind.TEXT


def as_text(value: Any) -> str | None:
    """Return a value of any kind as the text that stands for it where types disagree."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    return value.isoformat() if isinstance(value, date) else str(value)
