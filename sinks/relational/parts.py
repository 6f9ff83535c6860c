"""Clean parts as tables take them: what their columns hold, and their rows in blocks of bounded size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from ingestion.ports.errors import StoreCorrupt
from ingestion.ports.publication import PartView
from sinks.relational.naming import LINEAGE
from sinks.relational.table_kinds import EXACT_FLOAT, Content, Kind, kind_of_values

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

BLOCK_BYTES = 8 << 20
_READ_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Fitting:
    """How a column of the table is filled from a part; without a source it is null."""

    column: str
    source: str | None
    kind: Kind


def read_contents(stream: BinaryIO, part: PartView) -> dict[str, Content]:
    """Return what the data columns of a part hold, from its footer alone."""
    file = _open(stream, part)
    names = file.schema_arrow.names
    contents = {}
    for field in file.schema_arrow:
        if field.name not in LINEAGE:
            contents[field.name] = _content_of(field, file.metadata, index=names.index(field.name), part=part)
    return contents


def read_blocks(stream: BinaryIO, part: PartView, *, longest: int) -> Iterator["pl.DataFrame"]:
    """Yield the rows of a part, in order, in blocks of about 8 MB and at most `longest` rows."""
    import polars as pl  # noqa: PLC0415 (heavy)
    import pyarrow as pa  # noqa: PLC0415

    waiting: list[pa.RecordBatch] = []
    size = rows = total = 0
    for batch in _open(stream, part).iter_batches(min(_READ_ROWS, longest)):
        if waiting and (size + batch.nbytes > BLOCK_BYTES or rows + batch.num_rows > longest):
            yield pl.DataFrame(pa.Table.from_batches(waiting))
            waiting, size, rows = [], 0, 0
        waiting.append(batch)
        size, rows, total = size + batch.nbytes, rows + batch.num_rows, total + batch.num_rows
    if waiting:
        yield pl.DataFrame(pa.Table.from_batches(waiting))
    if total != part.rows:
        raise StoreCorrupt("store.corrupt", key=part.key, detail=f"{total} rows instead of {part.rows}")


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
            whole = (value == value.floor()) & (value.abs() <= EXACT_FLOAT)
            return (
                pl.when(whole).then(value.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(value.cast(pl.String))
            )
        case Kind.TEXT if dtype != pl.String:
            return value.cast(pl.String)
    return value


def _open(stream: BinaryIO, part: PartView) -> "pq.ParquetFile":
    import pyarrow as pa  # noqa: PLC0415 (heavy)
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return pq.ParquetFile(stream)
    except pa.ArrowInvalid as error:
        raise StoreCorrupt("store.corrupt", key=part.key, detail="it is no longer readable Parquet") from error


def _content_of(field: "pa.Field[Any]", metadata: Any, *, index: int, part: PartView) -> Content:
    found = [metadata.row_group(group).column(index).statistics for group in range(metadata.num_row_groups)]
    has_counts = all(item is not None and item.has_null_count for item in found)
    if has_counts and sum(item.null_count for item in found) == metadata.num_rows:
        return Content(None)
    kind = kind_of_values(field.type)
    if kind is None:
        detail = f"its column {field.name!r} is of type {field.type}, which clean parts do not have"
        raise StoreCorrupt("store.corrupt", key=part.key, detail=detail)
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    is_exact = kind is Kind.INTEGER and all(map(_is_exact_as_number, found, sizes))
    return Content(kind, is_exact_as_number=is_exact)


def _is_exact_as_number(statistics: Any, row_count: int) -> bool:
    """Return whether a float holds every whole number of a row group."""
    if statistics is None:
        return False
    if not statistics.has_min_max:
        return bool(statistics.has_null_count and statistics.null_count == row_count)
    return bool(statistics.min >= -EXACT_FLOAT and statistics.max <= EXACT_FLOAT)
