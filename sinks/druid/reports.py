"""What a task's report says became of the rows it was handed. Pure.

processed + processedWithError + unparseable + thrownAway = rows read (a row processed with an error is stored, with
a null in the place of what could not be converted; measured on 33.0.0).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class IngestionCounts:
    """Rows by what became of them; `examples` are lines that name some of the bad ones."""

    processed: int = 0
    with_error: int = 0
    unparseable: int = 0
    thrown_away: int = 0
    examples: tuple[str, ...] = ()

    @property
    def read(self) -> int:
        """Return how many rows the task has read."""
        return self.processed + self.with_error + self.unparseable + self.thrown_away

    @property
    def lost(self) -> int:
        """Return how many of them are not stored as they were sent."""
        return self.with_error + self.unparseable + self.thrown_away


def native_counts(report: Mapping[str, Any] | None) -> IngestionCounts | None:
    """Return the counts of an index_parallel task; None where the report is missing or tells none."""
    payload = ((report or {}).get("ingestionStatsAndErrors") or {}).get("payload") or {}
    stats = payload.get("rowStats") or {}
    # While it runs, and in some versions afterwards too, they stand one level deeper.
    totals = (stats.get("totals") or stats).get("buildSegments")
    if not isinstance(totals, Mapping):
        return None
    return IngestionCounts(
        processed=int(totals.get("processed") or 0),
        with_error=int(totals.get("processedWithError") or 0),
        unparseable=int(totals.get("unparseable") or 0),
        thrown_away=int(totals.get("thrownAway") or 0),
        examples=tuple(_examples(payload)),
    )


def sql_counts(report: Mapping[str, Any] | None) -> IngestionCounts | None:
    """Return the counts of a multi-stage task: the rows that its last stage pushed into segments."""
    payload = ((report or {}).get("multiStageQuery") or {}).get("payload") or {}
    counters = payload.get("counters") or {}
    if not counters:
        return None
    last = counters[max(counters, key=int)]
    pushed = sum(
        int((worker.get("segmentGenerationProgress") or {}).get("rowsPushed") or 0)
        for worker in last.values()
        if isinstance(worker, Mapping)
    )
    return IngestionCounts(processed=pushed)


def _examples(payload: Mapping[str, Any]) -> list[str]:
    found = []
    for event in (payload.get("unparseableEvents") or {}).get("buildSegments") or ():
        if isinstance(event, Mapping):
            details = event.get("details") or ()
            found.append("; ".join(map(str, details))[:200])
    return found[:5]
