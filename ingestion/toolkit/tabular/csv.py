"""CSV: cut at record boundaries, read as text."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa

from ingestion.ports.batch import DELIMITER
from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.assembly import assemble, clean_header
from ingestion.toolkit.tabular.csv_structure import (
    CR,
    HINT,
    Dialect,
    OpenQuote,
    Positions,
    StrayQuote,
    Structure,
    check_quotes,
    count_outside,
    detect_dialect,
    outside,
    sample,
    scan,
    split_fields,
    walk,
)
from ingestion.toolkit.tabular.spans import (
    DEFAULT_TARGET_BYTES,
    MAX_COLUMNS,
    MAX_RECORD_BYTES,
    BadRow,
    Opener,
    Span,
    bad_row,
)
from ingestion.toolkit.tabular.text import bom_length, check_text, line_at, read_lines_in_blocks

FORMAT = "csv"
HEAD_BYTES = 256 * 1024


def split(
    open_file: Opener,
    size: int,
    *,
    name: str,
    target_bytes: int = DEFAULT_TARGET_BYTES,
    delimiter: str | None = None,
    quote: str | None = None,
) -> list[Span]:
    """Return the spans of the file, each of whole records and about `target_bytes`, with exact record counts.

    Blank lines are no records. The whole file is read once, so that an encoding error or a quote that is never
    closed is known before anything is ingested: ConfigError file.encoding, file.malformed (with the line).
    A file with a header and no records is one empty span.
    """
    with open_file() as file:
        head = file.read(HEAD_BYTES)
        begin = bom_length(head, name=name)
        if hint := HINT.match(head, begin):
            begin, delimiter = hint.end(), delimiter or hint.group(1).decode()
        header, dialect, data_at = _read_header(file, size, begin, name=name, delimiter=delimiter, quote=quote)
        columns = clean_header(header, name=name)
        try:
            cuts = _cut(_scan_ends(file, data_at, dialect, name=name), data_at, size=size, target_bytes=target_bytes)
        except StrayQuote:
            cuts = _cut(_walk_ends(file, data_at, dialect, name=name), data_at, size=size, target_bytes=target_bytes)
    layout: dict[str, Any] = {"delimiter": dialect.delimiter, "quote": dialect.quote, "newline": dialect.newline}
    notes = []
    if hint:
        notes.append(f"The first line of {name} tells Excel the delimiter {dialect.delimiter!r}; it is no row.")
    if dialect.is_padded:
        layout["is_padded"] = True
        notes.append(f"Blanks around the cells of {name}, outside quotes, are left out.")
    return [
        Span(FORMAT, start, stop - start, first_row, row_count, columns.columns, columns.renamed, layout, tuple(notes))
        for start, stop, first_row, row_count in cuts
    ]


def read(open_file: Opener, span: Span, *, name: str) -> pa.Table:
    """Return the records of one span: every column text, an empty unquoted cell null, a quoted empty one "".

    Records with more or fewer fields than the header, or with text after a closing quote, are error rows.
    Text columns are Arrow string views, which polars takes over without a copy.
    """
    with open_file() as file:
        file.seek(span.offset)
        buffer = file.read(span.length)
    if len(buffer) < span.length:
        raise ConfigError("file.truncated", name=name, detail=f"{len(buffer)} of {span.length} bytes are there")
    dialect = Dialect(**span.layout)
    bad: list[BadRow] = []
    frame = None if dialect.is_padded else _parse_regular(buffer, span.columns, dialect)
    # Splitting has counted the records; another number means that a blank line or a long record was misread.
    if frame is None or (span.row_count is not None and frame.height != span.row_count):
        frame, rows, bad = _parse_irregular(buffer, span, dialect, name=name)
    else:
        rows = np.arange(span.first_row, span.first_row + frame.height, dtype=np.int64)
    table = frame.to_arrow(compat_level=pl.CompatLevel.newest())
    return assemble(table, rows, bad).replace_schema_metadata({DELIMITER: dialect.delimiter})


def _read_header(
    file: BinaryIO, size: int, begin: int, *, name: str, delimiter: str | None, quote: str | None
) -> tuple[list[str], Dialect, int]:
    """Return the header's cells, the dialect, and where the records begin."""
    length = HEAD_BYTES
    while True:
        file.seek(begin)
        head = file.read(length)
        is_whole = begin + len(head) >= size
        dialect = detect_dialect(head, is_whole=is_whole, delimiter=delimiter, quote=quote)
        structure = sample(head, dialect, is_whole=is_whole)
        if structure is not None and structure.starts.size:
            break
        if is_whole or length >= MAX_RECORD_BYTES:
            if not head.strip():
                raise ConfigError("file.empty", name=name)
            check_text(head[: MAX_RECORD_BYTES - 4], offset=begin, name=name)
            raise ConfigError(
                "file.malformed", name=name, detail="the header line has no end, or a quote in it is not closed"
            )
        length = MAX_RECORD_BYTES
    if structure.fields[0] > MAX_COLUMNS:
        raise ConfigError("file.too_many_columns", name=name, columns=int(structure.fields[0]), limit=MAX_COLUMNS)
    data_at = min(begin + int(structure.next_starts[0]), size)
    record = head[int(structure.starts[0]) : int(structure.ends[0])]
    check_text(record, offset=begin + int(structure.starts[0]), name=name)
    if structure.is_malformed is not None and structure.is_malformed[0]:
        raise ConfigError("file.malformed", name=name, detail="text follows a closing quote in the header")
    return [(cell or b"").decode() for cell in split_fields(record, dialect)], dialect, data_at


