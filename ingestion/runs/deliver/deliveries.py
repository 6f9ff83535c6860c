"""The rows of a delivery: planned with a part for each clean part, reopened, sent on their way."""

from django.conf import settings
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from ingestion import dispatch
from ingestion.models import (
    UNDELIVERED_STATES,
    Delivery,
    DeliveryPart,
    Destination,
    Part,
    PartitionState,
    Run,
)
from ingestion.ports.publication import DeliveryState
from ingestion.runs.record import events
from ingestion.runs.work.task_messages import deliver_message, load_message
from ingestion.runs.work.transitions import move

_ENDED = (PartitionState.DONE, PartitionState.FAILED, PartitionState.SKIPPED)


def plan_delivery(run: Run, destination: Destination, *, is_redelivery: bool = False) -> Delivery:
    """Return the run's delivery into the destination with a row per clean part; what is there already stays as it is."""
    delivery, _ = Delivery.objects.get_or_create(
        run=run, destination=destination, defaults={"is_redelivery": is_redelivery}
    )
    parts = Part.objects.filter(run=run, zone=Part.Zone.CLEAN, rows__gt=0).order_by("lane", "link", "seq")
    DeliveryPart.objects.bulk_create(
        [DeliveryPart(delivery=delivery, part=part, sent_at=Now()) for part in parts], ignore_conflicts=True
    )
    return delivery


def reopen_deliveries(deliveries: QuerySet[Delivery], *, is_redelivery: bool = False) -> list[int]:
    """Let those of the deliveries begin anew that were given up, and return which; their notes of it stay."""
    ids = list(deliveries.filter(state__in=UNDELIVERED_STATES).values_list("pk", flat=True))
    fresh = {"code": "", "message": "", "attempt": 0, "not_before": None, "lease_until": None, "fence": F("fence") + 1}
    # The ids first: an update over a join is a subquery that some databases cannot take.
    parts = list(DeliveryPart.objects.filter(delivery__in=ids).values_list("pk", flat=True))
    # All of them: what was staged may have made way for a later run, and staging what is there costs a look.
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


def note_begun_again(delivery: Delivery, *, by: str) -> None:
    """Write into the run's log that the delivery is made again, and who asked for it."""
    events.record(delivery.run_id, "delivery.again", destination=delivery.destination.name, delivery=delivery.pk, by=by)


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
