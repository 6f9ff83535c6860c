"""Cancelling: one compare-and-set takes the work away from everybody; what was staged is removed afterwards."""

from typing import Any

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from ingestion import dispatch, registry
from ingestion.models import (
    OPEN_DELIVERY_STATES,
    UNFINISHED_PARTITION_STATES,
    Delivery,
    DeliveryPart,
    Partition,
    PartitionState,
    Run,
    RunState,
)
from ingestion.ports.errors import Refused
from ingestion.ports.messages import sentence
from ingestion.ports.publication import DeliveryState
from ingestion.runs.deliver.order import pass_on
from ingestion.runs.record import events
from ingestion.runs.record.manifests import delivery_view, manifest_of
from ingestion.runs.start import admission
from ingestion.runs.work.attempts import Outcome, attempt
from ingestion.runs.work.contexts import sink_context
from ingestion.runs.work.leases import Lease, claim
from ingestion.runs.work.states import CANCELLABLE_RUN_STATES
from ingestion.runs.work.task_messages import abort_message
from ingestion.runs.work.transitions import move
from ingestion.toolkit.failpoints import failpoint


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
        _skip(Partition, Partition.objects.filter(run_id=run_id))
        message = _name_what_was_taken(run_id)
        withdraw_deliveries(Delivery.objects.filter(run_id=run_id), code="run.cancelled")
        rows.update(message=message)
        events.record(run_id, "run.cancelled", level="warning", message=message, by=by)
        failpoint("cancel.before_commit")
        transaction.on_commit(admission.send_waiting_runs, robust=True)
    failpoint("cancel.after_commit")
    return Run.objects.get(pk=run_id)


def withdraw_deliveries(deliveries: QuerySet[Delivery], *, code: str, **values: Any) -> None:
    """End those of the deliveries that are under way, and have what they staged removed; in the caller's transaction.

    Their leases stay: what is to be removed is removed after the last holder has stopped (see `let_go`).
    """
    ids = list(deliveries.filter(state__in=OPEN_DELIVERY_STATES).values_list("pk", flat=True))
    _skip(DeliveryPart, DeliveryPart.objects.filter(delivery__in=ids))
    for state in OPEN_DELIVERY_STATES:
        move(
            Delivery.objects.filter(pk__in=ids),
            expected=state,
            to=DeliveryState.FAILED,
            fence=F("fence") + 1,
            needs_abort=True,
            code=code,
            message=sentence(code, values),
            not_before=None,
            attempt=0,
            finished_at=Now(),
        )
    for delivery in Delivery.objects.filter(pk__in=ids).select_related("destination"):
        events.record(
            delivery.run_id,
            "delivery.failed",
            level="warning",
            message=delivery.message,
            code=code,
            destination=delivery.destination.name,
            delivery=delivery.pk,
        )
        dispatch.send_after_commit(abort_message(delivery.pk))


def _skip(model: type[Partition | DeliveryPart], rows: QuerySet[Any]) -> None:
    for state in UNFINISHED_PARTITION_STATES:
        # The ids first: an update over a join is a subquery that some databases cannot take.
        ids = list(rows.filter(state=state).values_list("pk", flat=True))
        move(
            model._default_manager.filter(pk__in=ids),
            expected=state,
            to=PartitionState.SKIPPED,
            fence=F("fence") + 1,
        )


def let_go(lease: Lease, delivery_id: int) -> None:
    """Say that this worker has stopped, where its delivery was withdrawn: what it staged need not wait for the lease.

    Nobody claims a withdrawn row before its lease has ended, so the fence is one above ours exactly then.
    """
    withdrawn = Delivery.objects.filter(pk=delivery_id, state=DeliveryState.FAILED, needs_abort=True)
    rows = withdrawn if lease.model is Delivery else DeliveryPart.objects.filter(state=PartitionState.SKIPPED)
    if rows.filter(pk=lease.pk, fence=lease.fence + 1).update(lease_until=None) and withdrawn.exists():
        dispatch.send(abort_message(delivery_id))


def abort_delivery(delivery_id: int) -> Outcome:
    """Remove what a cancelled delivery had staged. Safe to call twice, at once and late."""
    # A worker that still stages a part would leave behind what it writes after the removal.
    staging = DeliveryPart.objects.filter(delivery=OuterRef("pk"), lease_until__gte=Now())
    lease = claim(Delivery, delivery_id, expected=(DeliveryState.FAILED,), only_if=~Exists(staging), needs_abort=True)
    if lease is None:
        return Outcome.NOT_MINE
    outcome = attempt(
        lease,
        abort_message(delivery_id),
        lambda: _abort(delivery_id, lease),
        back_to=DeliveryState.FAILED,
        fail=_give_up,
    )
    if outcome in (Outcome.DONE, Outcome.FAILED):
        pass_on(Delivery.objects.select_related("run").get(pk=delivery_id))
    return outcome


def _abort(delivery_id: int, lease: Lease) -> None:
    delivery = Delivery.objects.select_related("destination", "run__pipeline", "run__contract").get(pk=delivery_id)
    manifest, view = manifest_of(delivery.run), delivery_view(delivery, delivery.run)
    sink = registry.build_sink(delivery.destination)
    with sink_context(lease) as ctx:
        sink.abort(manifest, view, ctx)
        failpoint("abort.done")
        left = sink.count(manifest, view, ctx)
    with transaction.atomic():
        lease.release(needs_abort=False, counted=left, lock=None)
        if left:
            # The commit came through while the run was cancelled, before its answer could be noted.
            message = _name_what_was_taken(delivery.run_id)
            Run.objects.filter(pk=delivery.run_id).update(message=message)
            events.record(
                delivery.run_id,
                "delivery.not_aborted",
                level="warning",
                message=message,
                delivery=delivery_id,
                rows=left,
            )


def _give_up(lease: Lease, code: str, message: str) -> None:
    """Stop trying to remove what was staged: no reader sees it, and a person is told where it lies."""
    lease.release(needs_abort=False, lock=None)
    events.record(lease.run_id, "delivery.not_aborted", level="error", message=message, code=code, delivery=lease.pk)


def _name_what_was_taken(run_id: int) -> str:
    has_committed = Q(state__in=(DeliveryState.PUBLISHED, DeliveryState.AVAILABLE, DeliveryState.VERIFIED))
    for counts in ("inserted", "updated", "unchanged", "counted"):
        has_committed |= Q(**{f"{counts}__gt": 0})
    committed = Delivery.objects.filter(has_committed, run_id=run_id)
    names = sorted(committed.values_list("destination__name", flat=True))
    if not names:
        return "The run was cancelled before any destination had taken its rows."
    return f"The run was cancelled after {', '.join(names)} had taken its rows."
