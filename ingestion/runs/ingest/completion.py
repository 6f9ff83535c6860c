"""Fan-in: the one place that decides that a run's partitions are finished, and what follows.

The chord's body, its errback, the last partition and the reconciler all call `complete_run`; the check is made
after their commits, for in one transaction two last partitions miss each other (measured: 169 of 250 runs).
"""

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q, Sum
from django.db.models.functions import Now

from ingestion import dispatch
from ingestion.models import UNFINISHED_PARTITION_STATES, Partition, PartitionState, Run, RunState
from ingestion.ports.messages import sentence
from ingestion.runs.deliver import staging
from ingestion.runs.ingest import deduplication, gates
from ingestion.runs.record import events
from ingestion.runs.start import admission
from ingestion.runs.work.attempts import Outcome, attempt
from ingestion.runs.work.leases import Lease, claim
from ingestion.runs.work.states import move
from ingestion.runs.work.task_messages import complete_message, fetch_message, validate_message
from ingestion.toolkit.failpoints import failpoint


def fail_partition(lease: Lease, code: str, message: str) -> None:
    """End the partition as failed; what was fetched stays, and a retry goes on from its cursor."""
    with transaction.atomic():
        lease.release(to=PartitionState.FAILED, code=code, message=message, finished_at=Now())
        where = Partition.objects.filter(pk=lease.pk).values_list("lane", "link").get()
        events.record(
            lease.run_id, "partition.failed", level="error", message=message, code=code, lane=where[0], link=where[1]
        )


def complete_if_last(run_id: int) -> None:
    """Complete the run if none of its partitions is left; the check that every finished partition makes."""
    if "last_partition_check" in settings.HEADGATE_SWITCH_OFF:
        return
    if begin_completion(run_id):
        complete_run(run_id)


def complete_run(run_id: int) -> Outcome:
    """Take out duplicates, judge the result and start the deliveries, once all partitions are finished.

    A run with partitions that were not sent yet gets the next of them sent. Safe to call at any time, by anybody.
    """
    failpoint("complete.called")
    if not begin_completion(run_id):
        send_next_partitions(run_id)
    lease = claim(Run, run_id, expected=(RunState.COMPLETING,))
    if lease is None:
        return Outcome.NOT_MINE
    call = complete_message(run_id)
    outcome = attempt(lease, call, lambda: _complete(lease), back_to=RunState.COMPLETING, fail=admission.fail_run)
    if outcome is Outcome.DONE:
        staging.start_deliveries(run_id)
    return outcome


def send_next_partitions(run_id: int) -> int:
    """Send the next chord of partitions that no message was sent for; return how many it carries.

    A chord carries HEADGATE_CHORD_SIZE partitions at most, so that the broker's memory is bounded whatever the
    run's size; its body comes back here for the next one.
    """
    run = Run.objects.filter(pk=run_id, state=RunState.RUNNING).only("priority").first()
    if run is None:
        return 0
    waiting = Partition.objects.filter(run_id=run_id, state=PartitionState.PENDING, sent_at__isnull=True)
    ids = list(waiting.order_by("lane", "link").values_list("pk", flat=True)[: settings.HEADGATE_CHORD_SIZE])
    # The stamp is taken before the message is sent: of two callers one gets the row, and a message that is lost
    # is sent again by the reconciler.
    mine = _stamp(run_id, ids)
    if mine:
        dispatch.send_chord(
            [[fetch_message(pk, priority=run.priority), validate_message(pk, priority=run.priority)] for pk in mine],
            complete_message(run_id, priority=run.priority),
        )
    return len(mine)


def _stamp(run_id: int, ids: list[int]) -> list[int]:
    """Return those of `ids` that this caller may send, all or none: the run row decides between two callers."""
    if not ids:
        return []
    with transaction.atomic():
        Run.objects.select_for_update().get(pk=run_id)
        waiting = Partition.objects.filter(pk__in=ids, state=PartitionState.PENDING, sent_at__isnull=True)
        mine = list(waiting.order_by("lane", "link").values_list("pk", flat=True))
        sent_at = Now() + timedelta(seconds=dispatch.SENDING_S * len(mine))
        Partition.objects.filter(pk__in=mine).update(sent_at=sent_at)
    return mine


def begin_completion(run_id: int) -> bool:
    """Move the run on if all its partitions are finished; return whether this call did, which then completes it."""
    unfinished = Partition.objects.filter(run=OuterRef("pk"), state__in=UNFINISHED_PARTITION_STATES)
    rows = Run.objects.filter(~Exists(unfinished), pk=run_id)
    return bool(
        move(rows, expected=RunState.RUNNING, to=RunState.COMPLETING, attempt=0, lease_until=None, sent_at=Now())
    )


def _complete(lease: Lease) -> None:
    run = Run.objects.select_related("pipeline", "contract").get(pk=lease.pk)
    counts = Partition.objects.filter(run=run).aggregate(
        total=Count("pk"),
        failed=Count("pk", filter=Q(state=PartitionState.FAILED)),
    )
    # Of nothing a destination would make an empty publication, and a full refresh would remove what is there.
    if counts["failed"] and (not run.pipeline.allow_partial or counts["failed"] == counts["total"]):
        _fail_with_first(run, lease, failed=counts["failed"], total=counts["total"])
        return
    deduplication.deduplicate(run, lease)
    failpoint("complete.deduplicated")
    totals = Partition.objects.filter(run=run).aggregate(
        **{name: Sum(name, default=0) for name in ("fetched", "accepted", "rejected", "duplicate", "filtered")}
    )
    if run.republishes_id:
        totals = {name: getattr(run, name) for name in totals}
    verdict = gates.judge(run, totals)
    if isinstance(verdict, gates.Fail):
        lease.change(**totals)
        admission.fail_run(lease, verdict.code, verdict.message)
        return
    if isinstance(verdict, gates.Hold):
        _hold(lease, verdict, totals)
        return
    with transaction.atomic():
        following = staging.prepare_deliveries(run)
        lease.release(to=following, attempt=0, not_before=None, sent_at=Now(), **totals)
        events.record(run.pk, "run.completed", message=verdict.reason, **totals)
        failpoint("complete.before_commit")
    failpoint("complete.after_commit")


def _hold(lease: Lease, verdict: gates.Hold, totals: gates.Totals) -> None:
    """Let the run wait for a person: it gives its place and its deadline up, and keeps everything that it has."""
    message = " ".join([*verdict.reasons, sentence("run.held", {})])
    with transaction.atomic():
        lease.release(
            to=RunState.HELD, code=verdict.code, message=message, attempt=0, not_before=None, deadline_at=None, **totals
        )
        events.record(lease.run_id, "run.held", level="warning", message=message, code=verdict.code, **totals)
        failpoint("hold.before_commit")
        transaction.on_commit(admission.send_waiting_runs, robust=True)


def _fail_with_first(run: Run, lease: Lease, *, failed: int, total: int) -> None:
    """Fail the run with its first failed partition's own code, so that a person sees the cause where they look first."""
    first = Partition.objects.filter(run=run, state=PartitionState.FAILED).order_by("lane", "link")[0]
    values = {"failed": failed, "total": total, "code": first.code, "message": first.message}
    message = first.message if total == 1 else sentence("run.partition_failed", values)
    admission.fail_run(lease, first.code, message)
