"""A file as our reader understood it, as CSV with every cell as text."""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import polars as pl
import pyarrow as pa

from ingestion.ports.batch import ERROR, ERROR_CODE, RAW, READER_COLUMNS, ROW
from ingestion.toolkit.frames import frame_of
from ingestion.toolkit.tabular import json_array, jsonl, xlsx
from ingestion.toolkit.tabular.cells import cells_as_text
from ingestion.toolkit.tabular.formats import read_span, split_file
from ingestion.toolkit.tabular.spans import DEFAULT_TARGET_BYTES, BadRow, Opener, Span, raw_text

SUFFIX = "_converted.csv"
LINE_END = "\r\n"


@dataclass(frozen=True, slots=True)
class Conversion:
    """A written file: where, in which columns, how many rows; and the rows that could not be read, in file order."""

    path: Path
    format: str
    columns: tuple[str, ...]
    renamed: dict[str, str]
    row_count: int
    errors: tuple[BadRow, ...]


def convert_to_csv(path: Path, out_dir: Path, *, target_bytes: int = DEFAULT_TARGET_BYTES) -> Conversion:
    """Write `<name>_converted.csv` into `out_dir`: UTF-8, RFC 4180, rows in file order, every cell as text.

    CSV text is unchanged, numbers are in the shortest form that reads back the same, booleans true or false, dates
    ISO 8601, nested values JSON. A missing value is an empty cell, an empty text a quoted one. Rows that cannot be
    read are returned and not written. An output of an earlier call is replaced at the end, never left half written.
    ConfigError with a `file.*` code where the file as a whole cannot be used; then nothing is written.
    """
    opener: Opener = lambda: path.open("rb")  # noqa: E731 - an opener is a function without arguments
    spans = split_file(opener, path.stat().st_size, name=path.name, target_bytes=target_bytes)
    out_dir.mkdir(parents=True, exist_ok=True)
    target = out_dir / f"{path.stem}{SUFFIX}"
    partial = target.with_name(f".{target.name}.part")
    try:
        columns, row_count, errors = _write(partial, lambda: _tables(opener, spans, name=path.name))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    renamed = {new: old for span in spans for new, old in span.renamed.items()}
    return Conversion(target, spans[0].format, columns, renamed, row_count, tuple(errors))


def _tables(opener: Opener, spans: list[Span], *, name: str) -> Iterator[pa.Table]:
    """Yield each span's rows, data cells as text."""
    for span in spans:
        # JSON keeps the difference between 1 and 1.0 only as long as no column type is chosen.
        if span.format == jsonl.FORMAT:
            yield jsonl.read(opener, span, name=name, as_text=True)
        elif span.format == json_array.FORMAT:
            yield json_array.read(opener, span, name=name, as_text=True)
        else:
            table = read_span(opener, span, name=name)
            yield cells_as_text(table, keep=READER_COLUMNS, whole_floats=span.format == xlsx.FORMAT)


def _write(partial: Path, tables: Callable[[], Iterator[pa.Table]]) -> tuple[tuple[str, ...], int, list[BadRow]]:
    """Write all tables; where a later one has columns that the first has not, once more with all columns."""
    columns: tuple[str, ...] | None = None
    while True:
        used, found, row_count, errors = _write_once(partial, tables(), columns)
        if used == found:
            return used, row_count, errors
        columns = found


def _write_once(
    partial: Path, tables: Iterator[pa.Table], columns: tuple[str, ...] | None
) -> tuple[tuple[str, ...], tuple[str, ...], int, list[BadRow]]:
    """Return the columns written (by default the first table's), all columns found, the rows and the errors."""
    found: dict[str, None] = dict.fromkeys(columns or ())
    row_count, errors = 0, list[BadRow]()
    with partial.open("wb") as file:
        for table in tables:
            found.update(dict.fromkeys(name for name in table.column_names if name not in READER_COLUMNS))
            columns = tuple(found) if columns is None else columns
            if len(found) > len(columns):
                continue  # this pass only looks on: the file is written anew
            if not file.tell():
                file.write(_header(columns))
            frame = frame_of(table)
            errors.extend(_errors(frame))
            row_count += _append(file, frame, columns)
    return columns or (), tuple(found), row_count, errors


def _append(file: BinaryIO, frame: pl.DataFrame, columns: tuple[str, ...]) -> int:
    good = frame.filter(pl.col(ERROR_CODE).is_null())
    cells = good.select(
        pl.col(name) if name in good.columns else pl.lit(None, pl.String).alias(name) for name in columns
    )
    if len(columns) == 1:
        cells = cells.with_columns(pl.all().fill_null(""))  # else the record would be a blank line
    if columns and good.height:
        cells.write_csv(file, include_header=False, line_terminator=LINE_END)
    return good.height


def _errors(frame: pl.DataFrame) -> Iterator[BadRow]:
    bad = frame.filter(pl.col(ERROR_CODE).is_not_null()).select(ROW, ERROR_CODE, ERROR, RAW)
    for row, code, message, raw in bad.iter_rows():
        yield BadRow(row, code, message, raw_text(raw))


def _header(columns: tuple[str, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator=LINE_END).writerow(columns)
    return text.getvalue().encode() if columns else b""
