"""The published segments: which rows count, what a reader sees of them, and when."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.druid.times import GRANULARITIES, Interval, chunk_of, condensed, iso, now_ms
from tests.fakes.druid.values import merged_type

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Segment:
    """Rows of one chunk, published together; one without rows is a tombstone."""

    datasource: str
    interval: Interval
    version: str
    partition: int
    columns: Mapping[str, str]
    rows: Sequence[Row]

    @property
    def segment_id(self) -> str:
        """Return the id as Druid composes it."""
        ends = f"{iso(self.interval.start)}_{iso(self.interval.end)}"
        return f"{self.datasource}_{ends}_{self.version}" + (f"_{self.partition}" if self.partition else "")

    @property
    def size(self) -> int:
        """Return a size in bytes that grows with the rows."""
        return 1 if not self.rows else 1500 + 100 * len(self.rows)


@dataclass
class _Datasource:
    used: list[Segment] = field(default_factory=list)
    overshadowed: list[Segment] = field(default_factory=list)
    seen: list[Segment] = field(default_factory=list)
    looks_to_load: int | None = 0
    looks_to_see: int = 0


class NoAllocationError(Exception):
    """An append finds a chunk that is coarser than its own."""


class SegmentStore:
    """The metadata store, the Historical and the Broker's list of segments in one; thread-safe.

    What is published is loaded after `looks_to_load` questions for the load status (None: never) and seen by queries
    after `looks_to_see` further queries; with both 0 at once.
    """

    def __init__(self) -> None:
        self.looks_to_load: int | None = 0
        self.looks_to_see = 0
        self.hidden_looks = 0
        self._stale_list: dict[str, list[Segment]] | None = None
        self._datasources: dict[str, _Datasource] = {}
        self._lock = threading.RLock()
        self._last_version = 0

    def next_version(self) -> str:
        """Return a version newer than all before."""
        with self._lock:
            self._last_version = max(now_ms(), self._last_version + 1)
            return iso(self._last_version)

    def names(self) -> list[str]:
        """Return the datasources that have published segments."""
        with self._lock:
            return sorted(name for name, each in self._datasources.items() if each.used)

    def used(self, datasource: str) -> list[Segment]:
        """Return the published segments."""
        with self._lock:
            return list(self._datasources[datasource].used) if datasource in self._datasources else []

    def keep_list(self) -> None:
        """Let the Broker's list of segments stay as it is now; the real one reads it anew once a minute."""
        with self._lock:
            self._stale_list = {name: each.used for name, each in self._datasources.items()}

    def in_list(self) -> dict[str, list[Segment]]:
        """Return by datasource the segments that the Broker lists."""
        with self._lock:
            if self._stale_list is not None:
                return self._stale_list
            return {name: self._datasources[name].used for name in self.names()}

    def listed(self, datasource: str) -> list[Segment]:
        """Return the published segments with those that newer ones cover: the real one forgets them minutes later."""
        with self._lock:
            found = self._datasources.get(datasource, _Datasource())
            return [*found.used, *found.overshadowed]

    def publish(self, datasource: str, segments: Iterable[Segment]) -> None:
        """Add segments in one step; what they cover whole is not read any more."""
        with self._lock:
            found = self._datasources.setdefault(datasource, _Datasource())
            self._change(found, [*found.used, *found.overshadowed, *segments])

    def mark_unused(self, datasource: str, which: Callable[[Segment], bool]) -> int:
        """Take the chosen segments out of use; return how many. What they covered is read again (measured)."""
        with self._lock:
            listed = self.listed(datasource)
            kept = [each for each in listed if not which(each)]
            if len(kept) < len(listed):
                self._change(self._datasources[datasource], kept)
            return len(listed) - len(kept)

    def _change(self, found: _Datasource, listed: list[Segment]) -> None:
        used = [each for each in listed if not is_overshadowed(each, listed)]
        added = set(used) - set(found.seen)
        found.used, found.overshadowed = used, [each for each in listed if each not in set(used)]
        found.looks_to_load = self.looks_to_load if added else 0
        found.looks_to_see = self.looks_to_see
        self._settle(found)

    def _settle(self, found: _Datasource) -> None:
        if found.looks_to_load == 0 and found.looks_to_see == 0:
            found.seen = list(found.used)

    def allocate(self, datasource: str, ms: int, granularity: str) -> tuple[Interval, str | None, int]:
        """Return where an appended row goes: interval, version of what is there (None: nothing), next partition."""
        with self._lock:
            used = self.used(datasource)
            wanted = chunk_of(ms, granularity)
            there = [each for each in used if each.interval.holds(ms)]
            if there:
                newest = max(there, key=lambda each: each.version)
                if not wanted.contains(newest.interval):
                    raise NoAllocationError
                same = [each for each in there if each.version == newest.version]
                return newest.interval, newest.version, 1 + max(each.partition for each in same)
            names = [each for each in GRANULARITIES if each != "WEEK" or granularity == "WEEK"]
            for finer in names[names.index(granularity) :]:
                chunk = chunk_of(ms, finer)
                if not any(each.interval.overlaps(chunk) for each in used):
                    return chunk, None, 0
            raise NoAllocationError

    def look_for_loading(self, datasource: str, interval: Interval) -> int | None:
        """Return how many segments are not loaded yet, None without any in the interval; counts as a look."""
        with self._lock:
            if datasource not in self._datasources or not self._datasources[datasource].used:
                return None
            found = self._datasources[datasource]
            inside = [each for each in found.used if each.interval.overlaps(interval)]
            if not inside:
                return None
            if found.looks_to_load == 0:
                return 0
            missing = sum(1 for each in inside if each not in found.seen)
            if found.looks_to_load is not None:
                found.looks_to_load -= 1
                self._settle(found)
            return missing

    def is_hidden(self) -> bool:
        """Return whether this question for the load status is one of those that find nothing."""
        with self._lock:
            if self.hidden_looks > 0:
                self.hidden_looks -= 1
                return True
            return False

    def is_loaded(self, segment: Segment) -> bool:
        """Return whether a Historical has the segment."""
        with self._lock:
            found = self._datasources[segment.datasource]
            return found.looks_to_load == 0 or segment in found.seen

    def finish_loading(self) -> None:
        """Load what is still to load, whatever was asked for before."""
        with self._lock:
            for found in self._datasources.values():
                found.looks_to_load = 0
                found.looks_to_see = 0
                self._settle(found)

    def seen(self, datasource: str, *, counted: bool = True) -> list[Segment]:
        """Return the segments a query reads; `counted`: this is one of the queries that may still see the old ones."""
        with self._lock:
            if datasource not in self._datasources:
                return []
            found = self._datasources[datasource]
            seen = list(found.seen)
            if counted and found.looks_to_load == 0 and found.looks_to_see > 0:
                found.looks_to_see -= 1
                self._settle(found)
            return seen

    def known(self) -> list[str]:
        """Return the datasources a query can name."""
        with self._lock:
            return sorted(name for name, each in self._datasources.items() if each.seen)


