"""Use cases for a run that has ended: retry it where it stopped, or publish an earlier one again."""

from datetime import timedelta

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from ingestion import dispatch
from ingestion.models import (
    GIVEN_UP_STATES,
    PUBLISHED_RUN_STATES,
    Delivery,
    Part,
    Partition,
    PartitionState,
    Pipeline,
    Run,
    RunState,
)
from ingestion.ports.errors import Refused
from ingestion.ports.publication import DeliveryState
from ingestion.runs.deliver.deliveries import record_event, reopen_deliveries, send_delivery
from ingestion.runs.record import events
from ingestion.runs.start import creation
from ingestion.runs.start.admission import published_after
from ingestion.runs.start.contracts import key_change
from ingestion.runs.work.states import move
from ingestion.runs.work.task_messages import complete_message, plan_message


def retry_run(run_id: int, *, by: str = "") -> Run:
    """Return the run, reopened where it stopped; what it has fetched is not fetched again.

    Refused for a run that did not fail, once a later run of the pipeline has been published, and for one that was
    published without some of its partitions.
    """
    with transaction.atomic():
        run = Run.objects.select_for_update(of=("self",)).select_related("pipeline").filter(pk=run_id).first()
        if run is None:
            raise Refused("run.not_found", run=run_id)
        if run.state not in (RunState.FAILED, RunState.PARTIAL):
            raise Refused("run.not_retryable", run=run_id, state=run.state)
        later = published_after(run)
        if later is not None:
            raise Refused("run.superseded", run=run_id, later=later.pk)
        state = _reopen(run, by=by)
        fresh = {"code": "", "message": "", "finished_at": None, "attempt": 0, "fence": F("fence") + 1}
        # The old deadline may have passed; without one, a run that hangs would hang for ever.
        fresh["deadline_at"] = Now() + timedelta(seconds=run.pipeline.run_timeout_s)
        if state in (RunState.PENDING, RunState.RUNNING):
            # What it will read was seen by nobody who approved it.
            fresh["approved_at"] = None
        move(
            Run.objects.filter(pk=run_id),
            expected=run.state,
            to=state,
            lease_until=None,
            sent_at=Now(),
            not_before=None,
            **fresh,
        )
        events.record(run_id, "run.retried", by=by, state=state)
        transaction.on_commit(lambda: _go_on(run_id), robust=True)
    return Run.objects.get(pk=run_id)


def _reopen(run: Run, *, by: str) -> RunState:
    """Make the failed rows runnable again and return the state the run goes on in."""
    if run.state == RunState.PARTIAL:
        if Partition.objects.filter(run=run, state=PartitionState.FAILED).exists():
            raise Refused("run.published_without_partitions", run=run.pk)
        _reopen_deliveries(run, by=by)
        return RunState.DELIVERING
    _reopen_deliveries(run, by=by)
    partitions = Partition.objects.filter(run=run)
    if not partitions.exists():
        return RunState.PENDING
    # A leased one was held by a worker when the deadline passed; only a pending one is sent again.
    reopened = [
        move(
            partitions,
            expected=state,
            to=PartitionState.PENDING,
            code="",
            message="",
            attempt=0,
            finished_at=None,
            lease_until=None,
            not_before=None,
            sent_at=None,
            fence=F("fence") + 1,
        )
        for state in (PartitionState.PENDING, PartitionState.LEASED, PartitionState.FAILED)
    ]
    return RunState.RUNNING if any(reopened) else RunState.COMPLETING


def _reopen_deliveries(run: Run, *, by: str) -> None:
    ids = reopen_deliveries(Delivery.objects.filter(run=run, state__in=GIVEN_UP_STATES))
    for delivery in Delivery.objects.filter(pk__in=ids).select_related("destination"):
        record_event(delivery, "delivery.again", by=by)


def _go_on(run_id: int) -> None:
    """Send what resumes the run; chords are left to the workers, so that a web request sends single messages."""
    run = Run.objects.get(pk=run_id)
    if run.state == RunState.PENDING:
        dispatch.send(plan_message(run_id, priority=run.priority))
    elif run.state == RunState.DELIVERING:
        for delivery in Delivery.objects.filter(run=run, state=DeliveryState.PLANNED):
            send_delivery(delivery.pk, priority=run.priority)
    else:
        dispatch.send(complete_message(run_id, priority=run.priority))


def roll_back(run_id: int, *, trigger: str = Run.Trigger.ROLLBACK) -> Run:
    """Return a new run that publishes what run `run_id` published, without asking the source.

    Its parts are the earlier run's objects; checkpoints stay where they are. Refused where it would merge rows under
    another key than that of what is published.
    """
    earlier = Run.objects.select_related("pipeline", "contract").filter(pk=run_id).first()
    if earlier is None:
        raise Refused("run.not_found", run=run_id)
    if earlier.state not in PUBLISHED_RUN_STATES:
        raise Refused("run.not_published", run=run_id)
    if earlier.mode == Pipeline.Mode.INCREMENTAL and key_change(earlier.pipeline, earlier.contract):
        raise Refused("run.key_changed_since", run=run_id)
    with transaction.atomic():
        run, _ = creation.create_run(earlier.pipeline, trigger=trigger, query=earlier.query, republishes=earlier)
        Run.objects.filter(pk=run.pk).update(
            contract=earlier.contract,
            mode=earlier.mode,
            fetched=earlier.fetched,
            accepted=earlier.accepted,
            rejected=earlier.rejected,
            duplicate=earlier.duplicate,
            filtered=earlier.filtered,
        )
        Part.objects.bulk_create(
            Part(
                run=run,
                zone=part.zone,
                lane=part.lane,
                link=part.link,
                seq=part.seq,
                key=part.key,
                size_bytes=part.size_bytes,
                sha256=part.sha256,
                rows=part.rows,
                hashes_key=part.hashes_key,
            )
            for part in Part.objects.filter(run=earlier, zone__in=(Part.Zone.CLEAN, Part.Zone.REJECTED))
        )
        events.record(run.pk, "run.republishes", earlier=earlier.pk)
    run.refresh_from_db()
    return run
