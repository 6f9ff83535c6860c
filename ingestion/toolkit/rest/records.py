"""Records as they come out of stored pages, one by one, the unreadable ones with their problem."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from ingestion.ports.batch import Records
from ingestion.ports.connector import Stream
from ingestion.toolkit.rest.values import as_json, read_json, value_at

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_RECORD = "record="
"""What stands in the fragment of a page's address before the number of records that came ahead of it."""

ReadValues: TypeAlias = Callable[[Any], Mapping[str, Any]]
"""Turns one record into its columns' values, or raises UnreadableError."""


class UnreadableError(Exception):
    """A record that cannot be read; `code` is one of the messages' row codes."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of a page: itself, and its columns' values or the code of the reason why it has none."""

    page: int
    record: Any
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    detail: str = ""

    @property
    def raw(self) -> str:
        """Return the record as JSON text, or the text of what stood in its place."""
        is_text = isinstance(self.record, str) and self.problem == "row.malformed"
        return self.record if is_text else as_json(self.record)


def read_object(record: Any, *, key: str = "id") -> Mapping[str, Any]:
    """Return the fields of a record that is a JSON object with a key."""
    if not isinstance(record, dict):
        raise UnreadableError("row.not_an_object")
    if record.get(key) in (None, "") or isinstance(record[key], dict | list | bool):
        raise UnreadableError("row.missing_id")
    return record


def standardize(
    records: Records, stream: Stream, *, path: Sequence[str] = (), read: ReadValues = read_object
) -> "pa.Table":
    """Return the records of stored pages as one table by the stream's schema, with the reader columns.

    On each page they stand as a list under the names `path`, one inside the other.
    """
    from ingestion.toolkit.rest.tables import tabulate  # noqa: PLC0415 - pyarrow

    entries = (entry for page in records.pages for entry in _read_page(page.seq, page.read(), path=path, read=read))
    limit = records.query.limit
    if limit is not None and records.pages:
        limit -= _first_record(records.pages[0].url)
    if stream.schema is None:
        msg = f"the stream {stream.name} declares no schema"
        raise TypeError(msg)
    return tabulate(entries, stream.schema, limit=limit)


def _first_record(url: str) -> int:
    number = urlsplit(url).fragment.removeprefix(FIRST_RECORD)
    return int(number) if number.isdecimal() else 0


def _read_page(page: int, body: bytes, *, path: Sequence[str], read: ReadValues) -> Iterator[Entry]:
    try:
        found = value_at(read_json(body), path)
    except ValueError as error:
        yield Entry(page, body[:10_000].decode("utf-8", "replace"), problem="row.malformed", detail=str(error))
        return
    for record in found if isinstance(found, list) else []:
        try:
            entry = Entry(page, record, read(record))
        except UnreadableError as error:
            entry = Entry(page, record, problem=error.code)
        yield entry
