"""The load stage: a delivery's staged parts are committed, awaited and counted; then the run can be published.

Rows that the destination would not take go to quarantine one by one, with the record and the reason.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
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
    Part,
    PartitionState,
    Run,
    RunState,
)
from ingestion.ports.context import Context
from ingestion.ports.errors import SinkRejected, count_mismatch
from ingestion.ports.messages import sentence
from ingestion.ports.publication import DeliveryState, Receipt, Rejection
from ingestion.ports.sink import CommitStep, PollingSink, Sink, VerifyingSink
from ingestion.runs.deliver.deliveries import (
    LOADING_STATES,
    end_delivery,
    fail_delivery,
    is_under_way,
    let_go,
    note_staged,
    record_event,
    send_next,
    take_lock,
)
from ingestion.runs.record.lake import make_part, open_lake
from ingestion.runs.record.views import delivery_view, manifest_of, part_view
from ingestion.runs.work.attempts import Outcome, attempt
from ingestion.runs.work.contexts import sink_context
from ingestion.runs.work.leases import Lease, claim, is_due, is_free
from ingestion.runs.work.states import move
from ingestion.runs.work.task_messages import load_message, publish_message
from ingestion.toolkit.failpoints import failpoint

_COMMITTED = frozenset({DeliveryState.PUBLISHED, DeliveryState.AVAILABLE})
_POLLED_STATES = (DeliveryState.SUBMITTED, DeliveryState.PUBLISHED)
_TOGETHER = 100
"""Deliveries of one destination that are polled with one question."""

Polled = dict[int, Mapping[str, Any]]


def load_if_staged(delivery_id: int, *, priority: int, is_in_chord: bool) -> None:
    """Send the load if no part of the delivery is left to stage, unless a chord does it; checked after the commit."""
    unfinished = DeliveryPart.objects.filter(delivery=OuterRef("pk"), state__in=UNFINISHED_PARTITION_STATES)
    staged = Delivery.objects.filter(~Exists(unfinished), pk=delivery_id)
    if staged.update(sent_at=Now()) and not is_in_chord:
        dispatch.send(load_message(delivery_id, priority=priority))


def load_delivery(delivery_id: int) -> Outcome:
    """Take the delivery one step further: commit, poll, count; the last one publishes the run.

    Safe to call twice, at once and late. Between two polls nobody waits: the row says when the next is due. Others of
    the same destination whose next poll is due as well are taken along, where one question answers for all of them.
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
        let_go(lease, delivery.pk)
    if outcome in (Outcome.DONE, Outcome.FAILED):
        go_on_if_loaded(delivery.run)
        if lease.state not in OPEN_DELIVERY_STATES:
            send_next(delivery)
    return outcome


def go_on_if_loaded(run: Run) -> None:
    """Move the run to `loading` when all is staged and to `publishing` when all is loaded, and send the publication."""
    planned = Delivery.objects.filter(run=OuterRef("pk"), state=DeliveryState.PLANNED)
    unfinished = Delivery.objects.filter(run=OuterRef("pk"), state__in=OPEN_DELIVERY_STATES)
    rows = Run.objects.filter(pk=run.pk)
    move(rows.filter(~Exists(planned)), expected=RunState.DELIVERING, to=RunState.LOADING)
    for state in LOADING_STATES:
        if move(rows.filter(~Exists(unfinished)), expected=state, to=RunState.PUBLISHING, attempt=0, sent_at=Now()):
            dispatch.send(publish_message(run.pk, priority=run.priority))


def _load(delivery: Delivery, lease: Lease, *, polled: Polled) -> None:
    failed = delivery.parts.filter(state=PartitionState.FAILED).order_by("part__lane", "part__link").first()
    if failed is not None:
        fail_delivery(lease, failed.code, failed.message)
        return
    sink = registry.build_sink(delivery.destination)
    if delivery.state == DeliveryState.PLANNED:
        if sink.capabilities.orders_runs:
            note_staged(delivery, lease)
        else:
            take_lock(delivery, lease)
        go_on_if_loaded(delivery.run)
    with sink_context(lease, is_resumed=sink.capabilities.resumes_commit) as ctx:
        if delivery.pk not in polled and delivery.state in _POLLED_STATES and isinstance(sink, PollingSink):
            polled.update(_poll(sink, delivery, ctx))
        _commit(sink, delivery, lease, ctx, seen=polled.get(delivery.pk))


