"""Whether the rows that were handed over are the rows that are there: by the task's report, and by readers' answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingestion.ports.errors import SinkRejected
from sinks.druid.client import DruidClient, UnknownObjectError
from sinks.druid.planning import SQL_PREFIX
from sinks.druid.questions import null_counts
from sinks.druid.reports import IngestionCounts, native_counts, sql_counts


@dataclass(frozen=True, slots=True)
class Shortage:
    """Rows that a task did not store as they were handed over: what to say of it, and how many it did store."""

    error: SinkRejected
    stored: int


def shortage_of(report: Mapping[str, Any] | None, refs: Mapping[str, Any], *, destination: str) -> Shortage | None:
    """Return what a task's report says is missing of the rows it was handed; None where it misses none, or says nothing.

    SUCCESS with rows thrown away, unread or changed is no success. Pure.
    """
    counts = sql_counts(report) if str(refs["task"]).startswith(SQL_PREFIX) else native_counts(report)
    handed = int(refs["handed"])
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


def null_mismatch(client: DruidClient, refs: Mapping[str, Any], *, run_id: int) -> str:
    """Return which columns show readers other nulls than were sent in the run's rows; "" where none does."""
    expected: Mapping[str, int] = refs.get("nulls") or {}
    if not expected:
        return ""
    try:
        found = null_counts(client, refs["datasource"], run_id, list(expected))
    except UnknownObjectError:
        return "the Broker does not know all columns yet"
    wrong = [
        f"column {name} has {found[name]} nulls instead of {count}"
        for name, count in expected.items()
        if found[name] != count
    ]
    return "; ".join(wrong[:5])
