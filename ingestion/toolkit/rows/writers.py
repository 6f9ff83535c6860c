"""Rows as CSV, JSON Lines and Parquet, block by block; the one place where these files are written.

Imports polars and pyarrow; so it is imported by functions that write files, never at start.
"""

import csv
import io
from collections.abc import Iterator
from typing import IO, Any, cast

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.toolkit.clean.kinds import Kind
from ingestion.toolkit.clean.sequence import RowSequence
from ingestion.toolkit.clean.shapes import arrow_schema
from ingestion.toolkit.frames import frame_of
from ingestion.toolkit.rows.spreadsheets import defuse, defused

_GROUP_ROWS = 100_000
_GROUP_BYTES = 32 << 20


def python_rows(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    """Return the batch's rows as plain values: texts, numbers, booleans, dates and times."""
    return frame_of(batch).rows()


def write_jsonl(rows: RowSequence, *, after: int = 0, limit: int | None = None) -> Iterator[bytes]:
    """Yield JSON Lines; times are ISO 8601, a number that is none is null."""
    names = list(rows.kinds)
    for batch in rows.batches(after=after, limit=limit):
        lines = [orjson.dumps(dict(zip(names, row, strict=True))) for row in python_rows(batch)]
        yield b"\n".join(lines) + b"\n"


def write_csv(rows: RowSequence, *, after: int = 0, limit: int | None = None) -> Iterator[bytes]:
    """Yield CSV as RFC 4180 has it, UTF-8; its first line, the header, is there where it begins with the first row.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    if after == 0:
        header = io.StringIO()
        csv.writer(header, lineterminator="\r\n").writerow([defuse(name) for name in rows.kinds])
        yield header.getvalue().encode()
    columns = [_csv_column(name, kind) for name, kind in rows.kinds.items()]
    # Many readers pass over an empty line, which a lone column would leave for a null.
    nothing = '""' if len(columns) == 1 else ""
    for batch in rows.batches(after=after, limit=limit):
        buffer = io.BytesIO()
        frame = frame_of(batch).lazy().select(columns).collect()
        frame.write_csv(buffer, include_header=False, line_terminator="\r\n", null_value=nothing)
        yield buffer.getvalue()


def write_parquet(rows: RowSequence, *, after: int = 0, limit: int | None = None) -> Iterator[bytes]:
    """Yield a Parquet file, row group by row group."""
    schema = arrow_schema(rows.kinds)
    sink = _Drained()
    with pq.ParquetWriter(cast(IO[bytes], sink), schema, compression="zstd", coerce_timestamps="us") as writer:
        held: list[pa.RecordBatch] = []
        for batch in rows.batches(after=after, limit=limit):
            held.append(batch)
            if sum(item.num_rows for item in held) >= _GROUP_ROWS or sum(item.nbytes for item in held) >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held, schema=schema))
                held = []
                yield sink.take()
        if held:
            writer.write_table(pa.Table.from_batches(held, schema=schema))
    yield sink.take()


def _csv_column(name: str, kind: Kind) -> pl.Expr:
    """Return the column as it stands in CSV: by column, because a million rows take ten times as long cell by cell."""
    value = pl.col(name)
    if kind is Kind.TEXT:
        return defused(value).alias(name)
    if kind is Kind.TIMESTAMP:
        whole = value.dt.microsecond() == 0
        return (
            pl.when(whole)
            .then(value.dt.strftime("%Y-%m-%dT%H:%M:%S+00:00"))
            .otherwise(value.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00"))
            .alias(name)
        )
    return value


class _Drained(io.RawIOBase):
    """A file that is only written to, and emptied as it grows."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any, /) -> int:
        block = bytes(data)
        self._blocks.append(block)
        self._written += len(block)
        return len(block)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        data = b"".join(self._blocks)
        self._blocks.clear()
        return data
