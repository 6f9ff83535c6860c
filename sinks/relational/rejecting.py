"""Rows that a database rejects: found by halving, so that all the others land.

A batch is tried whole first; a clean one costs nothing more. Where it fails for a row's sake, its halves are tried, and
theirs, down to the row. Each try is undone alone (a savepoint), so what was taken before stays.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from ingestion.ports.errors import SinkRejected
from ingestion.ports.publication import Rejection
from sinks.relational.connection import Connection
from sinks.relational.diagnosis import Diagnosis, ErrorClass

T = TypeVar("T")


@dataclass
class Rejections:
    """The rows rejected so far; one more than `limit` fails the delivery."""

    destination: str
    limit: int
    rows: list[Rejection] = field(default_factory=list)

    def add(self, rejection: Rejection) -> None:
        """Note a rejected row; SinkRejected where it is one too many."""
        self.rows.append(rejection)
        if len(self.rows) > self.limit:
            raise SinkRejected(
                "sink.too_many_refused",
                destination=self.destination,
                limit=self.limit,
                rule=rejection.rule,
                detail=rejection.message,
            )

    @property
    def in_order(self) -> tuple[Rejection, ...]:
        """Return the rejected rows by part and place."""
        return tuple(sorted(self.rows, key=lambda row: (row.part, row.index)))


def rejection_of(diagnosis: Diagnosis, *, part: str, index: int) -> Rejection:
    """Return the rejection of one row."""
    return Rejection(part, index, rule=diagnosis.rule, message=diagnosis.message, column=diagnosis.column)


def take_rows(
    row_count: int,
    attempt: Callable[[int, int], T],
    *,
    connection: Connection,
    reject: Callable[[int, Diagnosis], None],
    is_tried: bool = False,
) -> Iterator[T]:
    """Yield what `attempt(first, end)` returns for ranges that together hold every row that is not rejected, in order.

    `attempt` undoes itself where it raises an error of the driver; those that are not a row's fault are let through.
    `is_tried`: all rows together have failed already.
    """
    # A place that a database names is tried first; it counts line breaks within values, so it may be wrong once.
    middle = row_count // 2
    waiting = [(middle, row_count, True), (0, middle, True)] if is_tried and middle else [(0, row_count, True)]
    while waiting:
        first, end, trusts_place = waiting.pop()
        if first == end:
            continue
        try:
            taken = attempt(first, end)
        except connection.driver_errors as error:
            diagnosis = connection.diagnose(error)
            if diagnosis.error_class is not ErrorClass.ROW:
                raise
            if end - first == 1:
                reject(first, diagnosis)
                continue
            place = first + diagnosis.at if trusts_place and diagnosis.at is not None else end
            if place < end:
                waiting += [(place + 1, end, True), (place, place + 1, False), (first, place, False)]
            else:
                middle = (first + end) // 2
                waiting += [(middle, end, True), (first, middle, trusts_place)]
            continue
        yield taken
