"""Time chunks: the pieces of time that Druid replaces as a whole. Pure; all times are milliseconds UTC.

Intervals are half open, [start, end). Findings on a real 33.0.0: an append of a finer granularity than what is there
fails, one of a coarser goes into the chunks there are; a replacement takes whole chunks of its own granularity; with
eternity and any finite granularity the Overlord never answers again.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from sinks.druid.config import Granularity

Interval: TypeAlias = tuple[int, int]

ORDER = (Granularity.HOUR, Granularity.DAY, Granularity.MONTH, Granularity.YEAR)
"""From the finest to the coarsest."""
FIRST_MS = int(datetime(1, 1, 1, tzinfo=UTC).timestamp() * 1000)
LAST_MS = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp() * 1000) + 1000
_LENGTHS_H = {Granularity.HOUR: 1, Granularity.DAY: 24, Granularity.MONTH: 31 * 24}
_HOUR_MS = 3_600_000
_MOST_CHUNKS = 400
"""A segment needs a file and memory; a thousand chunks of one row each took a task 7.5 s (measured)."""
_LAST_YEAR, _LAST_MONTH = 9999, 12


def chunk_of(at_ms: int, granularity: Granularity) -> Interval:
    """Return the chunk that the moment lies in."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    match granularity:
        case Granularity.HOUR:
            start = at_ms - at_ms % _HOUR_MS
            return start, start + _HOUR_MS
        case Granularity.DAY:
            start = at_ms - at_ms % (24 * _HOUR_MS)
            return start, start + 24 * _HOUR_MS
        case Granularity.MONTH:
            return _ms(at.year, at.month), _ms(at.year + at.month // 12, at.month % 12 + 1)
        case _:
            return _ms(at.year, 1), _ms(at.year + 1, 1)


def widen(interval: Interval, granularity: Granularity) -> Interval:
    """Return the whole chunks that the interval lies in."""
    start, end = interval
    return chunk_of(start, granularity)[0], chunk_of(max(start, end - 1), granularity)[1]


def merge_intervals(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the intervals in order, those that touch joined."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def choose_granularity(first_ms: int, last_ms: int) -> Granularity:
    """Return the finest of day, month and year with at most 400 chunks between the two moments."""
    days = (last_ms - first_ms) // (24 * _HOUR_MS) + 1
    if days <= _MOST_CHUNKS:
        return Granularity.DAY
    return Granularity.MONTH if days // 28 <= _MOST_CHUNKS else Granularity.YEAR


def granularity_of(intervals: Iterable[Interval]) -> Granularity | None:
    """Return the coarsest granularity among segments that are there, or None where there are none.

    A load of that granularity fits in everywhere: an append goes into the chunks there are.
    """
    lengths = [-(-(end - start) // _HOUR_MS) for start, end in intervals]
    if not lengths:
        return None
    longest = max(lengths)
    return next((found for found, limit in _LENGTHS_H.items() if longest <= limit), Granularity.YEAR)


def as_text(interval: Interval) -> str:
    """Return the interval as Druid reads it; ValueError outside of the years 1 to 9999, where Druid may hang."""
    return "/".join(_iso(at) for at in interval)


def from_text(start: str, end: str) -> Interval:
    """Return the interval between two ISO moments, cut off at the years 1 and 9999 (eternity lies beyond)."""
    return _moment(start, FIRST_MS), _moment(end, LAST_MS)


def covers(intervals: Sequence[Interval], interval: Interval) -> bool:
    """Return whether one of the (merged) intervals holds all of the other."""
    return any(start <= interval[0] and interval[1] <= end for start, end in intervals)


def _moment(text: str, beyond: int) -> int:
    try:
        return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
    except (ValueError, OverflowError):
        return beyond


def _iso(at_ms: int) -> str:
    if not FIRST_MS <= at_ms <= LAST_MS:
        msg = f"{at_ms} lies outside of the years 1 to 9999"
        raise ValueError(msg)
    if at_ms == LAST_MS:
        return "10000-01-01T00:00:00.000Z"
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z".rjust(24, "0")


def _ms(year: int, month: int) -> int:
    if year > _LAST_YEAR:
        return LAST_MS
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp() * 1000)
