"""Times as Druid has them: milliseconds since 1970, ISO text, intervals and the chunks they fall into."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGINNING, END = -(2**62), 2**62 - 1
_ENDS = {BEGINNING: "-146136543-09-08T08:23:32.096Z", END: "146140482-04-24T15:36:27.903Z"}
_ENDS_BACK = {text: value for value, text in _ENDS.items()}
AFTER_9999, _YEAR_10000 = 253_402_300_800_000, 10_000
"""The only moment of that year that is understood: where the last chunks of the year 9999 end."""
_ISO = re.compile(
    r"(-?\d{4,})(?:-(\d\d?)(?:-(\d\d?))?)?"
    r"(?:T(\d\d?)(?::(\d\d?)(?::(\d\d?)(?:[.,](\d+))?)?)?)?(Z|[+-]\d\d:?\d\d)?$"
)
_PERIOD = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?$")
GRANULARITIES = {
    "ALL": None,
    "YEAR": "P1Y",
    "QUARTER": "P3M",
    "MONTH": "P1M",
    "WEEK": "P1W",
    "DAY": "P1D",
    "EIGHT_HOUR": "PT8H",
    "SIX_HOUR": "PT6H",
    "HOUR": "PT1H",
    "MINUTE": "PT1M",
    "SECOND": "PT1S",
}
"""Names of granularities and their periods, from the coarsest to the finest."""
TOO_MANY_CHUNKS = 3_000_000


class TooManyChunksError(Exception):
    """Intervals that a real Overlord does not survive: it lists the chunks for ever."""


def now_ms() -> int:
    """Return the clock."""
    return (datetime.now(UTC) - EPOCH) // timedelta(milliseconds=1)


def iso(ms: int) -> str:
    """Return milliseconds as Druid prints them."""
    if ms in _ENDS:
        return _ENDS[ms]
    if ms == AFTER_9999:
        return "10000-01-01T00:00:00.000Z"
    moment = EPOCH + timedelta(milliseconds=ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z".rjust(24, "0")


def parse_iso(text: str) -> int:
    """Return the milliseconds of an ISO time; a missing zone is UTC, digits below milliseconds are cut off."""
    if text in _ENDS_BACK:
        return _ENDS_BACK[text]
    found = _ISO.match(text)
    if not found:
        msg = f'Invalid format: "{text}"'
        raise ValueError(msg)
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    if int(year) == _YEAR_10000:
        return AFTER_9999
    moment = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
    moment += timedelta(hours=int(hour or 0), minutes=int(minute or 0), seconds=int(second or 0))
    ms = (moment - EPOCH) // timedelta(milliseconds=1) + int(((fraction or "") + "000")[:3])
    if zone and zone != "Z":
        sign = -1 if zone[0] == "+" else 1
        ms += sign * (int(zone[1:3]) * 60 + int(zone[-2:])) * 60_000
    return ms


def parse_time(value: Any, *, form: str) -> int | None:
    """Return a record's time in milliseconds, None where it cannot be read."""
    try:
        if form in ("iso", "auto") and isinstance(value, str) and not re.fullmatch(r"-?\d+", value):
            return parse_iso(value.replace(" ", "T") if form == "auto" else value)
        if form == "iso":
            return None if isinstance(value, bool) else parse_iso(str(value))
        factor = {"posix": 1000.0, "micro": 0.001, "nano": 0.000001}.get(form, 1.0)
        return None if isinstance(value, bool) else int(float(value) * factor) if factor != 1.0 else int(value)
    except (ValueError, TypeError, OverflowError):
        return None


@dataclass(frozen=True, order=True)
class Interval:
    """A span of time, its end not included."""

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Return the interval of ISO text, with "/" or "_" between its ends, or a period as the second."""
        separator = "/" if "/" in text else "_"
        if separator not in text:
            msg = f"Format requires a '/' separator: {text}"
            raise ValueError(msg)
        first, _, last = text.partition(separator)
        start = parse_iso(first)
        return cls(start, following(start, last) if last.startswith("P") else parse_iso(last))

    def __str__(self) -> str:
        return f"{iso(self.start)}/{iso(self.end)}"

    def holds(self, ms: int) -> bool:
        """Return whether a time is inside."""
        return self.start <= ms < self.end

    def contains(self, other: "Interval") -> bool:
        """Return whether another interval lies inside."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: "Interval") -> bool:
        """Return whether the two share any time."""
        return self.start < other.end and other.start < self.end


ETERNITY = Interval(BEGINNING, END)


def floor(ms: int, period: str) -> int:
    """Return the beginning of the period a time is in; weeks begin on Monday."""
    years, months, weeks, days, *clock = _numbers(period)
    if years or months:
        step = years * 12 + months
        moment = EPOCH + timedelta(milliseconds=ms)
        index = (moment.year * 12 + moment.month - 1) // step * step
        return (datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
    step_ms = _fixed_ms(weeks, days, *clock)
    shift = 4 * 86_400_000 if weeks else 0  # 1970-01-05 was a Monday
    return (ms - shift) // step_ms * step_ms + shift


def following(ms: int, period: str) -> int:
    """Return the time one period later."""
    years, months, weeks, days, *clock = _numbers(period)
    if years or months:
        moment = EPOCH + timedelta(milliseconds=ms)
        index = moment.year * 12 + moment.month - 1 + years * 12 + months
        if index // 12 >= _YEAR_10000:
            return AFTER_9999
        moved = moment.replace(year=index // 12, month=index % 12 + 1)
        return (moved - EPOCH) // timedelta(milliseconds=1)
    return ms + _fixed_ms(weeks, days, *clock)


def chunk_of(ms: int, granularity: str) -> Interval:
    """Return the chunk of a granularity that a time is in."""
    period = GRANULARITIES[granularity]
    if period is None:
        return ETERNITY
    start = floor(ms, period)
    return Interval(start, following(start, period))


def chunks(intervals: Iterable[Interval], granularity: str) -> list[Interval]:
    """Return the chunks that intervals touch; with ALL an interval is its own chunk."""
    if granularity == "ALL":
        return list(condensed(intervals))
    period = GRANULARITIES[granularity] or ""
    found: dict[Interval, None] = {}
    for interval in intervals:
        if interval == ETERNITY:
            raise TooManyChunksError
        start = floor(interval.start, period)
        while start < interval.end:
            end = following(start, period)
            found[Interval(start, end)] = None
            start = end
            if len(found) > TOO_MANY_CHUNKS:
                raise TooManyChunksError
    return sorted(found)


def condensed(intervals: Iterable[Interval]) -> Iterator[Interval]:
    """Yield intervals in order, those that touch as one."""
    open_one: Interval | None = None
    for interval in sorted(intervals):
        if open_one is not None and interval.start <= open_one.end:
            open_one = Interval(open_one.start, max(open_one.end, interval.end))
            continue
        if open_one is not None:
            yield open_one
        open_one = interval
    if open_one is not None:
        yield open_one


def _numbers(period: str) -> list[int]:
    found = _PERIOD.match(period)
    if not found or not any(found.groups()):
        msg = f"no period: {period}"
        raise ValueError(msg)
    return [int(number or 0) for number in found.groups()]


def _fixed_ms(weeks: int, days: int, hours: int, minutes: int, seconds: int) -> int:
    return ((((weeks * 7 + days) * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000
