"""Rows into files of this machine, batch by batch: whatever the size of a part, a few megabytes are in memory."""

import gzip
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.toolkit.clean.reader import PartFile
from ingestion.toolkit.tabular.lines import csv_header, csv_lines, json_lines
from sinks.objects.layout import Layout

BATCH_ROWS = 8192
BATCH_BYTES = 1 << 20
GROUP_ROWS = 500_000
GROUP_BYTES = 16 << 20
GZIP_LEVEL = 6


class RowWriter(Protocol):
    """One file being written."""

    rows: int

    def write(self, batch: pa.RecordBatch) -> None:
        """Append the rows."""
        ...


def batches_of(file: PartFile, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file in batches of at most 8,192 rows or about 1 MB."""
    for _, batch in file.batches(columns, rows=BATCH_ROWS, size_bytes=BATCH_BYTES):
        yield batch


@contextmanager
def open_rows(
    path: Path,
    layout: Layout,
    *,
    schema: pa.Schema,
    repeating: Collection[str] = (),
    json_columns: Collection[str] = (),
) -> Iterator[RowWriter]:
    """Give a writer of rows of that schema in that form; the file is whole when the block ends."""
    with path.open("wb") as file:
        if layout.format == "parquet":
            with open_parquet(file, schema, repeating=repeating) as parquet:
                yield parquet
        else:
            with open_text(file, is_gzipped=layout.is_gzipped) as text:
                yield TextRows(text, layout, schema, json_columns)


@contextmanager
def open_parquet(file: BinaryIO, schema: pa.Schema, *, repeating: Collection[str]) -> Iterator["ParquetRows"]:
    """Give a writer of Parquet, with dictionaries for columns whose values repeat.

    Its row groups are as large as memory allows: 500,000 rows or 16 MB.
    """
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 3,
        "version": "2.6",
        # A dictionary of mostly different values costs twice the memory and makes the file larger.
        "use_dictionary": [name for name in schema.names if name in repeating],
        "dictionary_pagesize_limit": 1 << 18,
    }
    with pq.ParquetWriter(file, schema, data_page_version="1.0", write_statistics=True, **options) as writer:
        rows = ParquetRows(writer, schema)
        yield rows
        rows.flush()


@contextmanager
def open_text(file: BinaryIO, *, is_gzipped: bool) -> Iterator[BinaryIO]:
    """Give the stream to write text to; the same text gives the same bytes."""
    if not is_gzipped:
        yield file
        return
    with gzip.GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=file, mtime=0) as packed:
        yield cast("BinaryIO", packed)


class ParquetRows:
    """Rows on their way into a Parquet file."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self.rows = 0
        self.schema = schema
        self._writer = writer
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append the rows."""
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        if self._waiting_rows >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was taken as a row group."""
        if self._waiting_rows:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self.schema), row_group_size=GROUP_ROWS)
            self.rows += self._waiting_rows
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        pa.default_memory_pool().release_unused()


class TextRows:
    """Rows on their way into a file of lines."""

    def __init__(self, text: BinaryIO, layout: Layout, schema: pa.Schema, json_columns: Collection[str]) -> None:
        self.rows = 0
        self._layout = layout
        self._json_columns = json_columns
        self._text = text
        if layout.format == "csv":
            text.write(csv_header(schema.names, defuse=layout.defuse_formulas))

    def write(self, batch: pa.RecordBatch) -> None:
        """Append the rows."""
        if self._layout.format == "csv":
            self._text.write(csv_lines(batch, defuse=self._layout.defuse_formulas))
        else:
            self._text.write(json_lines(batch, json_columns=self._json_columns))
        self.rows += batch.num_rows
