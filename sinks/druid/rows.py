"""Clean parts as Druid reads them, gzip JSON Lines; and facts of a part, told by its footer where it tells them.

This module imports polars and pyarrow; so it is imported by the functions that hold data.
"""

import gzip
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from ingestion.ports.context import Lake
from ingestion.ports.errors import StoreCorrupt
from ingestion.ports.publication import PartView
from ingestion.toolkit.clean.keys import moments_of
from ingestion.toolkit.clean.kinds import EXACT_INTEGER, ColumnShape
from ingestion.toolkit.clean.reader import PartFile, open_part, read_shape
from ingestion.toolkit.frames import frame_of
from sinks.druid.columns import DruidColumn, DruidType
from sinks.druid.intervals import FIRST_MS, LAST_MS, milliseconds

BATCH_ROWS = 20_000
WIDE_BATCH_ROWS = 100_000
"""Batches in which one column is read, or rows go into DuckDB: a statement for each batch costs more than the rows."""
_LEVEL = 1
"""The level costs the most here: 6 takes three times as long for a tenth less (measured with the sample rows)."""


@dataclass(frozen=True, slots=True)
class PartStats:
    """Facts of a part: rows, Arrow types, nulls by column, and its event times in milliseconds.

    `first_ms` and `last_ms` are None where no row has an event time; `untimed` counts those that have none.
    """

    rows: int
    types: dict[str, str]
    nulls: dict[str, int]
    first_ms: int | None = None
    last_ms: int | None = None
    untimed: int = 0


def read_stats(lake: Lake, part: PartView, *, time_column: str | None) -> PartStats:
    """Return the facts of the part; its rows are read only for columns that the footer does not tell of."""
    if lake.head(part.key) is None:
        raise StoreCorrupt("store.missing", key=part.key)
    shape = read_shape(lake, part)
    types = {column.name: column.type for column in shape.columns}
    with open_part(lake, part) as file:
        nulls = {column.name: _null_count(file, column) for column in shape.columns}
        time = shape.column(time_column) if time_column is not None else None
        if time is None:
            return PartStats(part.rows, types, nulls, untimed=part.rows)
        untimed = nulls[time.name]
        if untimed == part.rows:
            return PartStats(part.rows, types, nulls, untimed=untimed)
        if time.is_bounded:
            times = pl.Series([time.low, time.high], dtype=pl.Datetime("us", "UTC"))
        else:
            read = file.batches([time.name], rows=WIDE_BATCH_ROWS)
            times = pl.concat([frame_of(batch)[time.name] for _, batch in read])
        moments = moments_of(times)
    first, last = moments.min(), moments.max()
    assert isinstance(first, int) and isinstance(last, int)  # noqa: S101, PT018 (some row has a time)
    return PartStats(part.rows, types, nulls, first, last, untimed)


def _null_count(file: PartFile, column: ColumnShape) -> int:
    if column.null_count is not None:
        return column.null_count
    return sum(batch.column(0).null_count for _, batch in file.batches([column.name]))


def json_lines(lake: Lake, part: PartView, columns: Sequence[DruidColumn]) -> Iterator[bytes]:
    """Yield the part's rows as JSON Lines, a batch at a time, each value in the type of its column."""
    with open_part(lake, part) as file:
        present = set(file.schema.names)
        wanted = [column for column in columns if column.source in present]
        for _, batch in file.batches([column.source for column in wanted], rows=BATCH_ROWS):
            yield frame_as_json(frame_of(batch), wanted)


def frame_as_json(frame: pl.DataFrame, columns: Sequence[DruidColumn]) -> bytes:
    """Return the rows as JSON Lines under their names in Druid."""
    written = frame.select(_written(frame[column.source], column) for column in columns)
    buffer = io.BytesIO()
    written.write_ndjson(buffer)
    return buffer.getvalue()


def gzipped(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the blocks as one gzip stream; the same blocks always give the same bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=_LEVEL, mtime=0, filename="") as stream:
        for block in blocks:
            stream.write(block)
            yield _taken(buffer)
    yield _taken(buffer)


def span_ms(parts: Iterable[PartStats], *, logical_time: str) -> tuple[int, int] | None:
    """Return the first and the last moment that rows get, or None where there are no rows."""
    moments: list[int] = []
    for part in parts:
        if part.first_ms is not None and part.last_ms is not None:
            moments += [part.first_ms, part.last_ms]
        if part.untimed:
            moments.append(milliseconds(logical_time))
    if not moments:
        return None
    return max(min(moments), FIRST_MS), min(max(moments), LAST_MS - 1)


def expected_nulls(parts: Iterable[PartStats], columns: Sequence[DruidColumn]) -> dict[str, int]:
    """Return by name in Druid how many nulls a reader must find; a part without the column counts as a whole."""
    found: dict[str, int] = {column.name: 0 for column in columns}
    for part in parts:
        for column in columns:
            found[column.name] += part.nulls.get(column.source, part.rows) if column.source in part.types else part.rows
    return found


def _taken(buffer: io.BytesIO) -> bytes:
    data = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return data


def _written(values: pl.Series, column: DruidColumn) -> pl.Series:
    """Return the values as JSON may hold them and Druid reads them in the column's type."""
    dtype = values.dtype
    if column.type is DruidType.STRING:
        values = _as_text(values)
    elif dtype == pl.Boolean:
        values = values.cast(pl.Int8)
    elif isinstance(dtype, pl.Datetime) or dtype == pl.Date:
        values = moments_of(values)
    elif dtype.is_float():
        values = _finite(values)
    return values.alias(column.name)


def _as_text(values: pl.Series) -> pl.Series:
    """Return the values as text: moments in ISO 8601 UTC, whole numbers without a fraction, true and false."""
    dtype = values.dtype
    if isinstance(dtype, pl.Datetime):
        return values.dt.replace_time_zone(None).dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")
    if dtype.is_float():
        whole = values.is_finite() & (values == values.floor()) & (values.abs() <= EXACT_INTEGER)
        return values.cast(pl.Int64, strict=False).cast(pl.String).zip_with(whole.fill_null(False), _named(values))
    return values if dtype == pl.String else values.cast(pl.String)


def _finite(values: pl.Series) -> pl.Series:
    """Return the numbers, as text where JSON has none for them: Druid reads "NaN" and "Infinity" back."""
    special = values.is_not_null() & ~values.is_finite()
    return _named(values) if special.any() else values


def _named(values: pl.Series) -> pl.Series:
    return values.cast(pl.String).replace({"inf": "Infinity", "-inf": "-Infinity"})
