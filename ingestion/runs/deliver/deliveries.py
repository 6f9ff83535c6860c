"""The rows of a delivery: planned, reopened, withdrawn and ended; and the order and the lock they are loaded in.

Of one pipeline's deliveries into one destination one is loaded at a time, in the order of runs: a destination that
replaces or merges reads what is there before it writes, and two of them at once would lose rows.
"""

from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from ingestion import dispatch
from ingestion.models import (
    OPEN_DELIVERY_STATES,
    PUBLISHED_RUN_STATES,
    UNDELIVERED_STATES,
    UNFINISHED_PARTITION_STATES,
    Delivery,
    DeliveryPart,
    Destination,
    Part,
    Partition,
    PartitionState,
    Pipeline,
    Run,
    RunState,
)
from ingestion.ports.errors import SinkRejected, SinkUnavailable
from ingestion.ports.messages import sentence
from ingestion.ports.publication import DeliveryState, WriteMode
from ingestion.runs.record import events
from ingestion.runs.record.views import published_runs, write_mode
from ingestion.runs.work.leases import Lease
from ingestion.runs.work.states import move
from ingestion.runs.work.task_messages import abort_message, deliver_message, load_message

LOADING_STATES = (RunState.DELIVERING, RunState.LOADING)
_ENDED = (PartitionState.DONE, PartitionState.FAILED, PartitionState.SKIPPED)
_NEXT_TRY_S = 15.0
"""Whoever ends sends the next one's message; this is for the case that it is lost."""


def is_under_way(run_states: Collection[str], *, through: str = "") -> Q:
    """Return the condition that a delivery may be worked on: its run is that far, or it is made from a published run."""
    late = Q(**{f"{through}is_redelivery": True, f"{through}run__state__in": PUBLISHED_RUN_STATES})
    return Q(**{f"{through}run__state__in": tuple(run_states)}) | late


def plan_delivery(run: Run, destination: Destination, *, is_redelivery: bool = False) -> Delivery:
    """Return the run's delivery into the destination with a row per clean part; what is there already stays as it is."""
    delivery, _ = Delivery.objects.get_or_create(
        run=run, destination=destination, defaults={"is_redelivery": is_redelivery}
    )
    parts = list(Part.objects.filter(run=run, zone=Part.Zone.CLEAN, rows__gt=0).order_by("lane", "link", "seq"))
    sent_at = Now() + timedelta(seconds=dispatch.SENDING_S * len(parts))
    DeliveryPart.objects.bulk_create(
        [DeliveryPart(delivery=delivery, part=part, sent_at=sent_at) for part in parts], ignore_conflicts=True
    )
    return delivery


def reopen_deliveries(deliveries: QuerySet[Delivery], *, is_redelivery: bool = False) -> list[int]:
    """Let those of the deliveries begin anew that were given up, and return which; their notes of it stay."""
    ids = list(deliveries.filter(state__in=UNDELIVERED_STATES).values_list("pk", flat=True))
    fresh = {"code": "", "message": "", "attempt": 0, "not_before": None, "lease_until": None, "fence": F("fence") + 1}
    # The ids first: an update over a join is a subquery that some databases cannot take.
    parts = list(DeliveryPart.objects.filter(delivery__in=ids).values_list("pk", flat=True))
    # All of them: what was staged may have made way for a later run, and staging what is there costs little.
    for part_state in _ENDED:
        rows = DeliveryPart.objects.filter(pk__in=parts)
        move(rows, expected=part_state, to=PartitionState.PENDING, sent_at=Now(), **fresh)
    for state in UNDELIVERED_STATES:
        # A failed delivery may have left rows there, and says so; what was removed is not there.
        nothing = {"inserted": 0, "updated": 0, "unchanged": 0, "rejected": 0, "counted": None}
        move(
            Delivery.objects.filter(pk__in=ids),
            expected=state,
            to=DeliveryState.PLANNED,
            is_redelivery=is_redelivery,
            needs_abort=False,
            lock=None,
            polls=0,
            finished_at=None,
            **(nothing if state == DeliveryState.REMOVED else {}),
            **fresh,
        )
    return ids


