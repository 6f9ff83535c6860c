"""The load stage: a delivery's staged parts are committed, awaited and counted; then the run can be published."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, F, OuterRef
from django.db.models.functions import Now

from ingestion import dispatch, registry
from ingestion.models import (
    OPEN_DELIVERY_STATES,
    UNFINISHED_PARTITION_STATES,
    Delivery,
    DeliveryPart,
    PartitionState,
    Run,
    RunState,
)
from ingestion.ports.context import Context
from ingestion.ports.errors import count_mismatch
from ingestion.ports.messages import sentence
from ingestion.ports.publication import DeliveryState, Receipt
from ingestion.ports.sink import CommitStep, PollingSink, Sink
from ingestion.runs.deliver import cancellation, rejections
from ingestion.runs.deliver.order import LOADING_STATES, begin, is_under_way, pass_on, take_turn
from ingestion.runs.record import events
from ingestion.runs.record.manifests import delivery_view, manifest_of
from ingestion.runs.work.attempts import Outcome, attempt
from ingestion.runs.work.contexts import sink_context
from ingestion.runs.work.leases import Lease, claim, is_due, is_free
from ingestion.runs.work.task_messages import load_message, publish_message
from ingestion.runs.work.transitions import move
from ingestion.toolkit.failpoints import failpoint

_COMMITTED = frozenset({DeliveryState.PUBLISHED, DeliveryState.AVAILABLE})
_LOOKED_AT = (DeliveryState.SUBMITTED, DeliveryState.PUBLISHED)
_TOGETHER = 100
"""Deliveries of one destination that are looked at with one question."""

Polled = dict[int, Mapping[str, Any]]


def load_if_staged(delivery_id: int, *, priority: int) -> None:
    """Nudge the load if no part of the delivery is left to stage; checked after the part's commit."""
    unfinished = DeliveryPart.objects.filter(delivery_id=delivery_id, state__in=UNFINISHED_PARTITION_STATES)
    if not unfinished.exists():
        dispatch.send(load_message(delivery_id, priority=priority))


def load_delivery(delivery_id: int) -> Outcome:
    """Take the delivery one step further: commit, look, count; the last one publishes the run.

    Safe to call twice, at once and late. Between two looks nobody waits: the row says when the next is due. Others of
    the same destination whose next look is due as well are taken along, where one question answers for all of them.
    """
    lease = _claim(delivery_id)
    if lease is None:
        return Outcome.NOT_MINE
    failpoint("load.claimed")
    delivery = _read(delivery_id)
    polled: Polled = {}
    outcome = _advance(delivery, lease, polled=polled)
    for other_id in [found for found in polled if found != delivery_id]:
        other_lease = _claim(other_id)
        if other_lease is not None:
            _advance(_read(other_id), other_lease, polled=polled)
    return outcome


def _claim(delivery_id: int) -> Lease | None:
    unfinished = DeliveryPart.objects.filter(delivery=OuterRef("pk"), state__in=UNFINISHED_PARTITION_STATES)
    return claim(
        Delivery,
        delivery_id,
        expected=tuple(OPEN_DELIVERY_STATES),
        only_if=is_under_way(LOADING_STATES) & ~Exists(unfinished),
    )


def _read(delivery_id: int) -> Delivery:
    return Delivery.objects.select_related("destination", "run__pipeline", "run__contract").get(pk=delivery_id)


def _advance(delivery: Delivery, lease: Lease, *, polled: Polled) -> Outcome:
    call = load_message(delivery.pk, priority=delivery.run.priority)
    # What a delivery has reached it keeps: its commit goes on from there.
    outcome = attempt(lease, call, lambda: _load(delivery, lease, polled=polled), back_to=None, fail=fail_delivery)
    if outcome is Outcome.STOPPED:
        cancellation.let_go(lease, delivery.pk)
    if outcome in (Outcome.DONE, Outcome.FAILED):
        go_on_if_loaded(delivery.run)
        if lease.state not in OPEN_DELIVERY_STATES:
            pass_on(delivery)
    return outcome


def go_on_if_loaded(run: Run) -> None:
    """Move the run to `loading` when all is staged and to `publishing` when all is loaded, and nudge the publication."""
    planned = Delivery.objects.filter(run=OuterRef("pk"), state=DeliveryState.PLANNED)
    unfinished = Delivery.objects.filter(run=OuterRef("pk"), state__in=OPEN_DELIVERY_STATES)
    rows = Run.objects.filter(pk=run.pk)
    move(rows.filter(~Exists(planned)), expected=RunState.DELIVERING, to=RunState.LOADING)
    for state in LOADING_STATES:
        if move(rows.filter(~Exists(unfinished)), expected=state, to=RunState.PUBLISHING, attempt=0, sent_at=Now()):
            dispatch.send(publish_message(run))


def fail_delivery(lease: Lease, code: str, message: str) -> None:
    """End the delivery as failed; the run goes on without it and a retry delivers again from the lake."""
    _end(lease, DeliveryState.FAILED, code=code, message=message)


