"""Structure of a CSV file: its dialect, told from its first bytes, and its records and their fields.

One rule for quotes everywhere: a quote opens a quoted field at the field's start only; within it a doubled quote is
one quote; after the closing one the field ends. A quote anywhere else is a plain character ("5\" pipe"), and text
after a closing quote makes the record malformed. Where no quote stands in an odd place, the parity of quotes alone
tells inside from outside, and numpy finds every record at memory speed; else a loop walks through the records.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]

LF, CR = 10, 13


@dataclass(frozen=True, slots=True)
class Dialect:
    """Dialect of a CSV file: one-character delimiter and quote, and the byte that ends a record.

    Where it `is_padded`, blanks around a field, outside its quotes, are no part of it.
    """

    delimiter: str = ","
    quote: str = '"'
    newline: str = "\n"
    is_padded: bool = False


class StrayQuote(Exception):
    """A quote stands where parity cannot understand it; walk through the records instead."""


class OpenQuote(Exception):
    """The buffer ends within a quoted field that begins at `position`."""

    def __init__(self, position: int) -> None:
        self.position = position
        super().__init__(position)


@dataclass(frozen=True, slots=True)
class Structure:
    """The records of a buffer that are not blank lines: byte ranges without newline, and fields in each.

    `next_starts` is where the line after each record begins. `is_odd` marks records with stray quotes,
    `is_malformed` those with text after a closing quote; both None where parity was enough.
    """

    starts: Positions
    ends: Positions
    next_starts: Positions
    fields: Positions
    is_odd: npt.NDArray[np.bool_] | None = None
    is_malformed: npt.NDArray[np.bool_] | None = None


def outside(quotes: Positions, positions: Positions, *, is_inside: bool = False) -> Positions:
    """Return those positions that lie outside quotes, given that the buffer begins inside or outside."""
    if not quotes.size:
        return positions[:0] if is_inside else positions
    parity = np.searchsorted(quotes, positions) & 1
    found: Positions = positions[parity == (1 if is_inside else 0)]
    return found


def check_quotes(data: npt.NDArray[np.uint8], quotes: Positions, dialect: Dialect, *, is_inside: bool = False) -> None:
    """Raise StrayQuote unless every opening quote follows a field's end and every closing one precedes it.

    A quote at the buffer's first or last byte is judged by its inner side alone.
    """
    allowed = np.zeros(256, dtype=bool)
    allowed[[ord(dialect.delimiter), ord(dialect.quote), ord(dialect.newline)]] = True
    opening, closing = quotes[int(is_inside) :: 2], quotes[1 - int(is_inside) :: 2]
    if not allowed[data[opening[opening > 0] - 1]].all():
        raise StrayQuote
    after = closing[closing < data.size - 1] + 1
    odd = after[~allowed[data[after]]]
    # What may stand there besides is the CR of a CRLF, or one at the very end.
    if odd.size and not (dialect.newline == "\n" and _begins_line_end(data, odd)):
        raise StrayQuote


def _begins_line_end(data: "npt.NDArray[np.uint8]", positions: Positions) -> bool:
    followed = positions[positions < data.size - 1] + 1
    return bool((data[positions] == CR).all() and (data[followed] == LF).all())


def scan(buffer: bytes, dialect: Dialect) -> Structure:
    """Return the structure of a buffer that begins at a record's start and ends at a record's or the file's end.

    Raises OpenQuote where it ends within quotes.
    """
    data = np.frombuffer(buffer, dtype=np.uint8)
    quotes = np.flatnonzero(data == ord(dialect.quote))
    try:
        check_quotes(data, quotes, dialect)
    except StrayQuote:
        return walk(buffer, dialect)
    if quotes.size % 2:
        raise OpenQuote(int(quotes[-1]))
    newlines = outside(quotes, np.flatnonzero(data == ord(dialect.newline)))
    if data.size and (not newlines.size or newlines[-1] != data.size - 1):
        newlines = np.append(newlines, data.size)
    starts = np.concatenate((np.zeros(1, dtype=np.int64), newlines[:-1] + 1)) if newlines.size else newlines
    ends = newlines.copy()
    if dialect.newline == "\n":
        filled = ends > starts
        ends[filled] -= data[ends[filled] - 1] == CR
    keep = ends > starts
    starts, ends, following = starts[keep], ends[keep], newlines[keep] + 1
    delimiters = outside(quotes, np.flatnonzero(data == ord(dialect.delimiter)))
    fields = np.searchsorted(delimiters, ends) - np.searchsorted(delimiters, starts) + 1
    return Structure(starts, ends, following, fields)


def count_outside(buffer: bytes, dialect: Dialect, character: str) -> int:
    """Return how often the character stands outside quotes, in a buffer whose quotes passed `check_quotes`."""
    total = buffer.count(character.encode())
    data = np.frombuffer(buffer, dtype=np.uint8)
    quotes = np.flatnonzero(data == ord(dialect.quote))
    if not quotes.size or not total:
        return total
    found = np.flatnonzero(data == ord(character))
    before = np.searchsorted(found, quotes)
    return total - int((before[1::2] - before[0::2]).sum())


def walk(buffer: bytes, dialect: Dialect, *, is_final: bool = True) -> Structure:
    """Return the structure of any buffer that begins at a record's start, record by record.

    Slower than `scan` and never wrong about stray quotes. With `is_final` False the last, unfinished record is
    left out; otherwise it ends with the buffer, and OpenQuote is raised where that is within quotes.
    """
    newline, quote, delimiter = dialect.newline.encode(), dialect.quote.encode(), dialect.delimiter.encode()
    found: list[tuple[int, int, int, int, bool, bool]] = []
    position, size = 0, len(buffer)
    while position < size:
        stop = buffer.find(newline, position)
        is_odd = is_malformed = False
        if stop < 0 or buffer.find(quote, position, stop) >= 0:
            try:
                stop, fields, is_odd, is_malformed = _walk_record(buffer, position, dialect)
            except OpenQuote:
                if not is_final:
                    break
                raise
        else:
            fields = buffer.count(delimiter, position, stop) + 1
        if stop == size and not is_final:
            break
        end = stop - 1 if newline == b"\n" and stop > position and buffer[stop - 1] == CR else stop
        if end > position:
            found.append((position, end, stop + 1, fields, is_odd, is_malformed))
        position = stop + 1
    table = np.array([row[:4] for row in found], dtype=np.int64).reshape(-1, 4)
    flags = np.array([row[4:] for row in found], dtype=bool).reshape(-1, 2)
    return Structure(table[:, 0], table[:, 1], table[:, 2], table[:, 3], flags[:, 0], flags[:, 1])


@lru_cache(maxsize=32)
def _patterns(dialect: Dialect) -> tuple[re.Pattern[bytes], re.Pattern[bytes], re.Pattern[bytes]]:
    """Return what matches a quoted field, a plain one, and a quoted one with blanks around it, in one line."""
    quote, delimiter, newline = (re.escape(c.encode()) for c in (dialect.quote, dialect.delimiter, dialect.newline))
    inside = b"[^" + quote + b"]*(?:" + quote + quote + b"[^" + quote + b"]*)*"
    quoted = re.compile(quote + inside + quote + b"(?!" + quote + b")")
    plain = re.compile(b"[^" + delimiter + newline + b"]*")
    line = inside.replace(b"[^" + quote + b"]", b"[^" + quote + b"\\r\\n]")
    return (
        quoted,
        plain,
        re.compile(b" *(" + quote + line + quote + b") *(?=\\r?(?:" + newline + b"|$)|" + delimiter + b")"),
    )


def _walk_record(buffer: bytes, start: int, dialect: Dialect) -> tuple[int, int, bool, bool]:
    """Return the position of the record's newline (or the end), its fields, and whether it is odd or malformed."""
    quoted, plain, padded = _patterns(dialect)
    quote, delimiter = ord(dialect.quote), ord(dialect.delimiter)
    position, fields, size = start, 1, len(buffer)
    is_odd = is_malformed = False
    while True:
        match = padded.match(buffer, position) if dialect.is_padded else None
        if match:
            position = match.end()
            position += dialect.newline == "\n" and buffer[position : position + 1] == b"\r"
        elif position < size and buffer[position] == quote:
            match = quoted.match(buffer, position)
            if match is None:
                raise OpenQuote(position)
            rest = plain.match(buffer, match.end())
            tail = rest.group() if rest else b""
            # the CR of a CRLF is part of the newline, not of the field
            is_last = match.end() + len(tail) >= size or buffer[match.end() + len(tail)] != delimiter
            is_malformed |= bool(tail) and not (tail == b"\r" and is_last)
            position = match.end() + len(tail)
        else:
            rest = plain.match(buffer, position)
            tail = rest.group() if rest else b""
            is_odd |= quote in tail
            position += len(tail)
        if position >= size or buffer[position] != delimiter:
            return position, fields, is_odd, is_malformed
        fields += 1
        position += 1


