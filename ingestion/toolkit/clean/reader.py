"""The one reader of Parquet parts: batches of bounded size, chosen columns, positions of rows, types agreed on.

Imports pyarrow; so it is imported by functions that read parts, never at start.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.ports.context import Lake
from ingestion.ports.errors import StoreCorrupt
from ingestion.ports.publication import PartView
from ingestion.toolkit.clean.kinds import Kind, PartShape
from ingestion.toolkit.clean.shapes import arrow_schema, conform, shape_of
from ingestion.toolkit.frames import frame_of

Columns: TypeAlias = Mapping[str, Kind] | Sequence[str] | None
"""Columns to read: names as they are stored; with kinds each in its own, in that order, null where there is none; all."""

BATCH_ROWS = 10_000
BATCH_BYTES = 8 << 20
_STEP_ROWS = 1024
_READ_BUFFER_BYTES = 1 << 16
_KNOWN_SHAPES = 10_000


@contextmanager
def open_part(lake: Lake, part: PartView) -> Iterator["PartFile"]:
    """Give a part of the lake, open for reading; StoreCorrupt where the object is not the part that was recorded."""
    with lake.open(part.key) as stream:
        yield PartFile(stream, key=part.key, rows=part.rows)


def read_shape(lake: Lake, part: PartView) -> PartShape:
    """Return the part's shape from its footer; StoreCorrupt where the object is not the part that was recorded.

    Parts never change, so a footer is read once a process, as far as the memory set aside for that goes.
    """
    hashable: Any = lake
    shape = _shape(hashable, part.key, part.sha256)
    _check_rows(part.key, shape.rows, part.rows)
    return shape


@lru_cache(maxsize=_KNOWN_SHAPES)
def _shape(lake: Any, key: str, _sha256: str) -> PartShape:
    with lake.open(key) as stream:
        return PartFile(stream, key=key).shape


class PartFile:
    """A Parquet file, open for reading. What Arrow cannot read is StoreCorrupt, with `key` as its place."""

    def __init__(self, source: BinaryIO | Path, *, key: str, rows: int | None = None) -> None:
        self._key = key
        # A file of this machine is read page by page; from elsewhere whole columns of a row group come at once.
        buffer_bytes = _READ_BUFFER_BYTES if isinstance(source, Path) else 0
        with _readable(key):
            self._file = pq.ParquetFile(source, buffer_size=buffer_bytes, pre_buffer=False)
        if rows is not None:
            _check_rows(key, self._file.metadata.num_rows, rows)

    @cached_property
    def shape(self) -> PartShape:
        """Return what the footer tells of the columns and the row groups."""
        with _readable(self._key):
            return shape_of(self._file)

    @property
    def schema(self) -> pa.Schema:
        """Return the columns with the types in which they are stored."""
        return self._file.schema_arrow

    def batches(
        self, columns: Columns = None, *, rows: int = BATCH_ROWS, size_bytes: int = BATCH_BYTES, first: int = 0
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the rows from position `first` on in batches, each with the position of its first row.

        A batch has at most so many rows and, once decoded, about so many bytes. Row groups that lie before `first` are
        not read. Where the file has none of the columns that are named, one other comes: the rows are there.
        """
        waiting: list[pa.RecordBatch] = []
        begin, held_rows, held_bytes = first, 0, 0
        for step in self._steps(columns, rows=min(_STEP_ROWS, rows), first=first):
            if waiting and (held_rows + step.num_rows > rows or held_bytes + step.nbytes > size_bytes):
                yield begin, _joined(waiting, columns)
                begin += held_rows
                waiting, held_rows, held_bytes = [], 0, 0
                pa.default_memory_pool().release_unused()
            waiting.append(step)
            held_rows, held_bytes = held_rows + step.num_rows, held_bytes + step.nbytes
        if waiting:
            yield begin, _joined(waiting, columns)

    def frames(self, *, rows: int) -> Iterator[pl.DataFrame]:
        """Yield all rows in frames of at most so many."""
        for _, batch in self.batches(rows=rows):
            yield frame_of(batch)

    def take(self, positions: Any, columns: Columns = None) -> pa.Table:
        """Return the rows at these positions, an ascending array; memory holds them and one batch."""
        wanted = pl.Series(positions, dtype=pl.Int64)
        found: list[pa.RecordBatch] = []
        if len(wanted):
            for begin, batch in self.batches(columns, first=int(wanted[0])):
                inside = wanted.filter((wanted >= begin) & (wanted < begin + batch.num_rows)) - begin
                # As an Arrow array made by polars: pyarrow loads pandas to take a numpy array.
                found.append(batch.take(inside.to_arrow()))
                if begin + batch.num_rows > int(wanted[-1]):
                    break
        return pa.Table.from_batches(found, schema=self._schema_of(columns))

    def table(self, columns: Columns = None) -> pa.Table:
        """Return all rows at once."""
        return pa.Table.from_batches([batch for _, batch in self.batches(columns)], schema=self._schema_of(columns))

    def repeating_columns(self) -> list[str]:
        """Return the columns that have a dictionary: whoever wrote the file saw that their values repeat."""
        metadata = self._file.metadata
        if not metadata.num_row_groups:
            return []
        group = metadata.row_group(0)
        columns = [group.column(index) for index in range(group.num_columns)]
        return [column.path_in_schema for column in columns if "RLE_DICTIONARY" in column.encodings]

    def _stored(self, columns: Iterable[str]) -> list[str]:
        wanted = set(columns)
        return [name for name in self.schema.names if name in wanted]

    def _schema_of(self, columns: Columns) -> pa.Schema:
        if isinstance(columns, Mapping):
            return arrow_schema(columns)
        return (
            self.schema if columns is None else pa.schema([self.schema.field(name) for name in self._stored(columns)])
        )

    def _steps(self, columns: Columns, *, rows: int, first: int) -> Iterator[pa.RecordBatch]:
        metadata = self._file.metadata
        start, groups = 0, list(range(metadata.num_row_groups))
        while groups and start + (size := metadata.row_group(groups[0]).num_rows) <= first:
            start, groups = start + size, groups[1:]
        if not groups:
            return
        present = None if columns is None else self._stored(columns) or self.schema.names[:1]
        with _readable(self._key):
            # In small steps: how large rows are once they are decoded cannot be told beforehand. And in one thread:
            # the allocator keeps what each has used.
            for step in self._file.iter_batches(rows, row_groups=groups, columns=present, use_threads=False):
                passed = min(max(first - start, 0), step.num_rows)
                start += step.num_rows
                if passed < step.num_rows:
                    yield step.slice(passed)
        _check_rows(self._key, start, metadata.num_rows)


def _joined(steps: list[pa.RecordBatch], columns: Columns) -> pa.RecordBatch:
    batch: pa.RecordBatch = steps[0] if len(steps) == 1 else pa.concat_batches(steps)  # type: ignore[attr-defined] # the stubs lack it
    return conform(batch, columns) if isinstance(columns, Mapping) else batch


def _check_rows(key: str, found: int, recorded: int) -> None:
    if found != recorded:
        raise StoreCorrupt("store.corrupt", key=key, detail=f"{found} rows instead of {recorded}")


@contextmanager
def _readable(key: str) -> Iterator[None]:
    """Give what Arrow cannot read as a damage of the store."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise StoreCorrupt("store.corrupt", key=key, detail="it is no readable Parquet") from error
