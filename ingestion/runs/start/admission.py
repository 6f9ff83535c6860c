"""Admission: the runs next in line for a place, why a run waits, and the failure of one, which makes a place free."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from ingestion import dispatch
from ingestion.models import (
    ACTIVE_RUN_STATES,
    OPEN_DELIVERY_STATES,
    PUBLISHED_RUN_STATES,
    UNFINISHED_PARTITION_STATES,
    Delivery,
    DeliveryPart,
    Partition,
    PartitionState,
    Run,
    RunState,
)
from ingestion.models.leased import Leased
from ingestion.ports.messages import sentence
from ingestion.runs.record import events
from ingestion.runs.start import dependencies
from ingestion.runs.work.leases import Lease
from ingestion.runs.work.task_messages import plan_message

_ADMISSION_LOCK = 0x68656164
"""Key of the advisory lock under which runs are counted and admitted."""


def fail_run(lease: Lease, code: str, message: str) -> None:
    """End the run as failed; everything fetched stays, so that a retry goes on where it stopped."""
    with transaction.atomic():
        lease.release(to=RunState.FAILED, code=code, message=message, finished_at=Now(), not_before=None)
        events.record(lease.run_id, "run.failed", level="error", message=message, code=code)
        transaction.on_commit(send_waiting_runs, robust=True)


def send_waiting_runs(limit: int = 20) -> int:
    """Send a message for the runs that wait for a place and are next in line; return how many were sent."""
    due = Run.objects.filter(
        Q(sent_at__isnull=True) | Q(sent_at__lt=Now() - timedelta(seconds=1)) | Q(not_before__isnull=False)
    )
    sent = 0
    for run in next_in_line(due, limit=limit):
        # A place may have become free, so the time they were told to wait for no longer counts.
        Run.objects.filter(pk=run.pk, state=RunState.PENDING).update(sent_at=Now(), not_before=None)
        sent += dispatch.send(plan_message(run.pk, priority=run.priority))
    return sent


def next_in_line(runs: QuerySet[Run], *, limit: int) -> list[Run]:
    """Return those of `runs` that wait to be planned, most urgent and oldest first.

    Of each pipeline no more than it may have active: the rest could not begin, and would keep others from being seen.
    A roll back does not wait for what other runs of its pipeline wait for, so it has a line of its own.
    """
    waiting = runs.filter(state=RunState.PENDING, pipeline__is_paused=False).select_related("pipeline")
    taken: Counter[tuple[int, bool]] = Counter()
    first: list[Run] = []
    for run in waiting.order_by(F("priority").desc(), "pk").iterator():
        line = (run.pipeline_id, run.republishes_id is not None)
        taken[line] += 1
        if taken[line] <= run.pipeline.max_active_runs:
            first.append(run)
        if len(first) == limit:
            break
    return first


@dataclass(frozen=True, slots=True)
class Waiting:
    """One cause: a stable code, a sentence, and the time it ends at the latest (None: nobody knows)."""

    cause: str
    sentence: str
    until: datetime | None = None


def explain_waiting(run: Run) -> Waiting | None:
    """Return why nothing of the run is being worked on right now, or None if something is, or the run has ended."""
    if run.is_terminal:
        return None
    if run.state == RunState.HELD:
        return _explain_held(run)
    if run.state == RunState.PENDING:
        return blocked_by(run) or _worker_awaited(run, "to be planned")
    return _explain_stage(run)


def _explain_held(run: Run) -> Waiting:
    later = published_after(run)
    if later is not None:
        return Waiting("held", sentence("run.held_superseded", {"run": run.pk, "later": later.pk}))
    return Waiting("held", f"The run is held. {run.message}")


def published_after(run: Run) -> Run | None:
    """Return the first later run of the pipeline that was published, or None."""
    later = Run.objects.filter(pipeline=run.pipeline_id, pk__gt=run.pk, state__in=PUBLISHED_RUN_STATES)
    return later.order_by("pk").first()


def admit_alone() -> None:
    """Let this transaction alone decide which runs take a place, until it ends.

    Two that count at once would both find the last place. SQLite's transactions are alone.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ADMISSION_LOCK])


def blocked_by(run: Run) -> Waiting | None:
    """Return what keeps a pending run from being planned, or None."""
    pipeline = run.pipeline
    if pipeline.is_paused:
        return Waiting("paused", f"Pipeline {pipeline.name} is paused; resume it.")
    dependency = None if run.republishes_id else dependencies.unmet_dependency(pipeline.pk, run_id=run.pk)
    if dependency is not None:
        until = dependencies.wait_ends_at(run, dependency)
        return Waiting("dependency", f"Waiting for a new publication of {dependency.upstream.name}.", until)
    # Without the run itself: it may have begun since it was read.
    active = Run.objects.filter(state__in=ACTIVE_RUN_STATES).exclude(pk=run.pk)
    own = active.filter(pipeline=pipeline).order_by("pk").first()
    if own is not None and active.filter(pipeline=pipeline).count() >= pipeline.max_active_runs:
        return Waiting("pipeline_busy", f"Run {own.pk} of the same pipeline is not finished.", own.deadline_at)
    count = active.count()
    if count >= settings.HEADGATE_MAX_ACTIVE_RUNS:
        first_to_end = active.exclude(deadline_at=None).order_by("deadline_at").first()
        ends_at = first_to_end.deadline_at if first_to_end else None
        return Waiting(
            "run_limit", f"{count} runs are active, {settings.HEADGATE_MAX_ACTIVE_RUNS} are allowed.", ends_at
        )
    return None


def _explain_stage(run: Run) -> Waiting | None:
    partitions = Partition.objects.filter(run=run, state__in=UNFINISHED_PARTITION_STATES)
    parts = DeliveryPart.objects.filter(delivery__run=run, state__in=UNFINISHED_PARTITION_STATES)
    deliveries = Delivery.objects.filter(run=run, state__in=OPEN_DELIVERY_STATES)
    now = timezone.now()
    if _is_held(run, now):
        return None
    pieces = ((partitions, "a partition"), (parts, "a part"), (deliveries, "a delivery"))
    if any(rows.filter(lease_until__gte=now).exists() for rows, _ in pieces):
        return None
    for rows, what in pieces:
        waiting = rows.order_by("not_before", "pk")
        if rows.filter(not_before__isnull=True).exists() or rows.filter(not_before__lte=now).exists():
            return _worker_awaited(run, f"for {what}")
        first = waiting.first()
        if first is not None:
            return _explain_row(first, what)
    return _worker_awaited(run, "for the next step")


def _explain_row(row: Leased, what: str) -> Waiting:
    if isinstance(row, Delivery) and not row.code:
        return Waiting("destination", "The destination is working; it is polled again then.", row.not_before)
    last = "a source or rate limit" if isinstance(row, Partition) and row.state == PartitionState.PENDING else what
    return Waiting("not_before", f"Waiting for {last}; the next try is at that time.", row.not_before)


def _is_held(row: Leased, now: datetime) -> bool:
    return row.lease_until is not None and row.lease_until >= now


def _worker_awaited(run: Run, what: str) -> Waiting:
    return Waiting("worker", f"Waiting for a free worker {what}.", run.deadline_at)
