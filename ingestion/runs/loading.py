"""The load stage: a delivery's staged parts are committed, awaited and counted; then the run can be published."""

from datetime import timedelta

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Now

from ingestion import dispatch, registry
from ingestion.dispatch import Call
from ingestion.models import (
    OPEN_DELIVERY_STATES,
    UNFINISHED_PARTITION_STATES,
    Delivery,
    DeliveryPart,
    PartitionState,
    Run,
    RunState,
)
from ingestion.ports.errors import SinkRejected
from ingestion.ports.sink import CommitStep, DeliveryState, Receipt
from ingestion.runs import events
from ingestion.runs.attempts import Outcome, attempt
from ingestion.runs.context import sink_context
from ingestion.runs.leases import Lease, claim
from ingestion.runs.manifests import delivery_view, manifest_of
from ingestion.runs.transitions import move
from ingestion.toolkit.failpoints import failpoint

_LOADING_STATES = (RunState.DELIVERING, RunState.LOADING)
_COMMITTED = frozenset({DeliveryState.PUBLISHED, DeliveryState.AVAILABLE})


def load_call(delivery_id: int, *, priority: int = 5, step: int = 0) -> Call:
    """Return the nudge that loads the delivery."""
    return Call("ingestion.load", {"delivery_id": delivery_id}, priority, step)


def publish_call(run: Run, *, step: int = 0) -> Call:
    """Return the nudge that publishes the run."""
    return Call("ingestion.publish_run", {"run_id": run.pk}, run.priority, step)


def load_if_staged(delivery_id: int, *, priority: int) -> None:
    """Nudge the load if no part of the delivery is left to stage; checked after the part's commit."""
    unfinished = DeliveryPart.objects.filter(delivery_id=delivery_id, state__in=UNFINISHED_PARTITION_STATES)
    if not unfinished.exists():
        dispatch.publish(load_call(delivery_id, priority=priority))


def load_delivery(delivery_id: int) -> Outcome:
    """Take the delivery one step further: commit, look, count; the last one publishes the run.

    Safe to call twice, at once and late. Between two looks nobody waits: the row says when the next is due.
    """
    unfinished = DeliveryPart.objects.filter(delivery=OuterRef("pk"), state__in=UNFINISHED_PARTITION_STATES)
    lease = claim(
        Delivery,
        delivery_id,
        expected=tuple(OPEN_DELIVERY_STATES),
        only_if=Q(run__state__in=_LOADING_STATES) & ~Exists(unfinished),
    )
    if lease is None:
        return Outcome.NOT_MINE
    failpoint("load.claimed")
    delivery = Delivery.objects.select_related("destination", "run__pipeline", "run__contract").get(pk=delivery_id)
    call = load_call(delivery_id, priority=delivery.run.priority)
    outcome = attempt(lease, call, lambda: _load(delivery, lease), back_to=lease.state, fail=fail_delivery)
    if outcome in (Outcome.DONE, Outcome.FAILED):
        go_on_if_loaded(delivery.run)
    return outcome


def go_on_if_loaded(run: Run) -> None:
    """Move the run to `loading` when all is staged and to `publishing` when all is loaded, and nudge the publication."""
    planned = Delivery.objects.filter(run=OuterRef("pk"), state=DeliveryState.PLANNED)
    unfinished = Delivery.objects.filter(run=OuterRef("pk"), state__in=OPEN_DELIVERY_STATES)
    rows = Run.objects.filter(pk=run.pk)
    move(rows.filter(~Exists(planned)), expected=RunState.DELIVERING, to=RunState.LOADING)
    for state in _LOADING_STATES:
        if move(rows.filter(~Exists(unfinished)), expected=state, to=RunState.PUBLISHING, attempt=0, nudged_at=Now()):
            dispatch.publish(publish_call(run))


def fail_delivery(lease: Lease, code: str, message: str) -> None:
    """End the delivery as failed; the run goes on without it and a retry delivers again from the lake."""
    with transaction.atomic():
        lease.release(to=DeliveryState.FAILED, code=code, message=message, finished_at=Now())
        name = Delivery.objects.filter(pk=lease.pk).values_list("destination__name", flat=True).get()
        events.record(lease.run_id, "delivery.failed", level="error", message=message, code=code, destination=name)


def _load(delivery: Delivery, lease: Lease) -> None:
    failed = delivery.parts.filter(state=PartitionState.FAILED).order_by("part__lane", "part__link").first()
    if failed is not None:
        fail_delivery(lease, failed.code, failed.message)
        return
    if delivery.state == DeliveryState.PLANNED:
        lease.change(to=DeliveryState.STAGED, attempt=0)
        delivery.state = DeliveryState.STAGED
        go_on_if_loaded(delivery.run)
    run = delivery.run
    sink = registry.build_sink(delivery.destination)
    ctx = sink_context(lease)
    manifest = manifest_of(run)
    while True:
        lease.raise_if_revoked()
        step = sink.commit(manifest, delivery_view(delivery, run), ctx)
        failpoint("load.committed")
        _note(delivery, lease, step)
        if step.look_again_s:
            lease.release(
                attempt=0,
                looks=F("looks") + 1,
                nudged_at=Now(),
                not_before=Now() + timedelta(seconds=step.look_again_s),
            )
            call = load_call(delivery.pk, priority=run.priority)
            dispatch.publish_after_commit(call, countdown_s=step.look_again_s)
            return
        if step.state in _COMMITTED and step.receipt is not None:
            break
    counted = sink.count(manifest, delivery_view(delivery, run), ctx)
    _verify(delivery, step.receipt, counted=counted, accepted=manifest.rows)
    with transaction.atomic():
        lease.release(to=DeliveryState.VERIFIED, counted=counted, finished_at=Now(), attempt=0)
        events.record(run.pk, "delivery.verified", destination=delivery.destination.name, rows=counted)
        failpoint("load.before_commit")
    failpoint("load.after_commit")


def _note(delivery: Delivery, lease: Lease, step: CommitStep) -> None:
    """Write what the step reached before anything is done on the strength of it (rule R8)."""
    refs = {**delivery.refs, **step.refs}
    counts = {}
    if step.receipt is not None:
        counts = {name: getattr(step.receipt, name) for name in ("inserted", "updated", "unchanged", "refused")}
    lease.change(to=step.state, refs=refs, **counts)
    delivery.refs, delivery.state = refs, step.state


def _verify(delivery: Delivery, receipt: Receipt, *, counted: int, accepted: int) -> None:
    """Raise unless the destination accounts for every accepted row, and shows what it says it took."""
    accounted = receipt.inserted + receipt.updated + receipt.unchanged + receipt.refused
    for stage, found, expected in (("staging", accounted, accepted), ("loading", counted, receipt.visible)):
        if found != expected:
            raise SinkRejected(
                "sink.count_mismatch",
                destination=delivery.destination.name,
                found=found,
                expected=expected,
                short=expected - found,
                stage=stage,
            )
