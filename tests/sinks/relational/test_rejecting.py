"""Refused rows found by halving."""

import random
from dataclasses import dataclass, field

import pytest

from ingestion.ports.errors import SinkRejected
from ingestion.ports.publication import Rejection
from sinks.relational.diagnosis import Diagnosis, ErrorClass
from sinks.relational.rejecting import Rejections, take_rows


class BrokenError(Exception):
    """A row is bad, or the connection is gone."""


@dataclass
class Table:
    """Takes ranges of rows unless one of them is bad; tells where, rightly, wrongly or not at all."""

    bad: set[int]
    hint: str = "none"
    taken: list[int] = field(default_factory=list)
    tries: int = 0
    error_class: ErrorClass = ErrorClass.ROW
    driver_errors = (BrokenError,)

    def attempt(self, first: int, end: int) -> int:
        self.tries += 1
        if found := sorted(self.bad & set(range(first, end))):
            at = {"none": None, "right": found[0] - first, "late": found[0] - first + 3, "wild": 10**9}[self.hint]
            raise BrokenError(at)
        self.taken += range(first, end)
        return end - first

    def diagnose(self, error: Exception) -> Diagnosis:
        return Diagnosis(self.error_class, "bad", rule="rule", at=error.args[0])


def take(table: Table, row_count: int, *, is_tried: bool = False) -> list[int]:
    rejected: list[int] = []
    total = sum(
        take_rows(
            row_count,
            table.attempt,
            connection=table,
            reject=lambda index, _: rejected.append(index),
            is_tried=is_tried,
        )
    )
    assert total == len(table.taken)
    return rejected


@pytest.mark.parametrize("hint", ["none", "right", "late", "wild"])
@pytest.mark.parametrize("is_tried", [False, True])
def test_every_bad_row_is_rejected_once_and_every_other_taken_once(hint: str, is_tried: bool) -> None:
    chance = random.Random(5)
    for row_count in (1, 2, 3, 17, 200):
        for share in (0.0, 0.02, 0.3, 1.0):
            bad = {row for row in range(row_count) if chance.random() < share}
            table = Table(set(bad), hint)

            rejected = take(table, row_count, is_tried=is_tried and bool(bad))

            assert rejected == sorted(bad)
            assert table.taken == [row for row in range(row_count) if row not in bad]


def test_a_clean_batch_is_tried_once() -> None:
    table = Table(set())

    take(table, 1000)

    assert table.tries == 1


def test_a_place_that_is_named_spares_the_search() -> None:
    searched, named = Table({700}), Table({700}, "right")

    take(searched, 1000)
    take(named, 1000)

    assert named.tries == 4
    assert searched.tries > 15


def test_an_error_that_is_no_rows_fault_is_let_through() -> None:
    with pytest.raises(BrokenError):
        take(Table({3}, error_class=ErrorClass.UNAVAILABLE), 10)


def test_one_refusal_too_many_ends_the_delivery() -> None:
    rejections = Rejections("lab", limit=2)
    for index in (5, 1):
        rejections.add(Rejection("0-0-000000", index, "rule", "bad"))

    with pytest.raises(SinkRejected) as caught:
        rejections.add(Rejection("0-0-000000", 7, "price_positive", "bad"))

    assert caught.value.code == "sink.too_many_refused"
    assert "price_positive" in str(caught.value)
    assert [row.index for row in rejections.in_order] == [1, 5, 7]
