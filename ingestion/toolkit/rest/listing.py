"""One answer of a listing: its records counted and told apart, and what it says of those still to come. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingestion.ports.context import HttpResponse
from ingestion.toolkit.http.errors import bad_content, expect_json
from ingestion.toolkit.rest.values import as_json, read_json, value_at


@dataclass(frozen=True, slots=True)
class Listing:
    """One answer of a listing, as far as walking needs it; `ids` tell its records from those of other pages."""

    response: HttpResponse
    document: Any
    record_count: int
    ids: tuple[str, ...]
    total: int | None = None
    has_more: bool | None = None
    messages: tuple[str, ...] = ()


def read_listing(
    response: HttpResponse, *, records: Sequence[str] = (), key: str = "id", total: Sequence[str] | None = None
) -> Listing:
    """Return the listing in an answer whose records stand as a list under the names `records`, one inside the other.

    SourceChanged where no list stands there. A total of the wrong type counts as not given; a record without `key` is
    told from others by its content.
    """
    document = read_document(response)
    found = value_at(document, records)
    if not isinstance(found, list):
        raise bad_content(response, found="JSON without a list of records", expected=f"a list {'.'.join(records)}")
    ids = (record.get(key) if isinstance(record, dict) else None for record in found)
    named = tuple(as_json(record) if name is None else str(name) for name, record in zip(ids, found, strict=True))
    counted = None if total is None else as_count(value_at(document, total))
    return Listing(response, document, len(found), named, counted)


def read_document(response: HttpResponse) -> Any:
    """Return the JSON value of an answer; SourceChanged or SourceUnavailable where it is none."""
    try:
        return read_json(response.body)
    except ValueError:
        return expect_json(response)


def as_count(value: Any) -> int | None:
    """Return a number of records, or None where the value is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
