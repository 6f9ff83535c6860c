"""Cancelling: one compare-and-set takes the work away from everybody; what was staged is removed afterwards."""

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now

from ingestion import dispatch, registry
from ingestion.dispatch import Call
from ingestion.models import (
    OPEN_DELIVERY_STATES,
    Delivery,
    DeliveryPart,
    Partition,
    PartitionState,
    Run,
    RunState,
)
from ingestion.ports.errors import Refused
from ingestion.ports.sink import DeliveryState
from ingestion.runs import ending, events
from ingestion.runs.attempts import Outcome, attempt
from ingestion.runs.context import sink_context
from ingestion.runs.leases import Lease, claim
from ingestion.runs.manifests import delivery_view, manifest_of
from ingestion.runs.states import CANCELLABLE_RUN_STATES
from ingestion.runs.transitions import move
from ingestion.toolkit.failpoints import failpoint

_UNFINISHED = (PartitionState.PENDING, PartitionState.LEASED)


def cancel_run(run_id: int, *, by: str = "") -> Run:
    """Return the cancelled run; Refused once it is publishing or has ended.

    Every worker's next write is refused from now on, and its calls are broken off within HEADGATE_WATCH_S. What a
    destination had already taken is named in the run.
    """
    with transaction.atomic():
        rows = Run.objects.filter(pk=run_id)
        taken = sum(
            move(rows, expected=state, to=RunState.CANCELLED, fence=F("fence") + 1, finished_at=Now(), not_before=None)
            for state in CANCELLABLE_RUN_STATES
        )
        if not taken:
            run = Run.objects.filter(pk=run_id).first()
            if run is None:
                raise Refused("run.not_found", run=run_id)
            raise Refused("run.not_cancellable", run=run_id, state=run.state)
        for state in _UNFINISHED:
            for model, rows_of_run in (
                (Partition, Partition.objects.filter(run_id=run_id)),
                (DeliveryPart, DeliveryPart.objects.filter(delivery__run_id=run_id)),
            ):
                # The ids first: an update over a join is a subquery that some databases cannot take.
                ids = list(rows_of_run.filter(state=state).values_list("pk", flat=True))
                move(
                    model._default_manager.filter(pk__in=ids),
                    expected=state,
                    to=PartitionState.SKIPPED,
                    fence=F("fence") + 1,
                )
        message = _name_what_was_taken(run_id)
        for delivery_state in OPEN_DELIVERY_STATES:
            # The lease stays: what is to be removed is removed after the last holder has stopped.
            move(
                Delivery.objects.filter(run_id=run_id),
                expected=delivery_state,
                to=DeliveryState.FAILED,
                fence=F("fence") + 1,
                needs_abort=True,
                code="run.cancelled",
                message="The run was cancelled.",
                not_before=None,
                attempt=0,
                finished_at=Now(),
            )
        rows.update(message=message)
        events.record(run_id, "run.cancelled", level="warning", message=message, by=by)
        failpoint("cancel.before_commit")
        for delivery_id in Delivery.objects.filter(run_id=run_id, needs_abort=True).values_list("pk", flat=True):
            dispatch.publish_after_commit(abort_call(delivery_id))
        transaction.on_commit(ending.nudge_waiting_runs, robust=True)
    failpoint("cancel.after_commit")
    return Run.objects.get(pk=run_id)


def abort_call(delivery_id: int, *, step: int = 0) -> Call:
    """Return the nudge that removes what the delivery staged."""
    return Call("ingestion.abort_delivery", {"delivery_id": delivery_id}, 5, step)


def abort_delivery(delivery_id: int) -> Outcome:
    """Remove what a cancelled delivery had staged. Safe to call twice, at once and late."""
    # A worker that still stages a part would leave behind what it writes after the removal.
    staging = DeliveryPart.objects.filter(delivery=OuterRef("pk"), lease_until__gte=Now())
    lease = claim(Delivery, delivery_id, expected=(DeliveryState.FAILED,), only_if=~Exists(staging), needs_abort=True)
    if lease is None:
        return Outcome.NOT_MINE
    return attempt(
        lease,
        abort_call(delivery_id),
        lambda: _abort(delivery_id, lease),
        back_to=DeliveryState.FAILED,
        fail=_give_up,
    )


def _abort(delivery_id: int, lease: Lease) -> None:
    delivery = Delivery.objects.select_related("destination", "run__pipeline", "run__contract").get(pk=delivery_id)
    manifest, view, ctx = manifest_of(delivery.run), delivery_view(delivery, delivery.run), sink_context(lease)
    sink = registry.build_sink(delivery.destination)
    sink.abort(manifest, view, ctx)
    failpoint("abort.done")
    left = sink.count(manifest, view, ctx)
    with transaction.atomic():
        lease.release(needs_abort=False, counted=left)
        if left:
            # The commit came through while the run was cancelled, before its answer could be noted.
            message = _name_what_was_taken(delivery.run_id)
            Run.objects.filter(pk=delivery.run_id).update(message=message)
            events.record(delivery.run_id, "delivery.not_aborted", level="warning", message=message, rows=left)


def _give_up(lease: Lease, code: str, message: str) -> None:
    """Stop trying to remove what was staged: no reader sees it, and a person is told where it lies."""
    lease.release(needs_abort=False)
    events.record(lease.run_id, "delivery.not_aborted", level="error", message=message, code=code)


def _name_what_was_taken(run_id: int) -> str:
    has_committed = Q(state__in=(DeliveryState.PUBLISHED, DeliveryState.AVAILABLE, DeliveryState.VERIFIED))
    for counts in ("inserted", "updated", "unchanged", "counted"):
        has_committed |= Q(**{f"{counts}__gt": 0})
    committed = Delivery.objects.filter(has_committed, run_id=run_id)
    names = sorted(committed.values_list("destination__name", flat=True))
    if not names:
        return "The run was cancelled before any destination had taken its rows."
    return f"The run was cancelled after {', '.join(names)} had taken its rows."
