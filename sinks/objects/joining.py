"""Files of one form read in pieces and written together, rows untouched.

A piece is a batch of a Parquet file, or a list of the records of a text file as they stand there.
"""

import csv
import gzip
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
import pyarrow as pa

from ingestion.toolkit.clean.reader import PartFile
from ingestion.toolkit.tabular.cells import cells_as_text
from sinks.objects.layout import Layout, Scalar, text_of
from sinks.objects.rows import BATCH_BYTES, BATCH_ROWS, batches_of, open_parquet, open_text

Piece: TypeAlias = pa.RecordBatch | list[bytes]
Shape: TypeAlias = pa.Schema | bytes
"""Common ground of files that are written together: the schema, or the line of column names."""
Keep: TypeAlias = npt.NDArray[np.bool_]


class JoinWriter(Protocol):
    """One file that rows of several are written into."""

    rows: int

    def write(self, piece: Piece) -> None:
        """Append the rows."""
        ...


def shape_of(path: Path, layout: Layout) -> Shape:
    """Return what the file must have in common with others."""
    if layout.format == "parquet":
        return PartFile(path, key=path.name).schema
    if layout.format == "jsonl":
        return b""
    with _unpacked(path, layout) as stream:
        return next(_records(stream, layout), b"")


def pieces_of(path: Path, layout: Layout) -> Iterator[Piece]:
    """Yield the rows of the file in their order."""
    if layout.format == "parquet":
        yield from batches_of(PartFile(path, key=path.name))
        return
    with _unpacked(path, layout) as stream:
        records = _records(stream, layout)
        if layout.format == "csv":
            next(records, None)
        piece: list[bytes] = []
        size_bytes = 0
        for record in records:
            piece.append(record)
            size_bytes += len(record)
            if len(piece) == BATCH_ROWS or size_bytes >= BATCH_BYTES:
                yield piece
                piece, size_bytes = [], 0
        if piece:
            yield piece


def kept_of(piece: Piece, keep: Keep) -> Piece:
    """Return the rows of a piece that shall remain."""
    if isinstance(piece, list):
        return [record for record, is_kept in zip(piece, keep.tolist(), strict=True) if is_kept]
    return piece.filter(cast("Any", pl.Series(keep).to_arrow()))


def key_texts(
    piece: Piece, key: Sequence[str], *, shape: Shape, layout: Layout, partition: dict[str, Scalar]
) -> pl.DataFrame:
    """Return the key of each row as text, a column for each part of it; KeyError where the rows have no such column."""
    inside = [name for name in key if name not in partition]
    if isinstance(piece, list):
        columns = _texts_of_records(piece, inside, shape=cast("bytes", shape), layout=layout)
    else:
        table = cells_as_text(pa.Table.from_batches([piece.select(inside)]), keep=())
        columns = {name: pl.Series(table[name]) for name in inside}
    fixed = {name: pl.repeat(text_of(partition[name]), len(piece), dtype=pl.String, eager=True) for name in partition}
    return pl.DataFrame([{**fixed, **columns}[name].cast(pl.String).alias(name) for name in key])


class Joining:
    """Writes files together into one at a time; what it yields is how many rows the file has that is whole now.

    Only files of one shape go together, and a file is whole once it has the target size.
    """

    def __init__(self, path: Path, layout: Layout, *, target_bytes: int) -> None:
        self._path = path
        self._layout = layout
        self._target_bytes = target_bytes
        self._shape: Shape | None = None
        self._stack = ExitStack()
        self._file: BinaryIO | None = None
        self._writer: JoinWriter | None = None

    def add(self, source: Path, keep: Keep | None) -> Iterator[int]:
        """Append the rows of a file that shall remain."""
        shape = shape_of(source, self._layout)
        if self._shape is not None and shape != self._shape:
            yield from self.end()
        repeating = PartFile(source, key=source.name).repeating_columns() if isinstance(shape, pa.Schema) else []
        start = 0
        for piece in pieces_of(source, self._layout):
            chosen = piece if keep is None else kept_of(piece, keep[start : start + len(piece)])
            start += len(piece)
            if len(chosen):
                self._opened(shape, repeating).write(chosen)
            if self._file is not None and self._file.tell() >= self._target_bytes:
                yield from self.end()

    def end(self) -> Iterator[int]:
        """Bring the file to its end, if one is begun."""
        writer = self._writer
        if writer is not None:
            self._stack.close()
            self._shape = self._file = self._writer = None
            yield writer.rows

    def _opened(self, shape: Shape, repeating: Collection[str]) -> JoinWriter:
        if self._writer is None:
            self._shape = shape
            self._file = self._stack.enter_context(self._path.open("wb"))
            made = open_join(self._file, self._layout, shape, repeating=repeating)
            self._writer = self._stack.enter_context(made)
        return self._writer


@contextmanager
def open_join(file: BinaryIO, layout: Layout, shape: Shape, *, repeating: Collection[str]) -> Iterator[JoinWriter]:
    """Give a writer of pieces of that shape; the file is whole when the block ends."""
    if isinstance(shape, pa.Schema):
        with open_parquet(file, shape, repeating=repeating) as parquet:
            yield cast("JoinWriter", parquet)
        return
    with open_text(file, is_gzipped=layout.is_gzipped) as text:
        text.write(shape)
        yield _Records(text)


class _Records:
    def __init__(self, text: BinaryIO) -> None:
        self.rows = 0
        self._text = text

    def write(self, piece: Piece) -> None:
        self._text.write(b"".join(cast("list[bytes]", piece)))
        self.rows += len(piece)


@contextmanager
def _unpacked(path: Path, layout: Layout) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        if not layout.is_gzipped:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as packed:
            yield cast("BinaryIO", packed)


def _records(stream: BinaryIO, layout: Layout) -> Iterator[bytes]:
    """Yield each record with its line end; in CSV a quoted cell may hold more lines."""
    if layout.format == "jsonl":
        yield from stream
        return
    begun, quotes = b"", 0
    for line in stream:
        begun += line
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            yield begun
            begun, quotes = b"", 0
    if begun:
        yield begun


def _texts_of_records(
    piece: list[bytes], names: Sequence[str], *, shape: bytes, layout: Layout
) -> dict[str, pl.Series]:
    if layout.format == "jsonl":
        rows = [orjson.loads(record) for record in piece]
        return {name: pl.Series([_as_text(row[name]) for row in rows], dtype=pl.String) for name in names}
    header = next(csv.reader([shape.decode()]))
    places = {name: _place_of(name, header) for name in names}
    cells = list(csv.reader([record.decode() for record in piece]))
    return {name: pl.Series([row[at] for row in cells], dtype=pl.String) for name, at in places.items()}


def _place_of(name: str, header: list[str]) -> int:
    # A name that a spreadsheet would run stands there with an apostrophe before it.
    for candidate in (name, f"'{name}"):
        if candidate in header:
            return header.index(candidate)
    raise KeyError(name)


def _as_text(value: Any) -> str | None:
    if isinstance(value, dict | list | float):
        return orjson.dumps(value).decode()
    return text_of(value)
