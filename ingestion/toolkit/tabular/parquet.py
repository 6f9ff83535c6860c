"""Parquet: cut by row groups, types kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.nested import values_as_text
from ingestion.toolkit.tabular.assembly import assemble, clean_header
from ingestion.toolkit.tabular.parquet_footer import is_encrypted
from ingestion.toolkit.tabular.spans import DEFAULT_TARGET_BYTES, Opener, Span

FORMAT = "parquet"
MAGIC = b"PAR1"
MAX_FOOTER_BYTES = 16 * 1024 * 1024
MAX_ROW_GROUPS = 10_000
MAX_DEPTH = 32
_TAIL_BYTES = 8
_MOST_SECONDS = (2**63 - 1) // 1000


def split(open_file: Opener, size: int, *, name: str, target_bytes: int = DEFAULT_TARGET_BYTES) -> list[Span]:
    """Return spans of neighbouring row groups of about `target_bytes` of uncompressed data, with exact row counts.

    ConfigError file.truncated where the footer is missing or cut, file.malformed where it cannot be read.
    """
    with open_file() as file:
        _check_footer(file, size, name=name)
        with _opened(file, name=name) as parquet:
            metadata, schema = parquet.metadata, parquet.schema_arrow
            header = clean_header(list(schema.names), name=name)
            if metadata.num_row_groups > MAX_ROW_GROUPS:
                detail = f"it has {metadata.num_row_groups} row groups, {MAX_ROW_GROUPS} are allowed"
                raise ConfigError("file.malformed", name=name, detail=detail)
            if any(_depth(field.type) > MAX_DEPTH for field in schema):
                raise ConfigError("file.malformed", name=name, detail=f"it is nested deeper than {MAX_DEPTH} levels")
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size, _stored_bytes(group)) for group in groups]
    spans: list[Span] = []
    chosen: list[int] = []
    offset = row = rows = large = stored = 0
    for index, (count, uncompressed, compressed) in enumerate(sizes):
        chosen.append(index)
        rows, large, stored = rows + count, large + uncompressed, stored + compressed
        if large >= target_bytes or index == len(sizes) - 1:
            layout = {"row_groups": chosen}
            spans.append(Span(FORMAT, offset, stored, row, rows, header.columns, header.renamed, layout))
            offset, row, chosen, rows, large, stored = offset + stored, row + rows, [], 0, 0, 0
    return spans or [Span(FORMAT, 0, size, 0, 0, header.columns, header.renamed, {"row_groups": []})]


def read(open_file: Opener, span: Span, *, name: str) -> pa.Table:
    """Return the rows of the span's row groups, with the types of the file."""
    groups = list(span.layout["row_groups"])
    with open_file() as file, _opened(file, name=name) as parquet:
        table = parquet.read_row_groups(groups)
        schema = parquet.schema
        old = [at for at in range(len(schema)) if schema.column(at).physical_type == "INT96"]
    if old:
        with open_file() as file, _opened(file, name=name, fine_int96=True) as parquet:
            table = _with_nanoseconds(table, parquet.read_row_groups(groups))
    table = _with_known_types(table)
    return assemble(
        table.rename_columns(list(span.columns)), range(span.first_row, span.first_row + table.num_rows), []
    )


def _with_known_types(table: pa.Table) -> pa.Table:
    """Return the table with the types that polars does not know, or breaks down at, as others or as text."""
    for index, field in enumerate(table.schema):
        kind, column = field.type, table.column(index)
        known: Any = column
        if isinstance(kind, pa.Bool8Type):
            known = column.cast(pa.bool_())
        elif isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.UuidType):
            known = column.cast(kind.storage_type)
        elif _holds(kind, _is_unknown) or (pa.types.is_duration(kind) and kind.unit == "s" and _outgrows(column)):
            known = values_as_text(column)
        if known is not column:
            table = table.set_column(index, field.name, known)
    return table


def _is_unknown(kind: pa.DataType) -> bool:
    is_view = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return is_view or pa.types.is_decimal256(kind) or isinstance(kind, pa.BaseExtensionType)


def _holds(kind: pa.DataType, is_wanted: Callable[[pa.DataType], bool]) -> bool:
    return is_wanted(kind) or any(_holds(kind.field(index).type, is_wanted) for index in range(kind.num_fields))


def _outgrows(column: "pa.ChunkedArray[Any]") -> bool:
    """Return whether some seconds are too many to be counted in milliseconds, which polars does in silence."""
    ends = pc.min_max(column.cast(pa.int64()))
    return any(abs(ends[end].as_py() or 0) > _MOST_SECONDS for end in ("min", "max"))


def _with_nanoseconds(table: pa.Table, fine: pa.Table) -> pa.Table:
    """Return the table with those columns as nanoseconds that hold some, and no moment that wraps."""
    for index, (column, other) in enumerate(zip(table.schema, fine.schema, strict=True)):
        if column.type != other.type and pa.types.is_timestamp(other.type):
            ticks, nanos = (pl.Series(each.column(index)).to_physical() for each in (table, fine))
            if (nanos // 1000 == ticks).all() and (nanos % 1000 != 0).any():
                table = table.set_column(index, other, fine.column(index))
    return table


@contextmanager
def _opened(file: BinaryIO, *, name: str, fine_int96: bool = False) -> Iterator[pq.ParquetFile]:
    """Open the file as Parquet; what pyarrow cannot read, then or later, is file.malformed.

    Old timestamps of 96 bits come as microseconds: as nanoseconds, which is what pyarrow takes for them, all moments
    outside the years 1677 to 2262 wrap around in silence.
    """
    try:
        with pq.ParquetFile(file, coerce_int96_timestamp_unit="ns" if fine_int96 else "us") as parquet:
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        detail = (str(error).splitlines() or ["the Parquet data are damaged"])[0][:200]
        raise ConfigError("file.malformed", name=name, detail=detail) from error


def _check_footer(file: BinaryIO, size: int, *, name: str) -> None:
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    footer_bytes = int.from_bytes(tail[:4], "little")
    if size < _TAIL_BYTES + len(MAGIC) or tail[4:] != MAGIC:
        raise ConfigError("file.truncated", name=name, detail="the Parquet footer is missing")
    if footer_bytes > size - _TAIL_BYTES - len(MAGIC):
        raise ConfigError("file.truncated", name=name, detail="the Parquet footer is longer than the file")
    if footer_bytes > MAX_FOOTER_BYTES:
        raise ConfigError("file.malformed", name=name, detail=f"the Parquet footer has {footer_bytes} bytes")
    file.seek(size - _TAIL_BYTES - footer_bytes)
    try:
        encrypted = is_encrypted(file.read(footer_bytes))
    except ValueError as error:
        raise ConfigError("file.malformed", name=name, detail=str(error)) from error
    if encrypted:
        raise ConfigError("file.encrypted", name=name)


def _stored_bytes(group: pq.RowGroupMetaData) -> int:
    return sum(group.column(index).total_compressed_size for index in range(group.num_columns))


def _depth(kind: pa.DataType) -> int:
    return 1 + max((_depth(kind.field(index).type) for index in range(kind.num_fields)), default=0)
