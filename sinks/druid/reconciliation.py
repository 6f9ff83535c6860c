"""Reconciliation of the rows that were handed over with those that are there: by the task's report, and by readers' answers.

processed + processedWithError + unparseable + thrownAway = rows read (a row processed with an error is stored, with
a null in the place of what could not be converted; measured on 33.0.0).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingestion.ports.errors import SinkRejected
from ingestion.toolkit.redact import redact
from sinks.druid.client import DruidClient, UnknownObjectError
from sinks.druid.datasource_state import null_counts
from sinks.druid.state import Load


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


@dataclass(frozen=True, slots=True)
class Shortage:
    """Rows that a task did not store as they were handed over: the error that says so, and how many it did store."""

    error: SinkRejected
    stored: int


def shortage_of(report: Mapping[str, Any] | None, load: Load, *, destination: str) -> Shortage | None:
    """Return what a task's report says is missing of the rows it was handed; None where it misses none, or says nothing.

    SUCCESS with rows thrown away, unread or changed is no success. Pure.
    """
    counts, handed = ingestion_counts(report), load.handed
    if counts is None or _balance(counts, handed):
        return None
    words = [
        f"{number} {name}"
        for name, number in (
            ("could not be parsed", counts.unparseable),
            ("had a value that does not fit its column", counts.with_error),
            ("were thrown away, outside of the intervals", counts.thrown_away),
            ("were never read", handed - counts.read),
            ("were read that nobody sent", counts.read - handed),
        )
        if number > 0
    ]
    error = SinkRejected(
        "sink.rows_lost",
        destination=destination,
        stage="ingestion",
        handed=handed,
        short=handed - counts.processed,
        detail=", ".join(words) + (f" ({counts.examples[0]})" if counts.examples else ""),
    )
    return Shortage(error, stored=counts.processed + counts.with_error)


def _balance(counts: IngestionCounts, handed: int) -> bool:
    if not handed:
        # A load that empties chunks reads one row that lies outside of them.
        return counts.processed == counts.with_error == 0
    return counts.read == handed and not counts.lost


def null_mismatch(client: DruidClient, load: Load, *, run_id: int) -> str:
    """Return which columns show readers other nulls than were sent in the run's rows; "" where none does."""
    if not load.nulls:
        return ""
    try:
        found = null_counts(client, load.datasource, run_id, list(load.nulls))
    except UnknownObjectError:
        return "the Broker does not know all columns yet"
    wrong = [
        f"column {name} has {found[name]} nulls instead of {count}"
        for name, count in load.nulls.items()
        if found[name] != count
    ]
    return "; ".join(wrong[:5])


def ingestion_counts(report: Mapping[str, Any] | None) -> IngestionCounts | None:
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
