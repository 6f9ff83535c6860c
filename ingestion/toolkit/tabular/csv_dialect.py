"""How a CSV file is written, told from its first bytes."""

import re

from ingestion.toolkit.tabular.csv_structure import Dialect, OpenQuote, Structure, split_fields, walk

DELIMITERS = (",", ";", "\t", "|")
QUOTES = ('"', "'")
SAMPLE_RECORDS = 200
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
    return best


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
