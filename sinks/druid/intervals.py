"""Time chunks: the pieces of time that Druid replaces as a whole. Pure; all times are milliseconds UTC.

Intervals are half open, [start, end). Findings on a real 33.0.0: an append of a finer granularity than what is there
fails, one of a coarser goes into the chunks there are; a replacement takes whole chunks of its own granularity; the
Overlord lists every chunk of the intervals it is given (2,000 years of days took it 2 s), and with eternity and any
finite granularity it never answers again.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from sinks.druid.config import Granularity

Interval: TypeAlias = tuple[int, int]

ORDER = (Granularity.HOUR, Granularity.DAY, Granularity.MONTH, Granularity.YEAR)
"""From the finest to the coarsest."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MS = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
LAST_MS = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1) + 86_400_000
EVERYTHING: Interval = (FIRST_MS, LAST_MS)
MOST_LISTED_CHUNKS = 100_000
"""More chunks than this in one load are asked for by a coarser granularity: days over 270 years, hours over 11."""
MOST_PIECES = 1_000
"""A year replaced by hours left 8,760 empty segments, which were not served after a minute (measured)."""
_LENGTHS_H = {Granularity.HOUR: 1, Granularity.DAY: 24, Granularity.MONTH: 31 * 24}
_HOUR_MS = 3_600_000
_MOST_CHUNKS = 400
"""A segment needs a file and memory; a thousand chunks of one row each took a task 7.5 s (measured)."""
_LAST_YEAR = 9999


def milliseconds(moment: str) -> int:
    """Return an ISO moment in milliseconds since 1970, exactly; one without a zone is UTC."""
    at = datetime.fromisoformat(moment)
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)


def chunk_of(at_ms: int, granularity: Granularity) -> Interval:
    """Return the chunk that the moment lies in."""
    at = _at(at_ms)
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
    days = last_ms // (24 * _HOUR_MS) - first_ms // (24 * _HOUR_MS) + 1
    if days <= _MOST_CHUNKS:
        return Granularity.DAY
    months = 12 * (_at(last_ms).year - _at(first_ms).year) + _at(last_ms).month - _at(first_ms).month + 1
    return Granularity.MONTH if months <= _MOST_CHUNKS else Granularity.YEAR


def listable(
    granularity: Granularity, intervals: Iterable[Interval], *, replaced: Iterable[Interval] = ()
) -> Granularity:
    """Return the granularity, or the finest coarser one of which the intervals hold chunks that can be listed.

    `replaced` are the chunks that are there: longer ones leave a piece, empty, for each of their finer chunks.
    """
    length_ms = sum(end - start for start, end in merge_intervals(intervals))
    there = [end - start for start, end in replaced]
    for found in ORDER[ORDER.index(granularity) : -1]:
        chunk_ms = _LENGTHS_H[found] * _HOUR_MS
        pieces = sum(long_ms // chunk_ms for long_ms in there if long_ms > chunk_ms)
        if length_ms // chunk_ms <= MOST_LISTED_CHUNKS and pieces <= MOST_PIECES:
            return found
    return Granularity.YEAR


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
    return _timestamp(start, FIRST_MS), _timestamp(end, LAST_MS)


def covers(intervals: Sequence[Interval], interval: Interval) -> bool:
    """Return whether one of the (merged) intervals holds all of the other."""
    return any(start <= interval[0] and interval[1] <= end for start, end in intervals)


def _timestamp(text: str, beyond: int) -> int:
    try:
        return milliseconds(text)
    except (ValueError, OverflowError):
        return beyond


def _iso(at_ms: int) -> str:
    if not FIRST_MS <= at_ms <= LAST_MS:
        msg = f"{at_ms} lies outside of the years 1 to 9999"
        raise ValueError(msg)
    if at_ms == LAST_MS:
        return "10000-01-01T00:00:00.000Z"
    at = _at(at_ms)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z".rjust(24, "0")


def _ms(year: int, month: int) -> int:
    if year > _LAST_YEAR:
        return LAST_MS
    return (datetime(year, month, 1, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


def _at(at_ms: int) -> datetime:
    return _EPOCH + timedelta(seconds=at_ms // 1000)
