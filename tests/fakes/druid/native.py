"""Native batch ingestion: an index_parallel task reads its input and publishes segments."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.druid.inputs import Reader
from tests.fakes.druid.rows import Dimension, RowRules, Tally, TaskFailedError, columns, printed, stored
from tests.fakes.druid.segments import NoAllocationError, Row, Segment, SegmentStore, schema
from tests.fakes.druid.times import ETERNITY, Interval, chunk_of, chunks, condensed, iso

ROWS_A_SEGMENT = 5_000_000
UNLIMITED = 2**31 - 1


@dataclass
class Interference:
    """Faults that a test wants inside a task."""

    error: str | None = None
    is_after_publishing: bool = False
    reads_nothing: bool = False
    dropped_rows: int = 0
    is_drop_counted: bool = True


@dataclass
class Ingestion:
    """One run of a native task. `lock` is asked for the chunks once they are known, and raises if they are taken."""

    task: Mapping[str, Any]
    store: SegmentStore
    s3: Any = None
    interference: Interference = field(default_factory=Interference)
    check_running: Callable[[], None] = lambda: None
    lock: Callable[[Sequence[Interval]], None] = lambda intervals: None

    def __post_init__(self) -> None:
        spec = self.task["spec"]
        self.schema: Mapping[str, Any] = spec["dataSchema"]
        self.io: Mapping[str, Any] = spec["ioConfig"]
        tuning = spec.get("tuningConfig") or {}
        self.tally = Tally(
            max_errors=0 if tuning.get("reportParseExceptions") else tuning.get("maxParseExceptions", UNLIMITED),
            max_saved=tuning.get("maxSavedParseExceptions", 0),
        )
        partitions = tuning.get("partitionsSpec") or {}
        self.rows_a_segment: int = partitions.get("maxRowsPerSegment") or ROWS_A_SEGMENT
        self.datasource: str = self.schema["dataSource"]
        self.granularity = granularity_of(self.schema)
        self.published_count = 0

    def intervals(self) -> list[Interval] | None:
        """Return the chunks that the task may write, None where it must read its input to know."""
        listed = (self.schema.get("granularitySpec") or {}).get("intervals")
        return chunks(map(Interval.parse, listed), self.granularity) if listed else None

    def run(self) -> None:
        """Read everything, then publish in one step; raises TaskFailedError with nothing published."""
        chunk_list = self.intervals()
        rules = RowRules.of(self.schema, chunks=None if chunk_list is None else list(condensed(chunk_list)))
        if self.interference.error is not None and not self.interference.is_after_publishing:
            raise TaskFailedError(self.interference.error)
        if chunk_list is None:
            self.lock(self._determine(rules))
        rows, dimensions = self._build(rules)
        segments = self._appended(rows, dimensions) if self.io.get("appendToExisting") else None
        if segments is None:
            segments = self._replacing(rows, dimensions, chunk_list)
        self.check_running()
        self.published_count = sum(1 for each in segments if each.rows)
        if segments:
            self.store.publish(self.datasource, segments)
        if self.interference.error is not None:
            raise TaskFailedError(self.interference.error)

    def _reader(self) -> Reader:
        return Reader(self.io["inputSource"], self.io["inputFormat"], s3=self.s3)

    def _determine(self, rules: RowRules) -> list[Interval]:
        reader, counts = self._reader(), self.tally.determine
        found = set()
        for ms, _ in rules.timed(reader, self.tally, counts):
            counts.processed += 1
            found.add(chunk_of(ms, self.granularity))
            self.check_running()
        counts.processedBytes = reader.byte_count
        return sorted(found)

    def _build(self, rules: RowRules) -> tuple[list[Row], list[Dimension]]:
        reader, counts = self._reader(), self.tally.build
        rows: list[Row] = []
        if not self.interference.reads_nothing:
            for ms, record in rules.timed(reader, self.tally, counts):
                counts.processedBytes = reader.byte_count
                self.check_running()
                row, problems = rules.row(ms, record)
                if problems:
                    self.tally.note(counts, "processedWithError", record=printed(record), reasons=problems)
                else:
                    counts.processed += 1
                rows.append(row)
            counts.processedBytes = reader.byte_count
        dropped = min(self.interference.dropped_rows, len(rows))
        if dropped:
            rows = rows[:-dropped]
            if self.interference.is_drop_counted:
                counts.processed -= dropped
                counts.thrownAway += dropped
        return rows, rules.all_dimensions(rows)

    def _appended(self, rows: Iterable[Row], dimensions: Sequence[Dimension]) -> list[Segment]:
        places: dict[Interval, tuple[str | None, int]] = {}
        grouped: dict[Interval, list[Row]] = {}
        for row in rows:
            interval = next((each for each in places if each.holds(row["__time"])), None)
            if interval is None:
                try:
                    interval, version, partition = self.store.allocate(self.datasource, row["__time"], self.granularity)
                except NoAllocationError as error:
                    self.tally.build.processed = 0
                    msg = (
                        "org.apache.druid.java.util.common.ISE: Failed to add a row with"
                        f" timestamp[{iso(row['__time'])}]"
                    )
                    raise TaskFailedError(msg) from error
                places[interval] = version, partition
            grouped.setdefault(interval, []).append(row)
        found = []
        for interval, (version, partition) in places.items():
            found += self._segments(
                interval, version or self.store.next_version(), partition, grouped[interval], dimensions
            )
        return found

    def _replacing(
        self, rows: Iterable[Row], dimensions: Sequence[Dimension], chunk_list: Sequence[Interval] | None
    ) -> list[Segment]:
        grouped: dict[Interval, list[Row]] = {}
        for row in rows:
            grouped.setdefault(self._chunk(row["__time"], chunk_list), []).append(row)
        version = self.store.next_version()
        found = []
        for interval, inside in sorted(grouped.items()):
            found += self._segments(interval, version, 0, inside, dimensions)
        if self.io.get("dropExisting"):
            used = self.store.used(self.datasource)
            kept = {name: kind for name, kind in schema(used).items() if name != "__time"}  # measured: still listed
            for chunk in chunk_list or ():
                if chunk not in grouped and any(each.interval.overlaps(chunk) for each in used):
                    found.append(Segment(self.datasource, chunk, version, 0, kept, ()))
        return found

    def _chunk(self, ms: int, chunk_list: Sequence[Interval] | None) -> Interval:
        if self.granularity == "ALL":
            return next((each for each in chunk_list or () if each.holds(ms)), ETERNITY)
        return chunk_of(ms, self.granularity)

    def _segments(
        self, interval: Interval, version: str, partition: int, rows: Sequence[Row], dimensions: Sequence[Dimension]
    ) -> list[Segment]:
        kinds = columns(rows, dimensions)
        return [
            Segment(self.datasource, interval, version, partition + number, kinds, tuple(stored(part, dimensions)))
            for number, part in enumerate(_parts(rows, self.rows_a_segment))
        ]


@dataclass
class Noop:
    """A task that does nothing, and has used up its id."""

    store: SegmentStore
    datasource: str = "none"
    interference: Interference = field(default_factory=Interference)
    check_running: Callable[[], None] = lambda: None
    lock: Callable[[Sequence[Interval]], None] = lambda intervals: None
    tally: Tally = field(default_factory=lambda: Tally(max_errors=0, max_saved=0))
    published_count: int = 0

    def intervals(self) -> list[Interval] | None:
        """Return nothing: it locks nothing."""
        return None

    def run(self) -> None:
        """Do nothing."""


def granularity_of(schema: Mapping[str, Any]) -> str:
    """Return the name of the segment granularity; DAY without one."""
    found = (schema.get("granularitySpec") or {}).get("segmentGranularity") or "DAY"
    return str(found if isinstance(found, str) else found["type"]).upper()


def _parts(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