def split_fields(record: bytes, dialect: Dialect) -> list[bytes | None]:
    """Return the fields of one record (without its newline) that is not malformed; None is an empty, unquoted field."""
    quote = dialect.quote.encode()
    fields: list[bytes | None] = []
    for is_quoted, field in _fields(record, dialect):
        if is_quoted:
            fields.append(field.strip(b" ")[1:-1].replace(quote + quote, quote))
        else:
            fields.append((field.strip(b" ") if dialect.is_padded else field) or None)
    return fields


def _fields(record: bytes, dialect: Dialect) -> Iterator[tuple[bool, bytes]]:
    """Yield each field as it stands there, with its quotes and the blanks around them."""
    quoted, plain, padded = _patterns(dialect)
    position = 0
    while True:
        match = (padded.match(record, position) if dialect.is_padded else None) or quoted.match(record, position)
        is_quoted = match is not None
        match = match or plain.match(record, position)
        yield is_quoted, match.group() if match else b""
        position = match.end() if match else position
        if position >= len(record):
            return
        position += 1


DELIMITERS = (",", ";", "\t", "|")
QUOTES = ('"', "'")
SAMPLE_RECORDS = 200
HINT = re.compile(rb'"?sep=([^\w\s"]|\t)"? *(?:\r\n|\n|\r)', re.IGNORECASE)
"""A first line that tells Excel the delimiter and holds no data."""
_DECIMAL_COMMA = re.compile(rb" *[+-]?[0-9. ]*[0-9],[0-9]+ *")
APOSTROPHE_FIELD = re.compile(rb"(?:^|[,;\t|\r\n])'[^'\r\n]*'(?:$|[,;\t|\r\n])")


