"""Contents of a run's page, every list of it bounded."""

from typing import Any

from django.db.models import Case, Count, IntegerField, Q, Value, When
from django.urls import reverse

from ingestion.admin.display import list_address, processing_status, show_duration
from ingestion.admin.pieces import with_partition_state
from ingestion.models import (
    OPEN_DELIVERY_STATES,
    Delivery,
    DeliveryPart,
    Part,
    Partition,
    PartitionState,
    Run,
    RunEvent,
)
from ingestion.runs.read.history import histories_of
from ingestion.runs.read.progress import is_balanced, measure_progress
from ingestion.runs.start.admission import explain_waiting

PARTITIONS_SHOWN = 30
PARTS_SHOWN = 30
EVENTS_SHOWN = 50


def describe_run(run: Run) -> dict[str, Any]:
    """Return the run's control totals, stages, what it waits for, and its pieces with links to the rest of them."""
    progress = measure_progress(run)
    own = {"run__id__exact": run.pk}
    deliveries = _deliveries(run)
    return {
        "run": run,
        "is_balanced": is_balanced(run),
        "progress": progress,
        "took": show_duration(run.started_at, run.finished_at),
        "waiting": explain_waiting(run),
        "uploads": run.uploads.all()[:20],
        "partitions": _partitions(run),
        "partition_states": _count_states(Partition.objects.filter(run=run)),
        "partitions_address": list_address(Partition, **own),
        "parts": _parts(run),
        "part_counts": Part.objects.filter(run=run).aggregate(
            **{zone: Count("pk", filter=Q(zone=zone)) for zone in Part.Zone.values}
        ),
        "parts_address": list_address(Part, **own),
        "deliveries": deliveries,
        "refused": sum(delivery.rejected for delivery in deliveries),
        "delivery_parts_address": list_address(DeliveryPart, delivery__run__id__exact=run.pk),
        "events": _events(run),
        "events_address": list_address(RunEvent, **own),
        "events_shown": EVENTS_SHOWN,
        "rejected_address": reverse("admin:ingestion_run_rejected", args=(run.pk,)),
        "is_live": not run.is_settled,
        "is_refreshed": not run.is_settled or any(row.state in OPEN_DELIVERY_STATES for row in deliveries),
    }


def _deliveries(run: Run) -> list[Any]:
    """Return the deliveries, each with its history."""
    deliveries: list[Any] = list(Delivery.objects.filter(run=run).select_related("destination").order_by("pk"))
    histories = histories_of(deliveries)
    for delivery in deliveries:
        delivery.history = histories[delivery.pk]
    return deliveries


def _partitions(run: Run) -> Any:
    """Return the first partitions, the failed ones before the others."""
    rank = Case(When(state=PartitionState.FAILED, then=Value(0)), default=Value(1), output_field=IntegerField())
    return Partition.objects.filter(run=run).order_by(rank, "lane", "link")[:PARTITIONS_SHOWN]


def _events(run: Run) -> list[Any]:
    """Return the last lines of the log, in order; what has no sentence shows its values."""
    events: list[Any] = list(RunEvent.objects.filter(run=run).order_by("-pk")[:EVENTS_SHOWN])[::-1]
    for event in events:
        said = (
            f"{name} {value}" for name, value in event.values.items() if value not in ("", None) and name != "message"
        )
        event.text = event.message or ", ".join(said)
    return events


def _count_states(rows: Any) -> list[tuple[str, int]]:
    return sorted(rows.order_by().values_list("state").annotate(count=Count("pk")))


def _parts(run: Run) -> list[Any]:
    parts: list[Any] = list(
        with_partition_state(Part.objects.filter(run=run)).order_by("zone", "lane", "link", "seq")[:PARTS_SHOWN]
    )
    for part in parts:
        part.processing = processing_status(part, partition_state=part.partition_state)
    return parts
