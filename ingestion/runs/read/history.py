"""Deliveries as people see them: the ones that are asked for, how each went, and what its sink noted down."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from ingestion.models import Delivery, Destination, Pipeline, Run, RunEvent
from ingestion.ports.publication import DeliveryState
from ingestion.toolkit.redact import HIDDEN, is_secret_name, redact

MOST_LINES = 1000
"""Lines of the log that are looked through; of a longer one the newest."""
RENAMED_FIELDS = {"looks": "polls", "refused": "rejected"}
"""Older names of a delivery's fields, which machines are still told beside the newer ones, for one release."""
_NOTES_SHOWN = 20
_TEXT_SHOWN = 500
_AGAIN = "delivery.again"
_RETRIED = "attempt.failed"

SAID = {
    DeliveryState.PLANNED: "Its parts are brought there, and it waits for the lock.",
    DeliveryState.STAGED: "All parts are there; the load begins.",
    DeliveryState.SUBMITTED: "The destination has taken the load on.",
    DeliveryState.PUBLISHED: "The destination has taken the rows; readers are about to see them.",
    DeliveryState.AVAILABLE: "Readers see the rows; they are counted.",
    DeliveryState.VERIFIED: "The destination accounts for every row.",
    DeliveryState.PUBLISHED_NOT_LOADED: "The destination has taken the rows, but no reader sees them.",
    DeliveryState.FAILED: "It was given up.",
    DeliveryState.REMOVED: "A person had the rows removed from the destination.",
}
"""Sentences for the states, where the log has no sentence of its own."""


def with_old_names(told: dict[str, Any]) -> dict[str, Any]:
    """Return what a machine is told of a delivery, with the older names of its fields beside the newer ones."""
    return told | {old: told[new] for old, new in RENAMED_FIELDS.items() if new in told}


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One line of a delivery's history; `state` is empty where something happened that moved nothing."""

    at: datetime | None
    state: str
    message: str
    level: str = "info"
    by: str = ""


def find_deliveries(
    *,
    run: Run | int | None = None,
    pipeline: Pipeline | None = None,
    destination: Destination | None = None,
    state: str | None = None,
) -> QuerySet[Delivery]:
    """Return the deliveries that fit, newest first, with what their lines name."""
    wanted = {"run": run, "run__pipeline": pipeline, "destination": destination, "state": state}
    found = Delivery.objects.filter(**{name: value for name, value in wanted.items() if value is not None})
    return found.select_related("run__pipeline", "destination").order_by("-pk")


def history_of(delivery: Delivery) -> list[HistoryLine]:
    """Return what became of the delivery, in order."""
    return histories_of([delivery])[delivery.pk]


def histories_of(deliveries: Iterable[Delivery]) -> dict[int, list[HistoryLine]]:
    """Return the history of each of the deliveries by its number, with one question for all of them."""
    by_number = {delivery.pk: delivery for delivery in deliveries}
    told: dict[int, list[RunEvent]] = {number: [] for number in by_number}
    about = Q(kind__startswith="delivery.") | Q(kind=_RETRIED)
    events = RunEvent.objects.filter(about, run__in={delivery.run_id for delivery in by_number.values()})
    for event in reversed(events.order_by("-pk")[:MOST_LINES]):
        number = event.values.get("delivery") or event.values.get("delivery_id")
        if number in told:
            told[number].append(event)
    return {number: _history(delivery, told[number]) for number, delivery in by_number.items()}


def notes_of(delivery: Delivery) -> dict[str, Any]:
    """Return what the delivery's sink noted down, for people: no secrets, no signed addresses, nothing endless."""
    return {name: _shown(name, value) for name, value in delivery.refs.items()}


def task_of(delivery: Delivery) -> str:
    """Return the id of the task that the destination loads the delivery with; empty where it has none."""
    return str(delivery.refs.get("task") or "")


def deliveries_of_tasks(destination: Destination, task_ids: Collection[str]) -> dict[str, Delivery]:
    """Return by task id the delivery that the destination's task works for; tasks of earlier attempts are left out."""
    found = find_deliveries(destination=destination).filter(refs__task__in=list(task_ids))
    return {task_of(delivery): delivery for delivery in found}


def _history(delivery: Delivery, events: list[RunEvent]) -> list[HistoryLine]:
    lines = [_line(event) for event in events]
    if not events or events[0].kind != _AGAIN:
        lines.insert(0, HistoryLine(delivery.created_at, DeliveryState.PLANNED, SAID[DeliveryState.PLANNED]))
    reached = next(line.state for line in reversed(lines) if line.state)
    if reached != delivery.state:
        # A line from before states were written down, or from beyond the bound.
        said = delivery.message or SAID[DeliveryState(delivery.state)]
        lines.append(HistoryLine(delivery.finished_at, delivery.state, redact(said)))
    return lines


def _line(event: RunEvent) -> HistoryLine:
    values: Mapping[str, Any] = event.values
    name = event.kind.removeprefix("delivery.")
    state = DeliveryState.PLANNED if event.kind == _AGAIN else name if name in set(DeliveryState) else ""
    message = event.message
    if not message and state == DeliveryState.VERIFIED and "rows" in values:
        message = f"Readers see {values['rows']} rows, as they should."
    elif not message and event.kind == _AGAIN:
        message = "Made again, from the lake."
    elif not message and state:
        message = SAID[DeliveryState(state)]
    return HistoryLine(event.created_at, str(state), message, event.level, str(values.get("by") or ""))


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shown(str(key), item) for key, item in list(value.items())[:_NOTES_SHOWN]}
    if isinstance(value, list | tuple):
        shown = [_shown(name, item) for item in value[:_NOTES_SHOWN]]
        return [*shown, f"and {len(value) - _NOTES_SHOWN} more"] if len(value) > _NOTES_SHOWN else shown
    if isinstance(value, str):
        return HIDDEN if is_secret_name(name) and value else _without_signature(value)
    return value


def _without_signature(text: str) -> str:
    """Return the text without secrets; of an address nothing that follows its path, which may be what signs it."""
    address, mark, _ = text.partition("?")
    shown = f"{address}?{HIDDEN}" if mark and "://" in address else text
    return redact(shown)[:_TEXT_SHOWN]
