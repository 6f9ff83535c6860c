"""Progress of a run: its control totals, its rate, and the time it will be done."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Exists, OuterRef, Q, Sum
from django.utils import timezone

from ingestion.models import (
    GIVEN_UP_STATES,
    PUBLISHED_RUN_STATES,
    UNFINISHED_PARTITION_STATES,
    Delivery,
    Part,
    Partition,
    PartitionState,
    Run,
)
from ingestion.ports.publication import DeliveryState
from ingestion.runs.read.history import with_old_names

_LONGEST_LEFT_S = 10 * 366 * 86_400
CONTROL_TOTALS = ("fetched", "accepted", "rejected", "duplicate", "filtered")


@dataclass(frozen=True, slots=True)
class StageProgress:
    """One stage: pieces done and in all, and how many failed."""

    stage: str
    done: int
    total: int
    failed: int


@dataclass(frozen=True, slots=True)
class Progress:
    """The place where a run is; what cannot be said yet is None.

    `records` were read so far, `percent` of those that its sources announce; at that rate the last is read at `eta`.
    """

    state: str
    stages: tuple[StageProgress, ...]
    records: int
    expected_records: int | None
    percent: int | None
    raw_bytes: int
    elapsed_s: float | None
    records_per_s: float | None
    eta: datetime | None


def measure_progress(run: Run) -> Progress:
    """Return how far the run is, its rate so far, and when it will be done at that rate."""
    partitions = Partition.objects.filter(run=run)
    counts = partitions.aggregate(
        total=Count("pk"),
        at_validate=Count("pk", filter=Q(stage=Partition.Stage.VALIDATE)),
        done=Count("pk", filter=Q(state=PartitionState.DONE)),
        failed=Count("pk", filter=Q(state=PartitionState.FAILED)),
        fetch_failed=Count("pk", filter=Q(state=PartitionState.FAILED, stage=Partition.Stage.FETCH)),
        records=Sum("fetched", default=0),
        stored_bytes=Sum("raw_bytes", default=0),
        open_expected=Sum("expected_records", filter=~Q(state=PartitionState.DONE), default=0),
        unknown=Count("pk", filter=Q(state__in=UNFINISHED_PARTITION_STATES, expected_records__isnull=True)),
    )
    parts = Delivery.objects.filter(run=run).aggregate(
        total=Count("parts"),
        done=Count("parts", filter=Q(parts__state=PartitionState.DONE)),
        failed=Count("parts", filter=Q(parts__state=PartitionState.FAILED)),
    )
    loads = Delivery.objects.filter(run=run).aggregate(
        total=Count("pk"),
        done=Count("pk", filter=Q(state=DeliveryState.VERIFIED)),
        failed=Count("pk", filter=Q(state__in=GIVEN_UP_STATES)),
    )
    records = counts["records"] + _records_waiting(run)
    elapsed_s = _elapsed_s(run)
    rate = records / elapsed_s if records and elapsed_s else None
    expected = None if counts["unknown"] else max(records, counts["records"] + counts["open_expected"])
    return Progress(
        state=run.state,
        stages=(
            StageProgress("fetch", counts["at_validate"], counts["total"], counts["fetch_failed"]),
            StageProgress("validate", counts["done"], counts["total"], counts["failed"] - counts["fetch_failed"]),
            StageProgress("deliver", parts["done"], parts["total"], parts["failed"]),
            StageProgress("load", loads["done"], loads["total"], loads["failed"]),
        ),
        records=records,
        expected_records=expected,
        percent=100 * records // expected if expected else None,
        raw_bytes=counts["stored_bytes"],
        elapsed_s=elapsed_s,
        records_per_s=rate,
        eta=_eta(run, records=records, expected=expected, rate=rate),
    )


def summarize(run: Run) -> dict[str, Any]:
    """Return the run as a machine reads it: state, code, the control totals, and rows by destination.

    A destination's rows are those it accounts for: inserted + updated + unchanged; none once they were removed.
    """
    deliveries = Delivery.objects.filter(run=run).select_related("destination").order_by("pk")
    return {
        "run": run.pk,
        "pipeline": run.pipeline.name,
        "state": run.state,
        "code": run.code,
        "message": run.message,
        **{name: getattr(run, name) for name in CONTROL_TOTALS},
        "destinations": {
            delivery.destination.name: 0
            if delivery.state == DeliveryState.REMOVED
            else delivery.inserted + delivery.updated + delivery.unchanged
            for delivery in deliveries
        },
        "deliveries": [
            with_old_names(
                {
                    "delivery": delivery.pk,
                    "destination": delivery.destination.name,
                    "state": delivery.state,
                    "code": delivery.code,
                    "message": delivery.message,
                    "inserted": delivery.inserted,
                    "updated": delivery.updated,
                    "unchanged": delivery.unchanged,
                    "rejected": delivery.rejected,
                    "counted": delivery.counted,
                }
            )
            for delivery in deliveries
        ],
    }


def progress_as_dict(progress: Progress) -> dict[str, Any]:
    """Return the progress as plain values, times as they are."""
    return asdict(progress)


def percent_done(run: Run, progress: Progress) -> int:
    """Return how much of the run is done, from 0 to 100, its stages counting alike; 100 once it was published.

    Reading counts by records where their number is known: a source of one lane has a partition or two.
    """
    if run.state in PUBLISHED_RUN_STATES:
        return 100
    shares = {stage.stage: (stage.done + stage.failed) / stage.total for stage in progress.stages if stage.total}
    if progress.percent is not None:
        shares["fetch"] = progress.percent / 100
    return min(99, int(100 * sum(shares.values()) / len(progress.stages)))


def count_rows(run: Run) -> dict[str, int]:
    """Return the run's control totals as they stand now; before it is completed, the sums of its partitions so far."""
    if run.fetched:
        return {name: getattr(run, name) for name in CONTROL_TOTALS}
    sums = {f"sum_{name}": Sum(name, default=0) for name in CONTROL_TOTALS}
    found = Partition.objects.filter(run=run).aggregate(**sums)
    return {name: found[f"sum_{name}"] for name in CONTROL_TOTALS}


def is_balanced(run: Run) -> bool:
    """Return whether fetched = accepted + rejected + duplicate + filtered."""
    return run.fetched == run.accepted + run.rejected + run.duplicate + run.filtered


def _records_waiting(run: Run) -> int:
    """Return the records of partitions that are not validated, by the page index of their raw parts."""
    place = Partition.objects.filter(run=run, lane=OuterRef("lane"), link=OuterRef("link"))
    parts = Part.objects.filter(~Exists(place.filter(state=PartitionState.DONE)), run=run, zone=Part.Zone.RAW)
    return sum(page.get("records") or 0 for pages in parts.values_list("pages", flat=True) for page in pages)


def _elapsed_s(run: Run) -> float | None:
    if run.started_at is None:
        return None
    elapsed: timedelta = (run.finished_at or timezone.now()) - run.started_at
    return elapsed.total_seconds()


def _eta(run: Run, *, records: int, expected: int | None, rate: float | None) -> datetime | None:
    if run.is_terminal or expected is None or not rate or expected <= records:
        return None
    # a total that is a lie may lead beyond the end of the calendar
    left_s = (expected - records) / rate
    return timezone.now() + timedelta(seconds=left_s) if left_s < _LONGEST_LEFT_S else None