def _end(lease: Lease, state: DeliveryState, *, code: str, message: str) -> None:
    with transaction.atomic():
        lease.release(to=state, code=code, message=message, finished_at=Now(), lock=None)
        name = Delivery.objects.filter(pk=lease.pk).values_list("destination__name", flat=True).get()
        events.record(
            lease.run_id,
            f"delivery.{state}",
            level="error",
            message=message,
            code=code,
            destination=name,
            delivery=lease.pk,
        )


def _load(delivery: Delivery, lease: Lease, *, polled: Polled) -> None:
    failed = delivery.parts.filter(state=PartitionState.FAILED).order_by("part__lane", "part__link").first()
    if failed is not None:
        fail_delivery(lease, failed.code, failed.message)
        return
    sink = registry.build_sink(delivery.destination)
    if delivery.state == DeliveryState.PLANNED:
        if sink.capabilities.orders_runs:
            begin(delivery, lease)
        else:
            take_turn(delivery, lease)
        go_on_if_loaded(delivery.run)
    with sink_context(lease, is_resumed=sink.capabilities.resumes_commit) as ctx:
        if delivery.pk not in polled and delivery.state in _LOOKED_AT and isinstance(sink, PollingSink):
            polled.update(_poll(sink, delivery, ctx))
        _commit(sink, delivery, lease, ctx, seen=polled.get(delivery.pk))


def _poll(sink: PollingSink, delivery: Delivery, ctx: Context) -> Polled:
    """Return what the destination says of this delivery and of all others whose next look is due."""
    others = Delivery.objects.filter(
        is_under_way(LOADING_STATES), is_free(), is_due(), destination=delivery.destination_id, state__in=_LOOKED_AT
    ).exclude(pk=delivery.pk)
    rows = [
        delivery,
        *others.select_related("destination", "run__pipeline", "run__contract").order_by("pk")[:_TOGETHER],
    ]
    return dict(sink.poll([delivery_view(row, row.run) for row in rows], ctx))


def _commit(sink: Sink, delivery: Delivery, lease: Lease, ctx: Context, *, seen: Mapping[str, Any] | None) -> None:
    run = delivery.run
    manifest = manifest_of(run)
    while True:
        lease.beat(is_resumed=False)
        step = sink.commit(manifest, replace(delivery_view(delivery, run), polled=seen), ctx)
        failpoint("load.committed")
        # What was seen is used once: the next call may already have caused something else.
        seen = None
        if step.state == DeliveryState.PUBLISHED_NOT_LOADED:
            name = delivery.destination.name
            message = step.note or sentence("sink.not_loaded", {"destination": name})
            _end(lease, DeliveryState.PUBLISHED_NOT_LOADED, code="sink.not_loaded", message=message)
            return
        _note(delivery, lease, step)
        if step.next_poll_s:
            lease.release(
                attempt=0,
                polls=F("polls") + 1,
                sent_at=Now(),
                not_before=Now() + timedelta(seconds=step.next_poll_s),
            )
            call = load_message(delivery.pk, priority=run.priority)
            dispatch.send_after_commit(call, countdown_s=step.next_poll_s)
            return
        if step.state in _COMMITTED and step.receipt is not None:
            break
    counted = sink.count(manifest, delivery_view(delivery, run), ctx)
    _verify(delivery, step.receipt, counted=counted, accepted=manifest.rows)
    with transaction.atomic():
        lease.release(to=DeliveryState.VERIFIED, counted=counted, finished_at=Now(), attempt=0, lock=None)
        events.record(
            run.pk, "delivery.verified", destination=delivery.destination.name, delivery=delivery.pk, rows=counted
        )
        failpoint("load.before_commit")
    failpoint("load.after_commit")


def _note(delivery: Delivery, lease: Lease, step: CommitStep) -> None:
    """Write what the step reached before anything is done on the strength of it (rule R8)."""
    refs = {**delivery.refs, **step.refs}
    counts = {}
    refused = rejections.store_rejected(delivery, step.receipt) if step.receipt is not None else []
    if step.receipt is not None:
        counts = {name: getattr(step.receipt, name) for name in ("inserted", "updated", "unchanged", "rejected")}
    with transaction.atomic():
        lease.change(to=step.state, refs=refs, **counts)
        rejections.replace_rejected(delivery, refused)
        if step.state != delivery.state or step.note:
            events.record(
                delivery.run_id,
                f"delivery.{step.state}",
                message=step.note,
                destination=delivery.destination.name,
                delivery=delivery.pk,
            )
    delivery.refs, delivery.state = refs, step.state


def _verify(delivery: Delivery, receipt: Receipt, *, counted: int, accepted: int) -> None:
    """Raise unless the destination accounts for every accepted row, and shows what it says it took."""
    accounted = receipt.inserted + receipt.updated + receipt.unchanged + receipt.rejected
    for stage, found, expected in (("staging", accounted, accepted), ("loading", counted, receipt.visible)):
        if found != expected:
            raise count_mismatch(delivery.destination.name, stage=stage, found=found, expected=expected)
