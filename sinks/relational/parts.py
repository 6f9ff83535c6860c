"""Clean parts as tables take them: what their columns hold, and their rows in blocks of bounded size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from ingestion.ports.errors import StoreCorrupt
from ingestion.ports.publication import PartView
from ingestion.toolkit.clean.kinds import EXACT_INTEGER, Kind, kind_of_arrow
from sinks.relational.naming import LINEAGE
from sinks.relational.table_kinds import Content

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Fitting:
    """A column of the table and its source in a part; without one it is null."""

    column: str
    source: str | None
    kind: Kind


def read_contents(stream: BinaryIO, part: PartView) -> dict[str, Content]:
    """Return what the data columns of a part hold, from its footer alone."""
    from ingestion.toolkit.clean.reader import PartFile  # noqa: PLC0415 (heavy)

    shape = PartFile(stream, key=part.key, rows=part.rows).shape
    contents = {}
    for column in shape.columns:
        if column.name in LINEAGE:
            continue
        if kind_of_arrow(column.type) is None:
            detail = f"its column {column.name!r} is of type {column.type}, which clean parts do not have"
            raise StoreCorrupt("store.corrupt", key=part.key, detail=detail)
        is_exact = column.kind is Kind.INTEGER and column.is_exact_as_number
        contents[column.name] = Content(column.kind, is_exact) if shape.has_values(column) else Content(None)
    return contents


def read_blocks(stream: BinaryIO, part: PartView, *, longest: int) -> Iterator["pl.DataFrame"]:
    """Yield the rows of a part, in order, in blocks of about 8 MB and at most `longest` rows."""
    from ingestion.toolkit.clean.reader import PartFile  # noqa: PLC0415 (heavy)

    yield from PartFile(stream, key=part.key, rows=part.rows).frames(rows=longest)


def fit(frame: "pl.DataFrame", fittings: Sequence[Fitting]) -> "pl.DataFrame":
    """Return the frame with the table's columns, each value as its column's kind has it."""
    import polars as pl  # noqa: PLC0415 (heavy)

    return frame.select(
        (pl.lit(None) if item.source not in frame.columns else _as_kind(frame, str(item.source), item.kind)).alias(
            item.column
        )
        for item in fittings
    )


def _as_kind(frame: "pl.DataFrame", source: str, kind: Kind) -> "pl.Expr":
    import polars as pl  # noqa: PLC0415 (heavy)

    value, dtype = pl.col(source), frame.schema[source]
    match kind:
        case Kind.NUMBER if dtype.is_integer():
            return value.cast(pl.Float64)
        case Kind.TEXT if isinstance(dtype, pl.Datetime):
            return value.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        case Kind.TEXT if dtype.is_float():
            whole = (value == value.floor()) & (value.abs() <= EXACT_INTEGER)
            return (
                pl.when(whole).then(value.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(value.cast(pl.String))
            )
        case Kind.TEXT if dtype != pl.String:
            return value.cast(pl.String)
    return value
