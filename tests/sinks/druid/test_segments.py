"""Ids of segments as the Coordinator lists them."""

from collections.abc import Sequence

import pytest

from sinks.druid.intervals import EVERYTHING, Interval, milliseconds
from sinks.druid.responses import chunks_of, parse_segment
from tests.sinks.druid.support import day, ms

OLD, NEW = "2026-11-25T18:31:57.889Z", "2026-11-25T18:32:00.140Z"


def segment(first: str, last: str, version: str = OLD, number: str = "", *, datasource: str = "a_b") -> str:
    return f"{datasource}_{first}T00:00:00.000Z_{last}T00:00:00.000Z_{version}{number}"


def span(first: str, last: str) -> Interval:
    return milliseconds(first), milliseconds(last)


def test_an_id_names_chunk_and_version_whatever_the_datasource_is_called() -> None:
    found = parse_segment(segment("2026-01-01", "2026-01-02", number="_7"), datasource="a_b")

    assert found is not None
    assert (found.interval, found.version) == ((ms(day(1, 0)), ms(day(2, 0))), OLD)


def test_eternity_is_cut_off_at_what_can_be_said() -> None:
    segment_id = f"a_b_-146136543-09-08T08:23:32.096Z_146140482-04-24T15:36:27.903Z_{OLD}"

    assert chunks_of([segment_id], datasource="a_b") == (EVERYTHING,)


@pytest.mark.parametrize("text", ["", "a_b", "a_b_", "other_2026-01-01_2026-01-02_v", "a_b_2026-01-01_2026-01-02"])
def test_what_is_no_id_of_the_datasource_is_left_out(text: str) -> None:
    assert chunks_of([text], datasource="a_b") == ()


@pytest.mark.parametrize(
    ("ids", "chunks"),
    [
        (
            [segment("2026-01-01", "2026-01-02"), segment("2026-01-01", "2026-01-02", NEW)],
            [span("2026-01-01", "2026-01-02")],
        ),
        # A month under days: the part of it that no day covers is still read.
        (
            [segment("2026-01-01", "2026-02-01"), segment("2026-01-01", "2026-01-02", NEW)],
            [span("2026-01-01", "2026-01-02"), span("2026-01-01", "2026-02-01")],
        ),
        # Days under a month, and under days that together cover all of it.
        (
            [segment("2026-01-01", "2026-01-02"), segment("2026-01-01", "2026-02-01", NEW)],
            [span("2026-01-01", "2026-02-01")],
        ),
        (
            [
                segment("2026-01-01", "2026-01-03"),
                segment("2026-01-01", "2026-01-02", NEW),
                segment("2026-01-02", "2026-01-03", NEW),
            ],
            [span("2026-01-01", "2026-01-02"), span("2026-01-02", "2026-01-03")],
        ),
    ],
)
def test_what_newer_segments_cover_whole_is_no_chunk(ids: Sequence[str], chunks: Sequence[Interval]) -> None:
    assert list(chunks_of(ids, datasource="a_b")) == chunks
