"""Work done one item ahead, in another thread."""

import threading
from collections.abc import Iterator

import pytest

from sinks.relational.loading import one_ahead


def test_items_come_in_order_and_are_made_beside_their_use() -> None:
    makers = set()

    def items() -> Iterator[int]:
        for number in range(5):
            makers.add(threading.current_thread())
            yield number

    assert list(one_ahead(items())) == [0, 1, 2, 3, 4]
    assert threading.current_thread() not in makers


def test_an_error_of_the_maker_reaches_the_user() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    taken = []
    with pytest.raises(ValueError, match="broken"):
        for item in one_ahead(items()):
            taken.append(item)

    assert taken == [1]


def test_a_user_who_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    ahead = one_ahead(iter(range(100)))
    next(ahead)

    ahead.close()

    assert threading.active_count() == before