def _scan_ends(file: BinaryIO, data_at: int, dialect: Dialect, *, name: str) -> Iterator[Positions]:
    """Yield, block by block, where the line after each record begins; StrayQuote where parity does not suffice."""
    newline = dialect.newline.encode()
    is_inside, last_quote_at, record_at = False, 0, data_at
    for offset, block in read_lines_in_blocks(file, offset=data_at, newline=newline, name=name):
        data = np.frombuffer(block, dtype=np.uint8)
        quotes = np.flatnonzero(data == ord(dialect.quote))
        check_quotes(data, quotes, dialect, is_inside=is_inside)
        newlines = outside(quotes, np.flatnonzero(data == newline[0]), is_inside=is_inside)
        if quotes.size:
            last_quote_at = offset + int(quotes[-1])
            is_inside ^= bool(quotes.size % 2)
        if not block.endswith(newline) and not is_inside:
            newlines = np.append(newlines, data.size)
        if newlines.size:
            starts = np.concatenate((np.array([record_at - offset]), newlines[:-1] + 1))
            lengths = newlines - starts
            if dialect.newline == "\n":
                lengths -= (lengths == 1) & (data[newlines - 1] == CR)
            record_at = offset + int(newlines[-1]) + 1
            yield newlines[lengths > 0] + (offset + 1)
        if is_inside and offset + len(block) - record_at > MAX_RECORD_BYTES:
            raise _unclosed(file, record_at, dialect, name=name)
    if is_inside:
        raise _unclosed(file, last_quote_at, dialect, name=name)


def _walk_ends(file: BinaryIO, data_at: int, dialect: Dialect, *, name: str) -> Iterator[Positions]:
    """Yield the same as `_scan_ends` for a file with stray quotes, record by record."""
    carried, begin = b"", data_at
    newline = dialect.newline.encode()
    for _, block in read_lines_in_blocks(file, offset=data_at, newline=newline, name=name):
        buffer = carried + block
        structure = walk(buffer, dialect, is_final=False)
        done = int(structure.next_starts[-1]) if structure.starts.size else 0
        if structure.starts.size:
            yield structure.next_starts + begin
        carried, begin = buffer[done:], begin + done
        if len(carried) > MAX_RECORD_BYTES:
            raise _unclosed(file, begin, dialect, name=name)
    if carried:
        try:
            structure = walk(carried, dialect)
        except OpenQuote as error:
            raise _unclosed(file, begin + error.position, dialect, name=name) from error
        yield structure.next_starts + begin


def _unclosed(file: BinaryIO, position: int, dialect: Dialect, *, name: str) -> ConfigError:
    line = line_at(file, position, newline=dialect.newline.encode())
    return ConfigError("file.malformed", name=name, detail=f"the quote opened in line {line} is never closed")


def _cut(ends: Iterator[Positions], data_at: int, *, size: int, target_bytes: int) -> list[tuple[int, int, int, int]]:
    """Return (start, stop, first row, rows) of each span; a span stops at the first record end past the target."""
    cuts: list[tuple[int, int, int, int]] = []
    start, first_row, rows = data_at, 0, 0
    for positions in ends:
        left = positions
        while left.size:
            index = int(np.searchsorted(left, start + target_bytes))
            taken = min(index + 1, left.size)
            rows += taken
            if index < left.size:
                stop = min(int(left[index]), size)
                cuts.append((start, stop, first_row, rows))
                start, first_row, rows = stop, first_row + rows, 0
            left = left[taken:]
    if rows or not cuts:
        cuts.append((start, size, first_row, rows))
    return cuts


