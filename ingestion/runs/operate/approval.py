"""Use cases for a run that a gate holds: publish it all the same, or give it up."""

from datetime import timedelta

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from ingestion import dispatch
from ingestion.models import ACTIVE_RUN_STATES, Run, RunState
from ingestion.ports.errors import Refused
from ingestion.ports.messages import sentence
from ingestion.runs.record import events
from ingestion.runs.start.admission import admit_alone, published_after
from ingestion.runs.work.states import move
from ingestion.runs.work.task_messages import complete_message
from ingestion.toolkit.failpoints import failpoint


def approve_run(run_id: int, *, by: str = "") -> Run:
    """Return the run, on its way to being published; once approved, a second call changes nothing.

    Refused for a run that is not held, once a later run of the pipeline was published, and while one is at work: both
    read from the same checkpoint, so its rows would be published twice.
    """
    with transaction.atomic():
        # No later run may begin between the look at them and the move.
        admit_alone()
        run = _locked(run_id)
        if run.state != RunState.HELD and run.approved_at is not None:
            return run
        _check_held(run)
        later = published_after(run)
        if later is not None:
            raise Refused("run.held_superseded", run=run_id, later=later.pk)
        others = Run.objects.filter(pipeline=run.pipeline_id, pk__gt=run_id, state__in=ACTIVE_RUN_STATES)
        at_work = others.order_by("pk").first()
        if at_work is not None:
            raise Refused("run.held_overtaken", run=run_id, later=at_work.pk)
        move(
            Run.objects.filter(pk=run_id),
            expected=RunState.HELD,
            to=RunState.COMPLETING,
            fence=F("fence") + 1,
            attempt=0,
            approved_at=Now(),
            deadline_at=Now() + timedelta(seconds=run.pipeline.run_timeout_s),
            sent_at=Now(),
            code="",
            message="",
        )
        events.record(run_id, "run.approved", by=by, code=run.code, message=run.message)
        failpoint("approve.before_commit")
        dispatch.send_after_commit(complete_message(run_id, priority=run.priority))
    failpoint("approve.after_commit")
    return Run.objects.get(pk=run_id)


def discard_run(run_id: int, *, by: str = "") -> Run:
    """Return the run, given up: nothing of it is published; a second call changes nothing. Refused unless it is held."""
    with transaction.atomic():
        run = _locked(run_id)
        if run.state == RunState.CANCELLED and run.code == "run.discarded":
            return run
        _check_held(run)
        message = sentence("run.discarded", {"reason": run.message})
        move(
            Run.objects.filter(pk=run_id),
            expected=RunState.HELD,
            to=RunState.CANCELLED,
            fence=F("fence") + 1,
            finished_at=Now(),
            code="run.discarded",
            message=message,
        )
        events.record(run_id, "run.discarded", level="warning", by=by, code=run.code, message=message)
    return Run.objects.get(pk=run_id)


def _locked(run_id: int) -> Run:
    run = Run.objects.select_for_update(of=("self",)).select_related("pipeline").filter(pk=run_id).first()
    if run is None:
        raise Refused("run.not_found", run=run_id)
    return run


def _check_held(run: Run) -> None:
    if run.state != RunState.HELD:
        raise Refused("run.not_held", run=run.pk, state=run.state)
