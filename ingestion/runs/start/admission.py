"""Admission: the runs next in line for a place, and the failure of one, which makes a place free."""

from collections import Counter
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from ingestion import dispatch
from ingestion.models import Run, RunState
from ingestion.runs.record import events
from ingestion.runs.work.leases import Lease
from ingestion.runs.work.task_messages import plan_message


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
