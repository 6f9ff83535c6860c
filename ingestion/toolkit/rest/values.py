"""Values as JSON answers write them, and as our columns hold them."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

_LONE_SURROGATE = re.compile(
    r"\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f][0-9a-f]{2})|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2}", re.IGNORECASE
)


def read_json(body: bytes) -> Any:
    """Return the JSON value of a body; ValueError where it is none.

    NaN and Infinity, which some hand-written servers send, are read as null (unknown), and half a surrogate pair
    as the replacement character: one odd value must not cost the whole page.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            text = _LONE_SURROGATE.sub(r"\\ufffd", body.decode("utf-8-sig"))
            return json.loads(text, parse_constant=lambda _: None)
        except RecursionError:
            msg = "the JSON is nested too deeply"
            raise ValueError(msg) from error


def value_at(document: Any, path: Sequence[str]) -> Any:
    """Return what stands in the document under these names, one inside the other; None where nothing does."""
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def read_time(value: Any) -> datetime | None:
    """Return the UTC time of an RFC 3339 text (zone missing: UTC; a blank for the T is accepted), or None."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value.strip())
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def time_text(value: datetime) -> str:
    """Return a UTC time as "2019-06-08T05:13:37.331000Z", so that text order is time order."""
    return value.isoformat(timespec="microseconds").replace("+00:00", "Z")


def utc_text(value: Any) -> str | None:
    """Return a time as `time_text` writes it; naive times are UTC.

    Anything else is returned as it stands: the contract rejects that row by column and value.
    """
    found = read_time(value)
    return as_text(value) if found is None else time_text(found)


def as_text(value: Any) -> str | None:
    """Return text as it is, and any other value but null as its JSON."""
    return value if value is None or isinstance(value, str) else as_json(value)


def as_json_or_null(value: Any) -> str | None:
    """Return the value's JSON; null stays null."""
    return None if value is None else as_json(value)


def as_json(value: Any) -> str:
    """Return the value's JSON, integers of any size included."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # integers beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
