"""Typed rows as lines of text, the same bytes for the same rows: JSON Lines and CSV.

Null is null and an empty cell. Infinite floats and NaN, for which neither format has a word, are null, too.
"""

import csv
import io
from collections.abc import Collection, Sequence

import orjson
import polars as pl
import pyarrow as pa

from ingestion.toolkit.frames import array_of, frame_of
from ingestion.toolkit.nested import is_json
from ingestion.toolkit.rows.spreadsheets import defuse as defuse_text
from ingestion.toolkit.rows.spreadsheets import defused
from ingestion.toolkit.tabular.cells import cells_as_text

CSV_LINE_END = "\r\n"


def json_lines(batch: pa.RecordBatch, *, json_columns: Collection[str] = ()) -> bytes:
    """Return a line for each row, an object of all its columns in their order.

    Moments are ISO 8601 in UTC with a Z. The text of `json_columns` becomes the value it describes; where it
    describes none, it stays text.
    """
    frame = _finite(batch)
    nested = [name for name in frame.columns if name in set(json_columns)]
    pieces: list[pl.Expr] = []
    plain: list[pl.Series] = []
    for name in frame.columns:
        if name in nested:
            pieces += _without_braces(plain)
            pieces.append(pl.lit(pl.Series([f"{orjson.dumps(name).decode()}:"])) + pl.lit(_as_json(frame[name])))
            plain = []
        else:
            plain.append(_timestamps_as_text(frame[name]))
    pieces += _without_braces(plain)
    if not frame.height:
        return b""
    lines = pl.select(pl.concat_str(pl.lit("{"), pl.concat_str(pieces, separator=","), pl.lit("}\n")).alias("line"))
    return str(lines["line"].str.join("").item()).encode()


def csv_header(names: Sequence[str], *, defuse: bool) -> bytes:
    """Return the line of column names."""
    shown = [defuse_text(name) for name in names] if defuse else list(names)
    text = io.StringIO()
    csv.writer(text, lineterminator=CSV_LINE_END).writerow(shown)
    return text.getvalue().encode()


def csv_lines(batch: pa.RecordBatch, *, defuse: bool) -> bytes:
    """Return a record for each row by RFC 4180: CRLF, quotes where needed; an empty text is a quoted one.

    With `defuse`, text that a spreadsheet would run as a formula gets an apostrophe before it, unless it is a number.
    """
    # No name is written here, and one with a NUL would not come back from polars.
    frame = _finite(batch.rename_columns([str(index) for index in range(batch.num_columns)]))
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    if defuse and texts:
        frame = frame.with_columns(defused(pl.col(name)).alias(name) for name in texts)
    cells = pl.DataFrame(cells_as_text(frame.to_arrow(), keep=()))
    return cells.write_csv(include_header=False, line_terminator=CSV_LINE_END).encode() if cells.height else b""


def _finite(batch: pa.RecordBatch) -> pl.DataFrame:
    frame = frame_of(batch)
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    return frame.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in floats)


def _timestamps_as_text(series: pl.Series) -> pl.Series:
    if not series.dtype.is_temporal():
        return series
    table = cells_as_text(pa.table({series.name: array_of(series)}), keep=())
    return pl.Series(series.name, table[series.name])


def _without_braces(columns: list[pl.Series]) -> list[pl.Expr]:
    if not columns:
        return []
    return [pl.lit(pl.DataFrame(columns).to_struct("row").struct.json_encode().str.slice(1).str.strip_suffix("}"))]


def _as_json(texts: pl.Series) -> pl.Series:
    written = [None if text is None else _one_line(text) for text in texts.to_list()]
    return pl.Series(texts.name, written, dtype=pl.String).fill_null("null")


def _one_line(text: str) -> str:
    if not is_json(text):
        return orjson.dumps(text).decode()
    # Between its tokens JSON may hold line ends, within them it cannot.
    return text.replace("\n", " ").replace("\r", " ")
