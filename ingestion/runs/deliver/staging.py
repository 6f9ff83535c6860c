"""The deliver stage: clean parts are staged at every destination; nothing left our lake before."""

from django.db import transaction

from ingestion import dispatch, registry
from ingestion.models import Delivery, DeliveryPart, PartitionState, Run, RunState
from ingestion.runs.deliver import loading
from ingestion.runs.deliver.deliveries import deliver_to_new_destinations, is_under_way, let_go, plan_delivery
from ingestion.runs.record.views import delivery_view, part_view
from ingestion.runs.work.attempts import Outcome, attempt
from ingestion.runs.work.contexts import sink_context
from ingestion.runs.work.leases import Lease, claim
from ingestion.runs.work.task_messages import deliver_message, load_message, publish_message
from ingestion.toolkit.failpoints import failpoint


def prepare_deliveries(run: Run) -> RunState:
    """Write one delivery per destination with a row per clean part; return the state the run goes on to.

    Called in the transaction that completes the run; rows that are there already stay as they are. A destination
    that was added to the pipeline since its last run is filled with what was published before.
    """
    destinations = list(run.pipeline.destinations.order_by("pk"))
    for destination in destinations:
        plan_delivery(run, destination)
    deliver_to_new_destinations(run)
    return RunState.DELIVERING if destinations else RunState.PUBLISHING


def start_deliveries(run_id: int) -> None:
    """Send the tasks of every delivery that has not begun: its parts, then its load; without any, the publication."""
    run = Run.objects.get(pk=run_id)
    if run.state == RunState.PUBLISHING:
        dispatch.send(publish_message(run_id, priority=run.priority))
        return
    deliveries = Delivery.objects.filter(run=run, state=Delivery.State.PLANNED).order_by("pk")
    for delivery in deliveries if run.state == RunState.DELIVERING else ():
        parts = delivery.parts.filter(state=PartitionState.PENDING).values_list("pk", flat=True)
        calls = [[deliver_message(pk, priority=run.priority)] for pk in parts]
        load = load_message(delivery.pk, priority=run.priority)
        if calls:
            dispatch.send_chord(calls, load)
        else:
            dispatch.send(load)


def deliver_part(delivery_part_id: int, *, is_in_chord: bool = False) -> Outcome:
    """Stage one clean part at one destination; the last one sends the load, unless it is the body of its chord.

    Safe to call twice, at once and late.
    """
    lease = claim(
        DeliveryPart,
        delivery_part_id,
        expected=(PartitionState.PENDING, PartitionState.LEASED),
        to=PartitionState.LEASED,
        only_if=is_under_way((RunState.DELIVERING,), through="delivery__"),
    )
    if lease is None:
        return Outcome.NOT_MINE
    failpoint("deliver.claimed")
    row = DeliveryPart.objects.select_related(
        "part", "delivery__destination", "delivery__run__pipeline", "delivery__run__contract"
    ).get(pk=delivery_part_id)
    priority = row.delivery.run.priority
    outcome = attempt(
        lease,
        deliver_message(row.pk, priority=priority),
        lambda: _deliver(row, lease),
        back_to=PartitionState.PENDING,
        fail=_fail_part,
    )
    if outcome is Outcome.STOPPED:
        let_go(lease, row.delivery_id)
    if outcome in (Outcome.DONE, Outcome.FAILED):
        loading.load_if_staged(row.delivery_id, priority=priority, is_in_chord=is_in_chord)
    return outcome


def _deliver(row: DeliveryPart, lease: Lease) -> None:
    delivery = row.delivery
    sink = registry.build_sink(delivery.destination)
    with sink_context(lease, is_resumed=False) as ctx:
        receipt = sink.stage(part_view(row.part), delivery_view(delivery, delivery.run), ctx)
    failpoint("deliver.staged")
    with transaction.atomic():
        lease.release(to=PartitionState.DONE, rows=row.part.rows or 0, rejected=receipt.rejected)
        failpoint("deliver.before_commit")
    failpoint("deliver.after_commit")


def _fail_part(lease: Lease, code: str, message: str) -> None:
    lease.release(to=PartitionState.FAILED, code=code, message=message)
