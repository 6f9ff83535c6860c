"""What a task's report says became of the rows it was handed. Pure.

processed + processedWithError + unparseable + thrownAway = rows read (a row processed with an error is stored, with
a null in the place of what could not be converted; measured on 33.0.0).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingestion.toolkit.redact import redact


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
    payload = _inside(report, "ingestionStatsAndErrors", "payload")
    stats = _inside(payload, "rowStats")
    # While it runs, and in some versions afterwards too, they stand one level deeper.
    totals = _inside(stats, "totals", "buildSegments") or _inside(stats, "buildSegments")
    if "processed" not in totals:
        return None
    return IngestionCounts(
        processed=_number(totals, "processed"),
        with_error=_number(totals, "processedWithError"),
        unparseable=_number(totals, "unparseable"),
        thrown_away=_number(totals, "thrownAway"),
        examples=tuple(_examples(payload)),
    )


def sql_counts(report: Mapping[str, Any] | None) -> IngestionCounts | None:
    """Return the counts of a multi-stage task: the rows that its last stage pushed into segments."""
    counters = _inside(report, "multiStageQuery", "payload", "counters")
    stages = [stage for stage in counters if stage.isdecimal()]
    if not stages:
        return None
    last = _inside(counters, max(stages, key=int))
    return IngestionCounts(
        processed=sum(_number(_inside(last, worker, "segmentGenerationProgress"), "rowsPushed") for worker in last)
    )


def _examples(payload: Mapping[str, Any]) -> list[str]:
    found = []
    events = _inside(payload, "unparseableEvents").get("buildSegments")
    for event in events if isinstance(events, list) else ():
        details = event.get("details") if isinstance(event, Mapping) else None
        if isinstance(details, list):
            found.append(redact("; ".join(map(str, details)))[:200])
    return found[:5]


def _inside(value: Any, *names: str) -> Mapping[str, Any]:
    """Return what lies under these names one in another; nothing where any of them is not there or no object."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _number(counts: Mapping[str, Any], name: str) -> int:
    found = counts.get(name)
    return int(found) if isinstance(found, int | float) else 0
