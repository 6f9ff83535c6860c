"""The allowed moves of every state machine, one table each, and the moves made without a lease.

Every move is a compare-and-set against its table.
"""

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet

from ingestion.models import Delivery, DeliveryPart, Partition, Run
from ingestion.models import PartitionState as P
from ingestion.models import RunState as R
from ingestion.models.leased import Leased
from ingestion.ports.publication import DeliveryState as D

RUN_MOVES: Mapping[str, frozenset[str]] = {
    R.PENDING: frozenset({R.PLANNING, R.FAILED, R.CANCELLED}),
    R.PLANNING: frozenset({R.RUNNING, R.COMPLETING, R.FAILED, R.CANCELLED}),
    R.RUNNING: frozenset({R.COMPLETING, R.FAILED, R.CANCELLED}),
    R.COMPLETING: frozenset({R.HELD, R.DELIVERING, R.PUBLISHING, R.FAILED, R.CANCELLED}),
    R.HELD: frozenset({R.COMPLETING, R.FAILED, R.CANCELLED}),
    R.DELIVERING: frozenset({R.LOADING, R.PUBLISHING, R.FAILED, R.CANCELLED}),
    R.LOADING: frozenset({R.PUBLISHING, R.FAILED, R.CANCELLED}),
    R.PUBLISHING: frozenset({R.SUCCEEDED, R.PARTIAL, R.FAILED}),
    R.SUCCEEDED: frozenset(),
    # reopened by a retry, where they stopped
    R.PARTIAL: frozenset({R.RUNNING, R.DELIVERING}),
    R.FAILED: frozenset({R.PENDING, R.RUNNING, R.COMPLETING, R.DELIVERING}),
    R.CANCELLED: frozenset(),
}
CANCELLABLE_RUN_STATES = frozenset(state for state, moves in RUN_MOVES.items() if R.CANCELLED in moves)

PARTITION_MOVES: Mapping[str, frozenset[str]] = {
    P.PENDING: frozenset({P.LEASED, P.FAILED, P.SKIPPED}),
    P.LEASED: frozenset({P.LEASED, P.PENDING, P.DONE, P.FAILED, P.SKIPPED}),
    P.DONE: frozenset(),
    P.FAILED: frozenset({P.PENDING}),
    P.SKIPPED: frozenset(),
}

# staged again by a retry: what was staged may have been cleared away since
DELIVERY_PART_MOVES: Mapping[str, frozenset[str]] = {
    **PARTITION_MOVES,
    P.DONE: frozenset({P.PENDING}),
    P.SKIPPED: frozenset({P.PENDING}),
}

DELIVERY_MOVES: Mapping[str, frozenset[str]] = {
    D.PLANNED: frozenset({D.STAGED, D.FAILED}),
    D.STAGED: frozenset({D.SUBMITTED, D.PUBLISHED, D.AVAILABLE, D.VERIFIED, D.FAILED}),
    D.SUBMITTED: frozenset({D.PUBLISHED, D.AVAILABLE, D.VERIFIED, D.PUBLISHED_NOT_LOADED, D.FAILED}),
    # back to submitted where what was published is short and a person has it brought anew
    D.PUBLISHED: frozenset({D.SUBMITTED, D.AVAILABLE, D.VERIFIED, D.PUBLISHED_NOT_LOADED, D.FAILED}),
    # taken up again by a retry, which sees what is there before it does anything
    D.PUBLISHED_NOT_LOADED: frozenset({D.PLANNED, D.FAILED}),
    D.AVAILABLE: frozenset({D.VERIFIED, D.FAILED}),
    # by a person only, who has the destination emptied
    D.VERIFIED: frozenset({D.REMOVED}),
    D.FAILED: frozenset({D.PLANNED}),
    D.REMOVED: frozenset({D.PLANNED}),
}


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