def record_event(delivery: Delivery, kind: str, **values: Any) -> None:
    """Write into the run's log what happened to its delivery; values as for `events.record`."""
    events.record(delivery.run_id, kind, destination=delivery.destination.name, delivery=delivery.pk, **values)


def send_delivery(delivery_id: int, *, priority: int) -> None:
    """Send the tasks of a planned delivery as single messages, which a web request can do; chords are for workers.

    No more than the broker should hold at once; the reconciler sends the rest.
    """
    parts = DeliveryPart.objects.filter(delivery=delivery_id, state=PartitionState.PENDING)
    ids = list(parts.order_by("pk").values_list("pk", flat=True)[: settings.HEADGATE_CHORD_SIZE])
    for part_id in ids:
        dispatch.send(deliver_message(part_id, priority=priority))
    if not ids:
        dispatch.send(load_message(delivery_id, priority=priority))


def withdraw_deliveries(deliveries: QuerySet[Delivery], *, code: str, **values: Any) -> None:
    """End those of the deliveries that are under way, and have what they staged removed; in the caller's transaction.

    Their leases stay: what is to be removed is removed after the last holder has stopped (see `let_go`).
    """
    # Locked, so that one which is verified at this moment is seen as verified, and not called withdrawn.
    still_open = deliveries.filter(state__in=OPEN_DELIVERY_STATES).order_by("pk").select_for_update()
    ids = list(still_open.values_list("pk", flat=True))
    skip_unfinished(DeliveryPart, DeliveryPart.objects.filter(delivery__in=ids))
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
        record_event(delivery, "delivery.failed", level="warning", message=delivery.message, code=code)
        dispatch.send_after_commit(abort_message(delivery.pk))


def skip_unfinished(model: type[Partition | DeliveryPart], rows: QuerySet[Any]) -> None:
    """Skip those of the rows that are not finished; whoever works on one writes nothing any more."""
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


def fail_delivery(lease: Lease, code: str, message: str) -> None:
    """End the delivery as failed; the run goes on without it and a retry delivers again from the lake."""
    end_delivery(lease, DeliveryState.FAILED, code=code, message=message)


def end_delivery(lease: Lease, state: DeliveryState, *, code: str, message: str) -> None:
    """End the delivery in a state in which its run goes on without it, and give its lock back."""
    with transaction.atomic():
        lease.release(to=state, code=code, message=message, finished_at=Now(), lock=None)
        ended = Delivery.objects.select_related("destination").get(pk=lease.pk)
        record_event(ended, f"delivery.{state}", level="error", message=message, code=code)


def take_lock(delivery: Delivery, lease: Lease) -> None:
    """Let the delivery begin its load, and keep the others of its pipeline out until it ends.

    SinkUnavailable (`sink.busy`) while another one is at it, or an older run's has still to come; SinkRejected for an
    older run's rows where a newer publication has taken their place, and for rows that add to a full refresh which
    the destination was left without.
    """
    name = delivery.destination.name
    same = Delivery.objects.filter(destination=delivery.destination_id, run__pipeline=delivery.run.pipeline_id)
    earlier = same.filter(is_under_way(LOADING_STATES), run__lt=delivery.run_id, state__in=OPEN_DELIVERY_STATES)
    if earlier.exists():
        raise SinkUnavailable("sink.busy", destination=name, retry_after_s=_NEXT_TRY_S)
    later = newer_run_at(delivery.run, delivery.destination_id)
    if later is not None:
        raise SinkRejected("delivery.superseded", destination=name, later=later)
    base = _missing_base(delivery)
    if base is not None:
        raise SinkRejected("delivery.incomplete", destination=name, base=base)
    try:
        with transaction.atomic():
            note_staged(delivery, lease, lock=f"{delivery.destination_id}:{delivery.run.pipeline_id}")
    except IntegrityError as error:
        raise SinkUnavailable("sink.busy", destination=name, retry_after_s=_NEXT_TRY_S) from error


