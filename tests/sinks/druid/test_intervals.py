"""Time chunks over all of the years 1 to 9999."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.druid.config import Granularity
from sinks.druid.intervals import (
    EVERYTHING,
    FIRST_MS,
    LAST_MS,
    MOST_LISTED_CHUNKS,
    ORDER,
    as_text,
    choose_granularity,
    chunk_of,
    covers,
    from_text,
    granularity_of,
    listable,
    merge_intervals,
    milliseconds,
    widen,
)

DAY_MS = 86_400_000
TIMESTAMPS = st.integers(FIRST_MS, LAST_MS - 1)
GRANULARITIES = st.sampled_from(ORDER)
INTERVALS = st.tuples(TIMESTAMPS, TIMESTAMPS).map(lambda ends: (min(ends), max(ends) + 1))


@given(TIMESTAMPS, GRANULARITIES)
def test_every_moment_lies_in_its_chunk(at_ms: int, granularity: Granularity) -> None:
    start, end = chunk_of(at_ms, granularity)

    assert FIRST_MS <= start <= at_ms < end <= LAST_MS


@given(TIMESTAMPS, GRANULARITIES)
def test_the_chunks_tile_time(at_ms: int, granularity: Granularity) -> None:
    start, end = chunk_of(at_ms, granularity)

    assert chunk_of(start, granularity) == chunk_of(end - 1, granularity) == (start, end)
    if end < LAST_MS:
        assert chunk_of(end, granularity)[0] == end
    if start > FIRST_MS:
        assert chunk_of(start - 1, granularity)[1] == start


@given(TIMESTAMPS)
def test_a_coarser_chunk_holds_the_finer_ones_whole(at_ms: int) -> None:
    chunks = [chunk_of(at_ms, granularity) for granularity in ORDER]

    for finer, coarser in zip(chunks, chunks[1:], strict=False):
        assert covers([coarser], finer)


@given(TIMESTAMPS, GRANULARITIES)
def test_a_chunk_is_what_the_calendar_says(at_ms: int, granularity: Granularity) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    begin = {
        Granularity.HOUR: at.replace(minute=0, second=0, microsecond=0),
        Granularity.DAY: at.replace(hour=0, minute=0, second=0, microsecond=0),
        Granularity.MONTH: datetime(at.year, at.month, 1, tzinfo=UTC),
        Granularity.YEAR: datetime(at.year, 1, 1, tzinfo=UTC),
    }[granularity]

    assert chunk_of(at_ms, granularity)[0] == milliseconds(begin.isoformat())


@given(INTERVALS)
def test_text_comes_back_as_the_interval(interval: tuple[int, int]) -> None:
    start, end = as_text(interval).split("/")

    assert (len(start), len(end) in (24, 25)) == (24, True)
    assert from_text(start, end) == interval


def test_the_ends_of_time_are_the_years_1_and_9999() -> None:
    assert as_text(EVERYTHING) == "0001-01-01T00:00:00.000Z/10000-01-01T00:00:00.000Z"
    assert from_text("-146136543-09-08T08:23:32.096Z", "146140482-04-24T15:36:27.903Z") == EVERYTHING


@pytest.mark.parametrize("beyond", [(FIRST_MS - 1, 0), (0, LAST_MS + 1)])
def test_what_lies_beyond_has_no_text(beyond: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="outside of the years 1 to 9999"):
        as_text(beyond)


@given(st.lists(INTERVALS, max_size=8), TIMESTAMPS)
def test_joined_intervals_hold_the_same_moments_and_never_touch(intervals: list[tuple[int, int]], at_ms: int) -> None:
    merged = merge_intervals(intervals)

    assert any(a <= at_ms < b for a, b in merged) == any(a <= at_ms < b for a, b in intervals)
    assert all(before[1] < after[0] for before, after in zip(merged, merged[1:], strict=False))
    assert all(covers(merged, interval) for interval in intervals)


@given(INTERVALS, GRANULARITIES)
def test_a_widened_interval_is_whole_chunks_around_it(interval: tuple[int, int], granularity: Granularity) -> None:
    start, end = widen(interval, granularity)

    assert start <= interval[0]
    assert interval[1] <= end
    assert widen((start, end), granularity) == (start, end)


@given(TIMESTAMPS, TIMESTAMPS)
def test_the_chosen_granularity_makes_no_more_than_400_days_or_months(one: int, other: int) -> None:
    first, last = sorted((one, other))

    chosen = choose_granularity(first, last)

    if chosen is not Granularity.YEAR:
        begin, end = widen((first, last + 1), chosen)
        shortest_ms = DAY_MS if chosen is Granularity.DAY else 28 * DAY_MS
        assert (end - begin) // shortest_ms <= 400 * (1 if chosen is Granularity.DAY else 31 / 28) + 1


def test_midnight_between_two_moments_makes_two_chunks() -> None:
    first = milliseconds("2025-01-01T23:59:59.999+00:00")

    assert choose_granularity(first, first + 399 * DAY_MS) is Granularity.DAY
    assert choose_granularity(first, first + 1 + 399 * DAY_MS) is Granularity.MONTH


@pytest.mark.parametrize(
    ("asked", "years", "given"),
    [
        (Granularity.HOUR, 1, Granularity.HOUR),
        (Granularity.HOUR, 100, Granularity.DAY),
        (Granularity.DAY, 100, Granularity.DAY),
        (Granularity.DAY, 1000, Granularity.MONTH),
        (Granularity.DAY, 9000, Granularity.YEAR),
        (Granularity.YEAR, 9000, Granularity.YEAR),
    ],
)
def test_a_far_off_moment_makes_the_chunks_longer(asked: Granularity, years: int, given: Granularity) -> None:
    assert listable(asked, [(0, 1), (0, years * 365 * DAY_MS)]) is given


@given(st.lists(INTERVALS, min_size=1, max_size=5), GRANULARITIES)
def test_what_is_listed_can_be_listed(intervals: list[tuple[int, int]], granularity: Granularity) -> None:
    chosen = listable(granularity, intervals)

    chunks = sum((end - start) / (DAY_MS * 365) for start, end in merge_intervals(intervals))
    assert ORDER.index(chosen) >= ORDER.index(granularity)
    assert {
        Granularity.HOUR: 8760,
        Granularity.DAY: 365,
        Granularity.MONTH: 11.7,
        Granularity.YEAR: 1,
    }[chosen] * chunks <= 1.05 * MOST_LISTED_CHUNKS + 2


@pytest.mark.parametrize(
    ("asked", "days", "given"),
    [
        (Granularity.HOUR, [1] * 40, Granularity.HOUR),
        (Granularity.HOUR, [365], Granularity.DAY),
        (Granularity.DAY, [365, 365], Granularity.DAY),
        (Granularity.DAY, [365] * 10, Granularity.MONTH),
        (Granularity.DAY, [1] * 5000, Granularity.DAY),
        (Granularity.MONTH, [365] * 200, Granularity.YEAR),
    ],
)
def test_long_chunks_are_not_cut_into_thousands_of_pieces(
    asked: Granularity, days: list[int], given: Granularity
) -> None:
    ends = [sum(days[: place + 1]) * DAY_MS for place in range(len(days))]
    there = [(end - length * DAY_MS, end) for length, end in zip(days, ends, strict=True)]

    assert listable(asked, there, replaced=there) is given


@pytest.mark.parametrize(
    ("lengths", "granularity"),
    [
        ([], None),
        ([1], Granularity.HOUR),
        ([3_600_000], Granularity.HOUR),
        ([3_600_000, DAY_MS], Granularity.DAY),
        ([7 * DAY_MS], Granularity.MONTH),
        ([31 * DAY_MS], Granularity.MONTH),
        ([366 * DAY_MS], Granularity.YEAR),
        ([LAST_MS - FIRST_MS], Granularity.YEAR),
    ],
)
def test_a_load_takes_the_coarsest_granularity_that_is_there(
    lengths: list[int], granularity: Granularity | None
) -> None:
    assert granularity_of((FIRST_MS, FIRST_MS + length) for length in lengths) is granularity


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-01-02T03:04:05.678901+00:00", 1_767_323_045_678),
        ("1969-12-31T23:59:59.999999+00:00", -1),
        ("0001-01-01T00:00:00+00:00", FIRST_MS),
        ("2026-01-01T00:00:00.290000+00:00", 1_767_225_600_290),
        ("2026-01-01", 1_767_225_600_000),
    ],
)
def test_a_moment_is_read_exactly(text: str, found: int) -> None:
    assert milliseconds(text) == found
