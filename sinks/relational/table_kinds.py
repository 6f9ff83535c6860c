"""What a column holds, in words that every database has a type for, and what two of them come to."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ingestion.ports.schema import ColumnType

if TYPE_CHECKING:
    import pyarrow as pa


class Kind(StrEnum):
    """The kinds of values a table holds."""

    INTEGER = "integer"
    UNSIGNED = "unsigned"
    """Whole numbers up to 2^64; only columns that no contract declares have them."""
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "datetime"
    TEXT = "text"
    JSON = "json"


EXACT_FLOAT = 2**53
"""Above this a float no longer tells neighbouring whole numbers apart."""

_DECLARED = {
    ColumnType.STRING: Kind.TEXT,
    ColumnType.INTEGER: Kind.INTEGER,
    ColumnType.NUMBER: Kind.NUMBER,
    ColumnType.BOOLEAN: Kind.BOOLEAN,
    ColumnType.DATE: Kind.DATE,
    ColumnType.DATETIME: Kind.DATETIME,
    ColumnType.OBJECT: Kind.JSON,
    ColumnType.ARRAY: Kind.JSON,
    # Clean parts carry `any` as plain text, where Si and "Si" are two values: as JSON the first would be refused.
    ColumnType.ANY: Kind.TEXT,
}


@dataclass(frozen=True, slots=True)
class Content:
    """What the values of a column are, as far as a part tells; `kind` is None where all of them are null.

    `is_exact_as_number`: whole numbers that a float holds without loss.
    """

    kind: Kind | None
    is_exact_as_number: bool = False


def kind_of_column(column_type: ColumnType) -> Kind:
    """Return the kind of a declared column."""
    return _DECLARED[column_type]


def kind_of_values(found: "pa.DataType") -> Kind | None:
    """Return the kind of values of an Arrow type as clean parts have them; None where it is none of those."""
    import pyarrow as pa  # noqa: PLC0415 (heavy)

    known: tuple[tuple[bool, Kind], ...] = (
        (pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found), Kind.TEXT),
        (pa.types.is_uint64(found), Kind.UNSIGNED),
        (pa.types.is_integer(found), Kind.INTEGER),
        (pa.types.is_floating(found), Kind.NUMBER),
        (pa.types.is_boolean(found), Kind.BOOLEAN),
        (pa.types.is_date(found), Kind.DATE),
        (pa.types.is_timestamp(found), Kind.DATETIME),
    )
    return next((kind for fits, kind in known if fits), None)


def unify(first: Content, second: Content) -> Content:
    """Return what a column must hold to take the values of both without loss.

    Whole numbers and floats share a float where it holds all of them exactly; else kinds that differ share text.
    """
    if first.kind is None or second.kind is None:
        return second if first.kind is None else first
    kinds = {first.kind, second.kind}
    is_exact = first.is_exact_as_number and second.is_exact_as_number
    if len(kinds) == 1:
        return Content(first.kind, is_exact_as_number=is_exact)
    if kinds == {Kind.INTEGER, Kind.UNSIGNED}:
        return Content(Kind.UNSIGNED, is_exact_as_number=is_exact)
    whole = first if second.kind is Kind.NUMBER else second
    if kinds == {Kind.INTEGER, Kind.NUMBER} and whole.is_exact_as_number:
        return Content(Kind.NUMBER)
    return Content(Kind.TEXT)


def unify_all(contents: Iterable[Content]) -> Content:
    """Return what a column must hold to take the values of all."""
    whole = Content(None)
    for content in contents:
        whole = unify(whole, content)
    return whole