def note_staged(delivery: Delivery, lease: Lease, *, lock: str | None = None) -> None:
    """Note that all is staged and the load begins."""
    with transaction.atomic():
        lease.change(to=DeliveryState.STAGED, attempt=0, lock=lock)
        record_event(delivery, "delivery.staged")
    delivery.state = DeliveryState.STAGED


def send_next(delivery: Delivery) -> None:
    """Send the delivery that waits for the lock that this one has given back; called after the commit."""
    waiting = Delivery.objects.filter(
        is_under_way(LOADING_STATES),
        destination=delivery.destination_id,
        run__pipeline=delivery.run.pipeline_id,
        state=DeliveryState.PLANNED,
        lease_until__isnull=True,
        not_before__isnull=False,
    )
    following = waiting.select_related("run").order_by("run_id").first()
    if following is not None and waiting.filter(pk=following.pk).update(not_before=None, sent_at=Now()):
        dispatch.send(load_message(following.pk, priority=following.run.priority))


def _missing_base(delivery: Delivery) -> int | None:
    """Return the full refresh that these rows add to, where the destination was left without it."""
    run = delivery.run
    if write_mode(run) == WriteMode.REPLACE:
        return None
    refreshes = Run.objects.filter(
        pipeline=run.pipeline_id, pk__lt=run.pk, mode=Pipeline.Mode.FULL_REFRESH, state__in=PUBLISHED_RUN_STATES
    )
    base = refreshes.order_by("-pk").values_list("pk", flat=True).first()
    given_up = Delivery.objects.filter(run=base, destination=delivery.destination_id, state__in=UNDELIVERED_STATES)
    return base if base is not None and given_up.exists() else None


def newer_run_at(run: Run, destination_id: int) -> int | None:
    """Return a later run of the pipeline beside whose rows, at the destination, this run's may not be shown any more.

    A later full refresh has taken the place of all older rows; and an older full refresh would take away what later
    runs have added since.
    """
    newer = Delivery.objects.filter(
        destination=destination_id, run__pipeline=run.pipeline_id, run__gt=run.pk, state=DeliveryState.VERIFIED
    )
    if write_mode(run) != WriteMode.REPLACE:
        newer = newer.filter(run__mode=Pipeline.Mode.FULL_REFRESH)
    return newer.order_by("-run_id").values_list("run_id", flat=True).first()


def missing_runs(runs: Iterable[Run], destination: Destination) -> list[Run]:
    """Return those of the runs whose rows the destination neither has nor is about to get."""
    runs = list(runs)
    there = Delivery.objects.filter(destination=destination, run__in=[run.pk for run in runs])
    known = set(there.exclude(state__in=UNDELIVERED_STATES).values_list("run_id", flat=True))
    return [run for run in runs if run.pk not in known]


def deliver_to_new_destinations(run: Run) -> None:
    """Begin the deliveries of what those of the run's destinations lack that know nothing of its pipeline.

    A run that only adds to what was published before would leave such a destination with a part of the state. In the
    caller's transaction.
    """
    if write_mode(run) == WriteMode.REPLACE:
        return
    known = Delivery.objects.filter(destination=OuterRef("pk"), run__pipeline=run.pipeline_id).exclude(run=run)
    new = list(run.pipeline.destinations.filter(~Exists(known)).order_by("pk"))
    earlier = [found for found in published_runs(run.pipeline) if found.pk < run.pk] if new else []
    for destination in new:
        for found in earlier:
            begin_again(found, destination)


def begin_again(run: Run, destination: Destination, *, by: str = "") -> Delivery:
    """Return the delivery of a published run, planned or reopened; its tasks are sent after the commit."""
    reopen_deliveries(Delivery.objects.filter(run=run, destination=destination), is_redelivery=True)
    delivery = plan_delivery(run, destination, is_redelivery=True)
    record_event(delivery, "delivery.again", by=by)
    transaction.on_commit(lambda: send_delivery(delivery.pk, priority=run.priority), robust=True)
    delivery.refresh_from_db()
    return delivery
