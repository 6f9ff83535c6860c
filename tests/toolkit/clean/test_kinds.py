"""What becomes of columns whose parts disagree."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingestion.ports.schema import ColumnType
from ingestion.toolkit.clean.kinds import DECLARED_KINDS, LINEAGE, Kind, agreed_kinds, kind_of_arrow
from ingestion.toolkit.lake.opening import open_lake
from ingestion.toolkit.rows.writers import python_rows
from tests.toolkit.rows.material import numbered, put_part, sequence

TIMESTAMP = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TIMES = pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize(
    ("first", "second", "kind", "values"),
    [
        (pa.array([1, 2]), pa.array([3, 4]), Kind.INTEGER, [1, 2, 3, 4]),
        (pa.array(["a", None]), pa.array(["b", ""], pa.large_string()), Kind.TEXT, ["a", None, "b", ""]),
        (pa.array([1, 2]), pa.array([0.5, None]), Kind.NUMBER, [1.0, 2.0, 0.5, None]),
        (pa.array([1, 2**53 + 1]), pa.array([0.5, 1.0]), Kind.TEXT, ["1", "9007199254740993", "0.5", "1.0"]),
        (pa.array([1, -(2**53) - 1]), pa.array([0.5, 1.0]), Kind.TEXT, ["1", "-9007199254740993", "0.5", "1.0"]),
        (pa.array([1, 2**63], pa.uint64()), pa.array([1, -1]), Kind.TEXT, ["1", "9223372036854775808", "1", "-1"]),
        (pa.array([1, 2], pa.uint64()), pa.array([1, -1]), Kind.INTEGER, [1, 2, 1, -1]),
        (pa.array([1, 2]), pa.array(["x", "y"]), Kind.TEXT, ["1", "2", "x", "y"]),
        (pa.array([True, None]), pa.array([1, 0]), Kind.TEXT, ["true", None, "1", "0"]),
        (
            pa.array([date(2026, 1, 2), None]),
            pa.array([TIMESTAMP, TIMESTAMP], TIMES),
            Kind.TEXT,
            ["2026-01-02", None, "2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05+00:00"],
        ),
        (pa.array([1, 2]), pa.array([None, None], pa.string()), Kind.INTEGER, [1, 2, None, None]),
        (pa.nulls(2), pa.array([TIMESTAMP, None], TIMES), Kind.TIMESTAMP, [None, None, TIMESTAMP, None]),
        (pa.nulls(2), pa.nulls(2), Kind.TEXT, [None] * 4),
    ],
)
def test_types_are_kept_where_nothing_is_lost_and_are_text_where_it_would_be(
    tmp_path: Path, first: Any, second: Any, kind: Kind, values: list[Any]
) -> None:
    lake = open_lake(str(tmp_path))
    parts = [put_part(lake, {"v": first}), put_part(lake, {"v": second}, link=1)]

    rows = sequence(lake, parts)

    assert rows.kinds == {"v": kind}
    assert [value for batch in rows.batches() for (value,) in python_rows(batch)] == values


def test_a_column_that_a_part_has_not_is_null_there(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path))
    parts = [put_part(lake, numbered(1)), put_part(lake, numbered(1, first=1, extra=["x"]), link=1)]

    rows = sequence(lake, parts)

    assert [row for batch in rows.batches() for row in python_rows(batch)] == [(0, None), (1, "x")]


def test_rows_are_there_even_where_a_part_has_none_of_the_columns(tmp_path: Path) -> None:
    lake = open_lake(str(tmp_path))
    parts = [put_part(lake, numbered(6)), put_part(lake, numbered(1, extra=["x"]), link=1)]

    rows = sequence(lake, parts).choose(["extra"])

    assert [row for batch in rows.batches() for row in python_rows(batch)] == [(None,)] * 6 + [("x",)]


def test_without_parts_the_contract_says_which_columns_there_are() -> None:
    assert agreed_kinds([], declared={"id": Kind.INTEGER}) == {"id": Kind.INTEGER, **LINEAGE}


def test_every_declared_type_has_a_kind() -> None:
    assert {DECLARED_KINDS[column_type] for column_type in ColumnType} == set(Kind) - {Kind.UNSIGNED, Kind.NOTHING}


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (pa.int64(), Kind.INTEGER),
        (pa.int32(), Kind.INTEGER),
        (pa.uint64(), Kind.UNSIGNED),
        (pa.float64(), Kind.NUMBER),
        (pa.float16(), Kind.NUMBER),
        (pa.bool_(), Kind.BOOLEAN),
        (pa.date32(), Kind.DATE),
        (pa.date64(), Kind.DATE),
        (pa.timestamp("us", tz="UTC"), Kind.TIMESTAMP),
        (pa.string(), Kind.TEXT),
        (pa.large_string(), Kind.TEXT),
        (pa.string_view(), Kind.TEXT),
        (pa.null(), Kind.NOTHING),
        (pa.list_(pa.int64()), None),
        (pa.binary(), None),
    ],
)
def test_the_types_of_clean_parts_are_known_by_their_names(found: pa.DataType, kind: Kind | None) -> None:
    assert kind_of_arrow(str(found)) is kind