def is_overshadowed(segment: Segment, among: Iterable[Segment]) -> bool:
    """Return whether newer segments cover the whole of one."""
    newer = [each.interval for each in among if each.version > segment.version]
    return any(each.contains(segment.interval) for each in condensed(newer))


def visible_rows(segments: Sequence[Segment]) -> list[tuple[Segment, list[Row]]]:
    """Return the segments in order of time with those of their rows that no newer segment hides."""
    found = []
    for segment in sorted(segments, key=lambda each: (each.interval, each.partition)):
        newer = [
            each.interval
            for each in segments
            if each.version > segment.version and each.interval.overlaps(segment.interval)
        ]
        hidden = list(condensed(newer))
        rows = [row for row in segment.rows if not any(each.holds(row["__time"]) for each in hidden)]
        found.append((segment, rows if hidden else list(segment.rows)))
    return found


def schema(segments: Iterable[Segment]) -> dict[str, str]:
    """Return the columns of a datasource and their SQL types; the latest segment's come first."""
    found: dict[str, set[str]] = {"__time": {"TIMESTAMP"}}
    for segment in sorted(segments, key=lambda each: each.interval.start, reverse=True):
        for name, kind in segment.columns.items():
            found.setdefault(name, set()).add(kind)
    return {name: merged_type(kinds) for name, kinds in found.items()}
