"""Planning: a pending run gets its place, its checkpoint and its partitions."""

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from ingestion import checkpoints, registry
from ingestion.models import Partition, Pipeline, Run, RunState
from ingestion.ports.messages import sentence
from ingestion.runs.ingest import completion
from ingestion.runs.record import events
from ingestion.runs.record.views import query_of
from ingestion.runs.start import admission, dependencies
from ingestion.runs.start.admission import Waiting, blocked_by
from ingestion.runs.start.contracts import KEY_CHANGED, key_change
from ingestion.runs.work.attempts import Outcome, attempt
from ingestion.runs.work.contexts import source_context
from ingestion.runs.work.leases import Lease, claim
from ingestion.runs.work.states import move
from ingestion.runs.work.task_messages import plan_message
from ingestion.toolkit.failpoints import failpoint


def plan_run(run_id: int) -> Outcome:
    """Plan the run if it may begin: its partitions and its state are written in one transaction, then sent.

    A run that has to wait is put back with a time. Safe to call twice, at once and late.
    """
    lease = _admit(run_id)
    if lease is None:
        return Outcome.NOT_MINE
    failpoint("plan.claimed")
    run = Run.objects.select_related("pipeline__source", "contract").get(pk=run_id)
    call = plan_message(run_id, priority=run.priority)
    outcome = attempt(lease, call, lambda: _plan(run, lease), back_to=RunState.PLANNING, fail=admission.fail_run)
    if outcome is Outcome.DONE:
        completion.complete_run(run_id)
    return outcome


def _admit(run_id: int) -> Lease | None:
    """Return a lease on the run in `planning`, or None if it has to wait, is at work or has been planned."""
    lease = claim(Run, run_id, expected=(RunState.PLANNING,))
    if lease is not None:
        return lease
    with transaction.atomic():
        admission.admit_alone()
        run = Run.objects.select_related("pipeline").filter(pk=run_id, state=RunState.PENDING).first()
        if run is None:
            return None
        waiting = blocked_by(run)
        if waiting is not None:
            _put_off(run, waiting)
            return None
        lease = claim(Run, run_id, expected=(RunState.PENDING,), to=RunState.PLANNING)
        if lease is not None:
            Run.objects.filter(pk=run_id).update(
                started_at=Now(), deadline_at=Now() + timedelta(seconds=run.pipeline.run_timeout_s)
            )
        return lease


def _put_off(run: Run, waiting: Waiting) -> None:
    """Let the run wait a little longer, or fail it where it has waited for a dependency long enough."""
    rows = Run.objects.filter(pk=run.pk)
    if waiting.cause == "dependency" and waiting.until is not None and waiting.until <= timezone.now():
        dependency = dependencies.unmet_dependency(run.pipeline_id, run_id=run.pk)
        if dependency is not None:
            values = {"seconds": dependency.timeout_s, "upstream": dependency.upstream.name}
            message = sentence("dependency.timeout", values)
            if move(
                rows,
                expected=RunState.PENDING,
                to=RunState.FAILED,
                code="dependency.timeout",
                message=message,
                finished_at=Now(),
            ):
                events.record(run.pk, "run.failed", level="error", message=message, code="dependency.timeout")
            return
    # Whatever it waits for has it sent when it happens; this time is only for the case that the message is lost.
    rows.filter(state=RunState.PENDING).update(
        not_before=Now() + timedelta(seconds=settings.HEADGATE_RESEND_AFTER_S), sent_at=Now()
    )


def _plan(run: Run, lease: Lease) -> None:
    if run.republishes_id:
        with transaction.atomic():
            lease.release(to=RunState.COMPLETING, attempt=0, sent_at=Now())
        return
    source = run.pipeline.source
    since = None
    # Another run may have been published, under another key, since this one was asked for.
    refresh = key_change(run.pipeline, run.contract, before=run) if run.mode == Pipeline.Mode.INCREMENTAL else ""
    if refresh:
        run.mode, run.message = Pipeline.Mode.FULL_REFRESH, refresh
    if run.mode == Pipeline.Mode.INCREMENTAL:
        since = checkpoints.read_checkpoint(run.pipeline_id, run.pipeline.stream)
    with source_context(source, lease, is_resumed=False) as ctx:
        specs = list(registry.build_connector(source).plan(query_of(run), since, ctx))
    failpoint("plan.before_commit")
    with transaction.atomic():
        Partition.objects.bulk_create(
            [
                Partition(
                    run=run,
                    lane=spec.lane,
                    spec=dict(spec.data),
                    label=spec.label[:255],
                    expected_records=spec.expected_records,
                )
                for spec in specs
            ],
            batch_size=500,
        )
        changed = {"mode": run.mode, "message": run.message}
        lease.release(to=RunState.RUNNING, attempt=0, since=since, not_before=None, sent_at=Now(), **changed)
        if refresh:
            events.record(run.pk, KEY_CHANGED, level="warning", message=refresh)
        events.record(run.pk, "run.planned", partitions=len(specs), since=since)
    failpoint("plan.after_commit")
