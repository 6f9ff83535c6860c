"""Two kinds of values in one column."""

import pytest

from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.table_kinds import Content, unify, unify_all

SMALL, LARGE = Content(Kind.INTEGER, is_exact_as_number=True), Content(Kind.INTEGER)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (Content(None), Content(None), None),
        (Content(None), Content(Kind.DATE), Kind.DATE),
        (SMALL, SMALL, Kind.INTEGER),
        (SMALL, Content(Kind.NUMBER), Kind.NUMBER),
        (LARGE, Content(Kind.NUMBER), Kind.TEXT),
        (LARGE, Content(Kind.UNSIGNED), Kind.UNSIGNED),
        (Content(Kind.UNSIGNED), Content(Kind.NUMBER), Kind.TEXT),
        (Content(Kind.DATE), Content(Kind.TIMESTAMP), Kind.TEXT),
        (Content(Kind.BOOLEAN), SMALL, Kind.TEXT),
        (Content(Kind.JSON), Content(Kind.TEXT), Kind.TEXT),
    ],
)
def test_a_column_takes_the_values_of_both_without_loss(first: Content, second: Content, expected: Kind | None) -> None:
    assert unify(first, second).kind is expected
    assert unify(second, first).kind is expected


def test_whole_numbers_that_a_float_does_not_hold_are_noticed_whatever_came_before() -> None:
    assert unify_all([SMALL, LARGE, Content(Kind.NUMBER)]).kind is Kind.TEXT
    assert unify_all([SMALL, Content(None), Content(Kind.NUMBER)]).kind is Kind.NUMBER
