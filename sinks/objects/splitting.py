"""Rows of a part by the values of some of their columns, with one file open at a time.

Each batch's rows are appended to a spill file per partition; then each partition is read back by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.types as kinds

from ingestion.toolkit.frames import frame_of
from sinks.objects.layout import DAY_SUFFIX, Partition, UnfitPartitionError, scalar_of

MAX_PARTITIONS = 1000
"""Folders that one part may be split into; more would be a file for a few rows each."""


@dataclass
class Splitter:
    """Splits batches of one schema; UnfitPartitionError where the columns cannot make folders.

    A column's value stands in the folder and no longer in the row, as readers of such folders expect. A time is
    more than its day, so it stays, and the folder is named `<column>_day`.
    """

    schema: pa.Schema
    names: tuple[str, ...]
    folder: Path
    _spilled: dict[Partition, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.names:
            at = self.schema.get_field_index(name)
            if at < 0:
                raise UnfitPartitionError(f"the rows have no column {name}")
            kind = self.schema.field(at).type
            if kinds.is_timestamp(kind) and self.schema.get_field_index(f"{name}{DAY_SUFFIX}") >= 0:
                raise UnfitPartitionError(f"the folder {name}{DAY_SUFFIX} has the name of a column")
            if not _can_be_folder(kind):
                raise UnfitPartitionError(f"the values of {name} are {kind}, which makes no folders")

    @property
    def kept_schema(self) -> pa.Schema:
        """Return the schema of the rows in the files."""
        return pa.schema([found for found in self.schema if found.name not in self._dropped])

    @property
    def _dropped(self) -> list[str]:
        return [name for name in self.names if not kinds.is_timestamp(self.schema.field(name).type)]

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the rows."""
        folders = frame_of(batch.select(list(self.names))).select(self._expressions())
        kept = batch.select(self.kept_schema.names)
        groups = folders.with_row_index("at").group_by(folders.columns, maintain_order=True).agg("at")
        for *values, at in groups.iter_rows():
            partition = tuple(zip(folders.columns, map(scalar_of, values), strict=True))
            self._append(partition, kept.take(pl.Series(at, dtype=pl.UInt32).to_arrow()))

    def partitions(self) -> list[Partition]:
        """Return the partitions there are, in an order that does not depend on the rows'."""
        return sorted(self._spilled, key=repr)

    def batches(self, partition: Partition) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a partition in their order, once."""
        path = self._spilled[partition]
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            while file.tell() < size_bytes:
                with pa.ipc.open_stream(file) as stream:
                    yield from stream
        path.unlink()

    def _expressions(self) -> Iterator[pl.Expr]:
        for name in self.names:
            if kinds.is_timestamp(self.schema.field(name).type):
                yield pl.col(name).dt.date().alias(f"{name}{DAY_SUFFIX}")
            else:
                yield pl.col(name)

    def _append(self, partition: Partition, rows: pa.RecordBatch) -> None:
        path = self._spilled.get(partition)
        if path is None:
            if len(self._spilled) == MAX_PARTITIONS:
                raise UnfitPartitionError(
                    f"{', '.join(self.names)} have more than {MAX_PARTITIONS} different values in one part"
                )
            path = self._spilled[partition] = self.folder / f"partition-{len(self._spilled):06d}"
        with path.open("ab") as file, pa.ipc.new_stream(file, rows.schema) as stream:
            stream.write_batch(rows)


def _can_be_folder(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (
            kinds.is_string,
            kinds.is_large_string,
            kinds.is_integer,
            kinds.is_boolean,
            kinds.is_date,
            kinds.is_timestamp,
        )
    )