def _poll(sink: PollingSink, delivery: Delivery, ctx: Context) -> Polled:
    """Return what the destination says of this delivery and of all others whose next poll is due."""
    others = Delivery.objects.filter(
        is_under_way(LOADING_STATES), is_free(), is_due(), destination=delivery.destination_id, state__in=_POLLED_STATES
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
            end_delivery(lease, DeliveryState.PUBLISHED_NOT_LOADED, code="sink.not_loaded", message=message)
            return
        _note(delivery, lease, step)
        if step.next_poll_s:
            due_at = Now() + timedelta(seconds=step.next_poll_s)
            lease.release(attempt=0, polls=F("polls") + 1, sent_at=due_at, not_before=due_at)
            call = load_message(delivery.pk, priority=run.priority)
            dispatch.send_after_commit(call, countdown_s=step.next_poll_s)
            return
        if step.state in _COMMITTED and step.receipt is not None:
            break
    counted = sink.count(manifest, delivery_view(delivery, run), ctx)
    _verify(delivery, step.receipt, counted=counted, accepted=manifest.rows)
    if isinstance(sink, VerifyingSink) and (found := sink.differences(manifest, delivery_view(delivery, run), ctx)):
        raise SinkRejected("sink.content_mismatch", destination=delivery.destination.name, detail="; ".join(found))
    with transaction.atomic():
        lease.release(to=DeliveryState.VERIFIED, counted=counted, finished_at=Now(), attempt=0, lock=None)
        record_event(delivery, "delivery.verified", rows=counted)
        failpoint("load.before_commit")
    failpoint("load.after_commit")


def _note(delivery: Delivery, lease: Lease, step: CommitStep) -> None:
    """Write what the step reached before anything is done on the strength of it (rule R8)."""
    refs = {**delivery.refs, **step.refs}
    counts = {}
    rejected = _store_rejected(delivery, step.receipt) if step.receipt is not None else []
    if step.receipt is not None:
        counts = {name: getattr(step.receipt, name) for name in ("inserted", "updated", "unchanged", "rejected")}
    if step.state != delivery.state:
        counts["attempt"] = 0
    with transaction.atomic():
        lease.change(to=step.state, refs=refs, **counts)
        _replace_rejected(delivery, rejected)
        if step.state != delivery.state or step.note:
            record_event(delivery, f"delivery.{step.state}", message=step.note)
    delivery.refs, delivery.state = refs, step.state


def _verify(delivery: Delivery, receipt: Receipt, *, counted: int, accepted: int) -> None:
    """Raise unless the destination accounts for every accepted row, and shows what it says it took."""
    accounted = receipt.inserted + receipt.updated + receipt.unchanged + receipt.rejected
    for stage, found, expected in (("staging", accounted, accepted), ("loading", counted, receipt.visible)):
        if found != expected:
            raise count_mismatch(delivery.destination.name, stage=stage, found=found, expected=expected)


def _store_rejected(delivery: Delivery, receipt: Receipt) -> list[Part]:
    """Return the unsaved rows of the parts that hold the rejected records, their objects stored.

    SinkRejected where the receipt counts other rows than it names: each rejected row must be found again.
    """
    if len(receipt.rejections) != receipt.rejected:
        raise SinkRejected(
            "sink.refusals_unnamed",
            destination=delivery.destination.name,
            named=len(receipt.rejections),
            rejected=receipt.rejected,
        )
    by_part: dict[str, list[Rejection]] = defaultdict(list)
    for rejection in receipt.rejections:
        by_part[rejection.part].append(rejection)
    if not by_part:
        return []
    clean = Part.objects.filter(run=delivery.run, zone=Part.Zone.CLEAN).order_by("lane", "link", "seq")
    return [
        _make_rejected_part(delivery, part, by_part[part_view(part).name])
        for part in clean
        if part_view(part).name in by_part
    ]


def _replace_rejected(delivery: Delivery, parts: Sequence[Part]) -> None:
    """Let `parts` be what the delivery's destination rejected, in the caller's transaction."""
    stored = Part.objects.filter(delivery=delivery)
    if parts or stored.exists():
        stored.delete()
        Part.objects.bulk_create(parts)


def _make_rejected_part(delivery: Delivery, part: Part, rejections: Sequence[Rejection]) -> Part:
    from ingestion.quality.parts import write_rejected  # noqa: PLC0415 (heavy, and few deliveries have any)
    from ingestion.quality.rejects import reject_rows  # noqa: PLC0415
    from ingestion.toolkit.clean.reader import open_part  # noqa: PLC0415

    ordered = sorted(rejections, key=lambda rejection: rejection.index)
    with open_part(open_lake(), part_view(part)) as file:
        table = file.take([rejection.index for rejection in ordered])
    made = make_part(
        delivery.run,
        Part.Zone.REFUSED,
        lane=part.lane,
        link=part.link,
        seq=part.seq,
        table=reject_rows(table, ordered),
        write=write_rejected,
    )
    made.delivery = delivery
    return made
