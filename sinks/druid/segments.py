"""Segments as the Coordinator lists them: which chunks a datasource has, whatever of it readers see already. Pure.

The Broker reads its list of segments once a minute, and the Coordinator's list holds those, too, that newer ones cover
(for a quarter of an hour and more): so ids are taken apart here, and what is covered is left out.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sinks.druid.intervals import Interval, covers, from_text, merge_intervals

_PARTS = 3


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: the chunk it is for, and the version that decides which of two counts."""

    interval: Interval
    version: str


def parse_segment(segment_id: str, *, datasource: str) -> Segment | None:
    """Return what the id `<datasource>_<start>_<end>_<version>[_<number>]` says, None for another datasource's."""
    rest = segment_id.removeprefix(f"{datasource}_")
    parts = rest.split("_")
    if rest == segment_id or len(parts) < _PARTS:
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
