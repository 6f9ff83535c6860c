"""Druid's responses taken apart: bodies that are empty, text, a web page or not what they say; ids of segments. Pure.

Measured on 33.0.0: plain text under `application/json`, JSON text under no type at all, Jetty's pages for a body that
is no JSON, messages of failed tasks that hold the whole signed address of an input. So nothing is believed before it
was looked at, and every text is freed of secrets before it goes on. The Broker reads its list of segments once a
minute, and the Coordinator's holds those, too, that newer ones cover (for a quarter of an hour and more): so ids are
taken apart here, and what is covered is left out.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from ingestion.ports.context import HttpResponse
from ingestion.toolkit.redact import redact
from sinks.druid.intervals import Interval, covers, from_text, merge_intervals

DETAIL_CHARACTERS = 400
NOTHING_THERE = "No used segment found"
_LONGEST_LOOKED_AT = 1 << 16
_UNKNOWN_OBJECT = re.compile(r"(?:Object|Column) '.*?' not found", re.DOTALL)
_TASK_WORDS = re.compile(r"\btasks?\b", re.IGNORECASE)
_BAD_REQUEST, _NOT_FOUND = 400, 404
_SEGMENT_PARTS = 3


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """Status of a task: RUNNING, SUCCESS or FAILED, and what it said."""

    code: str
    message: str = ""
    duration_ms: int | None = None

    @property
    def is_over(self) -> bool:
        """Return whether it will not change any more."""
        return self.code in ("SUCCESS", "FAILED")


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: the chunk it is for, and the version that decides which of two counts."""

    interval: Interval
    version: str


def json_of(response: HttpResponse) -> Any:
    """Return the body's JSON value; ValueError where it is none, whatever its type says."""
    return orjson.loads(response.body)


def detail_of(response: HttpResponse) -> str:
    """Return what an answer says is wrong, in one line: Druid's message, a line of text, a page's title."""
    body = response.body[:_LONGEST_LOOKED_AT]
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = body.decode("utf-8", "replace")
    if isinstance(found, dict):
        found = found.get("errorMessage") or found.get("error") or ""
    text = str(found).strip()
    if text.startswith("<"):
        _, _, rest = text.partition("<title>")
        text = rest.partition("</title>")[0] or "a web page"
    return first_line(text)


def first_line(text: Any) -> str:
    """Return the first line of a message, short and without secrets."""
    lines = str(text or "").strip().splitlines()
    return redact(lines[0].rstrip())[:DETAIL_CHARACTERS] if lines else ""


def error_code(response: HttpResponse) -> str:
    """Return Druid's own code of an error, or nothing."""
    try:
        found = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return ""
    return str(found.get("errorCode", "")) if isinstance(found, dict) else ""


def is_unknown_object(response: HttpResponse) -> bool:
    """Return whether the Broker refuses a question because it does not know the table or column (yet).

    Only its own words count: "404 page not found" of a proxy must not be taken for a datasource without rows.
    """
    if response.status != _BAD_REQUEST:
        return False
    try:
        found = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and bool(_UNKNOWN_OBJECT.search(str(found.get("errorMessage") or "")))


def is_unknown_task(response: HttpResponse) -> bool:
    """Return whether the Overlord says that there is no such task or report; no page and no proxy's word counts."""
    if response.status != _NOT_FOUND or response.body.lstrip().startswith(b"<"):
        return False
    return bool(_TASK_WORDS.search(response.body[:_LONGEST_LOOKED_AT].decode("utf-8", "replace")))


def status_of(found: Any) -> TaskStatus:
    """Return what an answer says of a task."""
    # Of a finished task runnerStatusCode still says WAITING, so only this one is looked at.
    about: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    code = str(about.get("statusCode") or about.get("status") or "RUNNING")
    duration = about.get("duration")
    return TaskStatus(code, first_line(about.get("errorMsg")), duration if isinstance(duration, int) else None)


def date_of(response: HttpResponse) -> datetime | None:
    """Return what the answer's machine takes for the time, or None."""
    try:
        found = parsedate_to_datetime(response.headers.get("date", ""))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def parse_segment(segment_id: str, *, datasource: str) -> Segment | None:
    """Return what the id `<datasource>_<start>_<end>_<version>[_<number>]` says, None for another datasource's."""
    rest = segment_id.removeprefix(f"{datasource}_")
    parts = rest.split("_")
    if rest == segment_id or len(parts) < _SEGMENT_PARTS:
        return None
    return Segment(from_text(parts[0], parts[1]), parts[2])


def chunks_of(segment_ids: Iterable[str], *, datasource: str) -> tuple[Interval, ...]:
    """Return the intervals of the segments that no newer ones cover whole, in order."""
    found = {parse_segment(segment_id, datasource=datasource) for segment_id in segment_ids}
    by_version: dict[str, list[Interval]] = {}
    for segment in found - {None}:
        assert segment is not None  # noqa: S101 (just taken out)
        by_version.setdefault(segment.version, []).append(segment.interval)
    kept: set[Interval] = set()
    newer: list[Interval] = []
    for _, intervals in sorted(by_version.items(), reverse=True):
        kept.update(interval for interval in intervals if not covers(newer, interval))
        newer = merge_intervals([*newer, *intervals])
    return tuple(sorted(kept))
