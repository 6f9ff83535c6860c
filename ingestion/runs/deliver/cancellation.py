"""Cancelling: one compare-and-set takes the work away from everybody; what was staged is removed afterwards."""

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now

from ingestion import registry
from ingestion.models import (
    Delivery,
    DeliveryPart,
    Partition,
    Run,
    RunState,
)
from ingestion.ports.errors import Refused
from ingestion.ports.publication import DeliveryState
from ingestion.runs.deliver.deliveries import send_next, skip_unfinished, withdraw_deliveries
from ingestion.runs.record import events
from ingestion.runs.record.views import delivery_view, manifest_of
from ingestion.runs.start import admission
from ingestion.runs.work.attempts import Outcome, attempt
from ingestion.runs.work.contexts import sink_context
from ingestion.runs.work.leases import Lease, claim
from ingestion.runs.work.states import CANCELLABLE_RUN_STATES, move
from ingestion.runs.work.task_messages import abort_message
from ingestion.toolkit.failpoints import failpoint


def cancel_run(run_id: int, *, by: str = "") -> Run:
    """Return the cancelled run; Refused once it is publishing or has ended.

    Every worker's next write fails from now on, and its calls are broken off within HEADGATE_WATCH_S. What a
    destination had already taken is named in the run.
    """
    with transaction.atomic():
        rows = Run.objects.filter(pk=run_id)
        taken = sum(
            move(
                rows,
                expected=state,
                to=RunState.CANCELLED,
                fence=F("fence") + 1,
                finished_at=Now(),
                not_before=None,
                code="",
            )
            for state in CANCELLABLE_RUN_STATES
        )
        if not taken:
            run = Run.objects.filter(pk=run_id).first()
            if run is None:
                raise Refused("run.not_found", run=run_id)
            raise Refused("run.not_cancellable", run=run_id, state=run.state)
        skip_unfinished(Partition, Partition.objects.filter(run_id=run_id))
        # Locked: one that is being verified is waited for, and then named as a destination that had taken the rows.
        list(Delivery.objects.filter(run_id=run_id).order_by("pk").select_for_update().values_list("pk"))
        message = _name_what_was_taken(run_id)
        withdraw_deliveries(Delivery.objects.filter(run_id=run_id), code="run.cancelled")
        rows.update(message=message)
        events.record(run_id, "run.cancelled", level="warning", message=message, by=by)
        failpoint("cancel.before_commit")
        transaction.on_commit(admission.send_waiting_runs, robust=True)
    failpoint("cancel.after_commit")
    return Run.objects.get(pk=run_id)


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
        send_next(Delivery.objects.select_related("run").get(pk=delivery_id))
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