def detect_dialect(head: bytes, *, is_whole: bool, delimiter: str | None = None, quote: str | None = None) -> Dialect:
    """Return the dialect in which the first records agree best; what is given is not guessed.

    A delimiter counts where the first record holds it; among those the one wins with which the most records have
    as many fields as the first, then the one with more fields. Apostrophes are quotes only where the first record
    is quoted with them throughout, or where the records agree with them and do not without.
    """
    best, best_score = Dialect(delimiter or ",", quote or '"', detect_newline(head, quote=quote or '"')), (0.0, 0)
    for candidate_quote in (quote,) if quote else QUOTES:
        is_guessed = candidate_quote == "'" and not quote
        if is_guessed and not APOSTROPHE_FIELD.search(head):
            continue
        newline = detect_newline(head, quote=candidate_quote)
        for candidate in (delimiter,) if delimiter else DELIMITERS:
            dialect = Dialect(candidate, candidate_quote, newline)
            score = _agreement(head, dialect, is_whole=is_whole, is_guessed_quote=is_guessed)
            if score > best_score:
                best, best_score = dialect, score
    if best.delimiter == "," and delimiter is None:
        rival = replace(best, delimiter=";")
        score = _agreement(head, rival, is_whole=is_whole, is_guessed_quote=best.quote == "'" and not quote)
        if score[0] >= best_score[0] > 0 and _has_decimal_commas(head, rival, is_whole=is_whole):
            best = rival
    mark = best.quote.encode()
    if b" " + mark in head or mark + b" " in head:
        padded = replace(best, is_padded=True)
        records = _records(head, padded, is_whole=is_whole)
        fields = (field for record in records for is_quoted, field in _fields(record, padded) if is_quoted)
        return padded if any(field != field.strip(b" ") for field in fields) else best
    return best


def _records(head: bytes, dialect: Dialect, *, is_whole: bool) -> list[bytes]:
    structure = sample(head, dialect, is_whole=is_whole)
    if structure is None:
        return []
    return [head[start:end] for start, end in zip(structure.starts, structure.ends, strict=True)]


def _has_decimal_commas(head: bytes, dialect: Dialect, *, is_whole: bool) -> bool:
    """Return whether commas stand in numbers, and in nothing else, where another delimiter is taken."""
    records = _records(head, dialect, is_whole=is_whole)[1:SAMPLE_RECORDS]
    cells = [cell for record in records for cell in split_fields(record, dialect) if cell and b"," in cell]
    return bool(cells) and all(_DECIMAL_COMMA.fullmatch(cell) for cell in cells)


def detect_newline(head: bytes, *, quote: str) -> str:
    """Return the character that ends records: CR only where no LF stands outside quotes."""
    mark = re.escape(quote.encode())
    bare = re.sub(mark + b"[^" + mark + b"]*" + mark, b"", head)
    return "\r" if b"\r" in bare and b"\n" not in bare else "\n"


def _agreement(head: bytes, dialect: Dialect, *, is_whole: bool, is_guessed_quote: bool) -> tuple[float, int]:
    structure = sample(head, dialect, is_whole=is_whole)
    if structure is None or not structure.starts.size:
        return (0.0, 0)
    fields = structure.fields[:SAMPLE_RECORDS]
    count = int(fields[0])
    share = float((fields == count).mean())
    if structure.is_malformed is not None and structure.is_malformed[:SAMPLE_RECORDS].any():
        share /= 2
    if is_guessed_quote and _is_quoted_throughout(head[int(structure.starts[0]) : int(structure.ends[0])], dialect):
        return (share + 1, count)
    return (share, count) if count > 1 else (0.0, 0)


def _is_quoted_throughout(record: bytes, dialect: Dialect) -> bool:
    mark = dialect.quote.encode()
    plain = Dialect(dialect.delimiter, "\0", dialect.newline)
    fields = [field or b"" for field in split_fields(record, plain)]
    return all(len(field) > 1 and field.startswith(mark) and field.endswith(mark) for field in fields)


def sample(head: bytes, dialect: Dialect, *, is_whole: bool) -> Structure | None:
    """Return the records that the head holds whole, or None where it ends within quotes before the first."""
    try:
        return walk(head, dialect, is_final=is_whole)
    except OpenQuote:
        return walk(head, dialect, is_final=False)
