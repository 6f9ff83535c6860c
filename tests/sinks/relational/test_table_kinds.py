"""What two kinds of values come to in one column."""

import pyarrow as pa
import pytest

from ingestion.ports.schema import ColumnType
from sinks.relational.table_kinds import Content, Kind, kind_of_column, kind_of_values, unify, unify_all

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
        (Content(Kind.DATE), Content(Kind.DATETIME), Kind.TEXT),
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


def test_every_declared_type_has_a_kind() -> None:
    assert {kind_of_column(column_type) for column_type in ColumnType} == set(Kind) - {Kind.UNSIGNED}


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (pa.int64(), Kind.INTEGER),
        (pa.int32(), Kind.INTEGER),
        (pa.uint64(), Kind.UNSIGNED),
        (pa.float64(), Kind.NUMBER),
        (pa.bool_(), Kind.BOOLEAN),
        (pa.date32(), Kind.DATE),
        (pa.timestamp("us", tz="UTC"), Kind.DATETIME),
        (pa.string(), Kind.TEXT),
        (pa.large_string(), Kind.TEXT),
        (pa.list_(pa.int64()), None),
        (pa.binary(), None),
    ],
)
def test_the_types_of_clean_parts_are_known(found: pa.DataType, kind: Kind | None) -> None:
    assert kind_of_values(found) is kind