def _parse_regular(buffer: bytes, columns: tuple[str, ...], dialect: Dialect) -> pl.DataFrame | None:
    """Return the parsed buffer, or None where some record is not as the header says."""
    if dialect.quote.encode() in buffer:
        data = np.frombuffer(buffer, dtype=np.uint8)
        try:
            check_quotes(data, np.flatnonzero(data == ord(dialect.quote)), dialect)
        except StrayQuote:
            return None
    # Without a line end polars takes a last record that is too long for one of the right length.
    newline = dialect.newline.encode()
    try:
        frame = _parse(buffer if buffer.endswith(newline) else buffer + newline, columns, dialect)
    except pl.exceptions.PolarsError:
        return None  # polars refuses longer records, and a first record of another length
    if not frame.height or not frame.to_series(-1).null_count():
        return frame
    # polars fills short records with nulls in silence: with a null in the last column, the delimiters are counted
    if len(columns) == 1 or count_outside(buffer, dialect, dialect.delimiter) != frame.height * (len(columns) - 1):
        return None
    return frame


def _parse(buffer: bytes, columns: tuple[str, ...], dialect: Dialect) -> pl.DataFrame:
    return pl.read_csv(
        buffer,
        has_header=False,
        schema=dict.fromkeys(columns, pl.String),
        infer_schema=False,
        separator=dialect.delimiter,
        quote_char=dialect.quote,
        eol_char=dialect.newline,
        raise_if_empty=False,
    )


def _parse_irregular(
    buffer: bytes, span: Span, dialect: Dialect, *, name: str
) -> tuple[pl.DataFrame, np.ndarray, list[BadRow]]:
    """Return the good records parsed, their row numbers, and the bad ones with their reasons."""
    try:
        structure = scan(buffer, dialect)
    except OpenQuote as error:
        raise ConfigError("file.malformed", name=name, detail="a quote is never closed") from error
    expected = len(span.columns)
    is_good = structure.fields == expected
    if structure.is_malformed is not None:
        is_good &= ~structure.is_malformed
    bad = [_judge(buffer, structure, int(index), span) for index in np.flatnonzero(~is_good)]
    frame = _parse(_good_records(buffer, structure, is_good, dialect), span.columns, dialect)
    rows = np.flatnonzero(is_good) + span.first_row
    if frame.height != len(rows):
        msg = f"{len(rows)} records were found but {frame.height} were parsed"
        raise AssertionError(msg)
    return frame, rows, bad


def _good_records(buffer: bytes, structure: Structure, is_good: np.ndarray, dialect: Dialect) -> bytes:
    """Return the good records alone, one after another; those with stray quotes are written anew with proper ones."""
    if not is_good.any():
        return b""
    is_odd = structure.is_odd
    if dialect.is_padded or is_odd is None:
        is_odd = np.full(len(is_good), dialect.is_padded, dtype=bool)
    # CRLF, since polars takes one CR before the LF away, and a cell may end with a CR of its own.
    newline = b"\r\n" if dialect.newline == "\n" else dialect.newline.encode()
    # neighbours that need no change are copied as one piece: a new piece begins where the state changes or a
    # blank line lies between
    touches = structure.next_starts[:-1] == structure.starts[1:]
    is_plain = is_good & ~is_odd
    pieces: list[bytes] = []
    begins = np.ones(len(is_good), dtype=bool)
    begins[1:] = ~(is_plain[1:] & is_plain[:-1] & touches)
    firsts = np.flatnonzero(begins)
    for first, after in zip(firsts, [*firsts[1:], len(is_good)], strict=True):
        if is_plain[first]:
            pieces.append(buffer[structure.starts[first] : structure.ends[after - 1]])
        elif is_good[first]:
            pieces.append(_requote(buffer[structure.starts[first] : structure.ends[first]], dialect))
    return newline.join(pieces) + newline if pieces else b""


def _requote(record: bytes, dialect: Dialect) -> bytes:
    quote, doubled = dialect.quote.encode(), dialect.quote.encode() * 2
    cells = [
        b"" if cell is None else quote + cell.replace(quote, doubled) + quote for cell in split_fields(record, dialect)
    ]
    return dialect.delimiter.encode().join(cells)


def _judge(buffer: bytes, structure: Structure, index: int, span: Span) -> BadRow:
    raw = buffer[structure.starts[index] : structure.ends[index]].decode("utf-8", "replace")
    row, found, expected = span.first_row + index, int(structure.fields[index]), len(span.columns)
    if structure.is_malformed is not None and structure.is_malformed[index]:
        return bad_row(row, "row.malformed", raw=raw, detail="text follows a closing quote")
    code = "row.too_many_fields" if found > expected else "row.too_few_fields"
    return bad_row(row, code, raw=raw, found=found, expected=expected)
