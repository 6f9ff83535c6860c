"""How a run ends without a publication, and who may go on because of it."""

from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from ingestion import dispatch
from ingestion.dispatch import Call
from ingestion.models import Run, RunState
from ingestion.runs import events
from ingestion.runs.leases import Lease


def fail_run(lease: Lease, code: str, message: str) -> None:
    """End the run as failed; everything fetched stays, so that a retry goes on where it stopped."""
    with transaction.atomic():
        lease.release(to=RunState.FAILED, code=code, message=message, finished_at=Now(), not_before=None)
        events.record(lease.run_id, "run.failed", level="error", message=message, code=code)
        transaction.on_commit(nudge_waiting_runs, robust=True)


def nudge_waiting_runs(limit: int = 20) -> int:
    """Send a message for the runs that wait for a place, most urgent and oldest first; return how many were sent."""
    due = Run.objects.filter(state=RunState.PENDING).filter(
        Q(nudged_at__isnull=True) | Q(nudged_at__lt=Now() - timedelta(seconds=1)) | Q(not_before__isnull=False)
    )
    sent = 0
    for run_id, priority in due.order_by(F("priority").desc(), "pk").values_list("pk", "priority")[:limit]:
        # A place may have become free, so the time they were told to wait for no longer counts.
        Run.objects.filter(pk=run_id, state=RunState.PENDING).update(nudged_at=Now(), not_before=None)
        sent += dispatch.publish(plan_call(run_id, priority=priority))
    return sent


def plan_call(run_id: int, *, priority: int = 5, step: int = 0) -> Call:
    """Return the nudge that plans the run."""
    return Call("ingestion.plan_run", {"run_id": run_id}, priority, step)
