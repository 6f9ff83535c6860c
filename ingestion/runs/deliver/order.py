"""Whose turn it is: of one pipeline's deliveries into one destination one is loaded at a time, in the order of runs.

A destination that replaces or merges reads what is there before it writes; two of them at once would lose rows.
"""

from collections.abc import Collection

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now

from ingestion import dispatch
from ingestion.models import (
    OPEN_DELIVERY_STATES,
    PUBLISHED_RUN_STATES,
    UNDELIVERED_STATES,
    Delivery,
    Pipeline,
    Run,
    RunState,
)
from ingestion.ports.errors import SinkRejected, SinkUnavailable
from ingestion.ports.publication import DeliveryState, WriteMode
from ingestion.runs.record import events
from ingestion.runs.record.manifests import write_mode
from ingestion.runs.work.leases import Lease
from ingestion.runs.work.task_messages import load_message

LOADING_STATES = (RunState.DELIVERING, RunState.LOADING)
_LOOK_AGAIN_S = 15.0
"""Whoever ends wakes the next one; this is for the case that the message is lost."""


def is_under_way(run_states: Collection[str], *, through: str = "") -> Q:
    """Return the condition that a delivery may be worked on: its run is that far, or it is made from a published run."""
    late = Q(**{f"{through}is_redelivery": True, f"{through}run__state__in": PUBLISHED_RUN_STATES})
    return Q(**{f"{through}run__state__in": tuple(run_states)}) | late


def take_turn(delivery: Delivery, lease: Lease) -> None:
    """Let the delivery begin its load, and keep the others of its pipeline out until it ends.

    SinkUnavailable (`sink.busy`) while another one is at it, or an older run's has still to come; SinkRejected for an
    older run's rows where a newer publication has taken their place, and for rows that add to a full refresh which
    the destination was left without.
    """
    name = delivery.destination.name
    same = Delivery.objects.filter(destination=delivery.destination_id, run__pipeline=delivery.run.pipeline_id)
    earlier = same.filter(is_under_way(LOADING_STATES), run__lt=delivery.run_id, state__in=OPEN_DELIVERY_STATES)
    if earlier.exists():
        raise SinkUnavailable("sink.busy", destination=name, retry_after_s=_LOOK_AGAIN_S)
    later = newer_run_there(delivery.run, delivery.destination_id)
    if later is not None:
        raise SinkRejected("delivery.superseded", destination=name, later=later)
    base = _missing_base(delivery)
    if base is not None:
        raise SinkRejected("delivery.incomplete", destination=name, base=base)
    try:
        with transaction.atomic():
            begin(delivery, lease, lock=f"{delivery.destination_id}:{delivery.run.pipeline_id}")
    except IntegrityError as error:
        raise SinkUnavailable("sink.busy", destination=name, retry_after_s=_LOOK_AGAIN_S) from error


def begin(delivery: Delivery, lease: Lease, *, lock: str | None = None) -> None:
    """Note that all is staged and the load begins."""
    with transaction.atomic():
        lease.change(to=DeliveryState.STAGED, attempt=0, lock=lock)
        events.record(lease.run_id, "delivery.staged", destination=delivery.destination.name, delivery=delivery.pk)
    delivery.state = DeliveryState.STAGED


def pass_on(delivery: Delivery) -> None:
    """Wake the delivery that waits for the place that this one has given back; called after the commit."""
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


def newer_run_there(run: Run, destination_id: int) -> int | None:
    """Return a later run of the pipeline beside whose rows, at the destination, this run's may not be shown any more.

    A later full refresh has taken the place of all older rows; and an older full refresh would take away what later
    runs have added since.
    """
    newer = Delivery.objects.filter(
        destination=destination_id, run__pipeline=run.pipeline_id, run__gt=run.pk, state=DeliveryState.VERIFIED
    )
    if write_mode(run) != WriteMode.REPLACE:
        newer = newer.filter(run__mode=Pipeline.Mode.FULL_REFRESH)
    return newer.order_by("-run").values_list("run_id", flat=True).first()
