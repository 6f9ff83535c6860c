"""The only writer of `state`: every move is a compare-and-set against the table of allowed moves."""

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet

from ingestion.models import Delivery, DeliveryPart, Partition, Run
from ingestion.models.leased import Leased
from ingestion.runs.work.states import DELIVERY_MOVES, DELIVERY_PART_MOVES, PARTITION_MOVES, RUN_MOVES

_MOVES: Mapping[type[Leased], Mapping[str, frozenset[str]]] = {
    Run: RUN_MOVES,
    Partition: PARTITION_MOVES,
    DeliveryPart: DELIVERY_PART_MOVES,
    Delivery: DELIVERY_MOVES,
}


class ForbiddenMove(AssertionError):
    """A defect of ours: the code asked for a move that the table does not have."""


def check_move(model: type[Leased], *, expected: str, to: str) -> None:
    """Raise ForbiddenMove unless the table of `model` allows the move; staying is always allowed."""
    if to != expected and to not in _MOVES[model][expected]:
        msg = f"{model.__name__} may not move from {expected} to {to}"
        raise ForbiddenMove(msg)


def move(rows: QuerySet[Any], *, expected: str, to: str, **changes: Any) -> int:
    """Move those of `rows` that are in `expected` to `to`, with `changes`; return how many moved."""
    check_move(rows.model, expected=expected, to=to)
    return rows.filter(state=expected).update(state=to, **changes)
