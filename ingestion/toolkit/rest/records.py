"""Records as they come out of stored pages, one by one, the unreadable ones with their problem."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from ingestion.toolkit.rest.values import as_json, read_json, value_at

FIRST_RECORD = "record="
"""The beginning of the fragment of a page's address; the number of records that came ahead of it follows."""

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


def records_before(url: str) -> int:
    """Return how many records came ahead of a page, as its address says."""
    number = urlsplit(url).fragment.removeprefix(FIRST_RECORD)
    return int(number) if number.isdecimal() else 0


def read_page(page: int, body: bytes, *, path: Sequence[str], read: ReadValues) -> Iterator[Entry]:
    """Yield the records of one response body in order."""
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
