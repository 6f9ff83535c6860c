"""Clean parts as JSON Lines, and facts of a part."""

import gzip
import io
import json
import math
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.ports.publication import PartView
from ingestion.toolkit.clean.keys import moments_of
from sinks.druid.columns import DruidColumn, DruidType
from sinks.druid.intervals import FIRST_MS, LAST_MS
from sinks.druid.rows import (
    PartStats,
    expected_nulls,
    frame_as_json,
    gzipped,
    json_lines,
    read_stats,
    span_ms,
)
from tests.conformance.context import MemoryLake
from tests.sinks.druid.support import LOGICAL_TIME, parquet_of

MILLENNIUM = datetime(2000, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)


def written(values: Any, kind: pa.DataType, column: DruidType) -> list[Any]:
    """Return values as a reader of the JSON Lines gets them."""
    lines = frame_as_json(
        pl.DataFrame(pl.from_arrow(pa.table({"v": pa.array(values, kind)}))), [DruidColumn("v", "v", column)]
    )
    return [json.loads(line)["v"] for line in lines.splitlines()]


def part_of(content: bytes) -> tuple[MemoryLake, PartView]:
    """Return a lake that holds the file as a clean part, and the part."""
    lake, key = MemoryLake(), "clean/part.parquet"
    lake.put_if_absent(key, content)
    rows = pq.read_metadata(io.BytesIO(content)).num_rows
    return lake, PartView(key, 0, 0, 0, rows=rows, size_bytes=len(content), sha256="0" * 64)


@pytest.mark.parametrize(
    ("values", "kind", "column", "expected"),
    [
        ([2**63 - 1, -(2**63), None], pa.int64(), DruidType.LONG, [2**63 - 1, -(2**63), None]),
        ([True, False, None], pa.bool_(), DruidType.LONG, [1, 0, None]),
        ([MILLENNIUM, None], pa.timestamp("us", "UTC"), DruidType.LONG, [946684800123, None]),
        ([date(1969, 12, 31), date(1, 1, 1)], pa.date32(), DruidType.LONG, [-86400000, FIRST_MS]),
        ([1.5, 1e300, 5e-324, 0.1, None], pa.float64(), DruidType.DOUBLE, [1.5, 1e300, 5e-324, 0.1, None]),
        (
            [math.nan, math.inf, -math.inf, 1.5, None],
            pa.float64(),
            DruidType.DOUBLE,
            ["NaN", "Infinity", "-Infinity", "1.5", None],
        ),
        ([7, None], pa.int64(), DruidType.DOUBLE, [7, None]),
        ([2**64 - 1, 1], pa.uint64(), DruidType.STRING, ["18446744073709551615", "1"]),
        ([-1, None], pa.int64(), DruidType.STRING, ["-1", None]),
        ([True, False, None], pa.bool_(), DruidType.STRING, ["true", "false", None]),
        (
            [2.0, 2.5, math.nan, -math.inf, 1e300, None],
            pa.float64(),
            DruidType.STRING,
            ["2", "2.5", "NaN", "-Infinity", "1e+300", None],
        ),
        ([MILLENNIUM, None], pa.timestamp("us", "UTC"), DruidType.STRING, ["2000-01-01T00:00:00.123456Z", None]),
        ([date(2000, 1, 1)], pa.date32(), DruidType.STRING, ["2000-01-01"]),
        (['{"a":[1,{"b":null}]}', None], pa.string(), DruidType.JSON, ['{"a":[1,{"b":null}]}', None]),
        ([None, None], pa.null(), DruidType.STRING, [None, None]),
    ],
)
def test_every_value_is_written_in_the_type_of_its_column(
    values: list[Any], kind: pa.DataType, column: DruidType, expected: list[Any]
) -> None:
    assert written(values, kind, column) == expected


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_any_text_comes_back_and_a_row_is_a_line(texts: list[str]) -> None:
    lines = frame_as_json(pl.DataFrame({"v": texts}), [DruidColumn("v", "v", DruidType.STRING)])

    assert [json.loads(line)["v"] for line in lines.decode().split("\n")[:-1]] == texts
    assert lines.count(b"\n") == len(texts)
    assert b"\r" not in lines


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_numbers_come_back_exactly(numbers: list[float]) -> None:
    assert written(numbers, pa.float64(), DruidType.DOUBLE) == numbers


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_whole_numbers_come_back_exactly(numbers: list[int]) -> None:
    assert written(numbers, pa.int64(), DruidType.LONG) == numbers
    assert written(numbers, pa.int64(), DruidType.STRING) == [str(number) for number in numbers]


@given(st.lists(st.integers(FIRST_MS * 1000, LAST_MS * 1000 - 1), min_size=1, max_size=20))
def test_moments_are_cut_off_downwards(moments: list[int]) -> None:
    times = pl.Series(moments, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))

    assert moments_of(times).to_list() == [moment // 1000 for moment in moments]


def test_columns_go_under_their_names_in_druid_and_others_stay_behind() -> None:
    table = pa.table({"a,b": ["x"], "left": ["y"], 'q"uote': ["z"]})
    columns = [DruidColumn("a,b", "a_b_1", DruidType.STRING), DruidColumn('q"uote', 'q"uote', DruidType.STRING)]

    lines = b"".join(json_lines(*part_of(parquet_of(table)), columns))

    assert json.loads(lines) == {"a_b_1": "x", 'q"uote': "z"}


def test_a_name_with_a_nul_is_a_name_like_any_other() -> None:
    table = pa.table({"a\0b": ["x"], "a": ["y"], "at\0": pa.array([MILLENNIUM], pa.timestamp("us", "UTC"))})
    target = io.BytesIO()
    pq.write_table(table, target, write_statistics=False)
    columns = [DruidColumn("a\0b", "a_b", DruidType.STRING), DruidColumn("a", "a", DruidType.STRING)]

    stored = part_of(target.getvalue())

    assert json.loads(b"".join(json_lines(*stored, columns))) == {"a_b": "x", "a": "y"}
    assert read_stats(*stored, time_column="at\0").first_ms == 946684800123


def test_a_column_that_the_part_lacks_is_left_out() -> None:
    columns = [DruidColumn("a", "a", DruidType.LONG), DruidColumn("b", "b", DruidType.LONG)]

    lines = b"".join(json_lines(*part_of(parquet_of(pa.table({"a": [1]}))), columns))

    assert json.loads(lines) == {"a": 1}


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_the_same_blocks_give_the_same_packed_bytes(blocks: list[bytes]) -> None:
    first, second = b"".join(gzipped(blocks)), b"".join(gzipped(blocks))

    assert first == second
    assert gzip.decompress(first) == b"".join(blocks)


# what is known of a part


def test_a_part_is_known_by_rows_types_nulls_and_times() -> None:
    at = pa.array([MILLENNIUM, None, datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    table = pa.table({"at": at, "e.f": [1, None, None], "x": ["", None, "a"]})

    stats = read_stats(*part_of(parquet_of(table)), time_column="at")

    assert stats == PartStats(
        rows=3,
        types={"at": "timestamp[us, tz=UTC]", "e.f": "int64", "x": "string"},
        nulls={"at": 1, "e.f": 2, "x": 1},
        first_ms=-1,
        last_ms=946684800123,
        untimed=1,
    )


def test_nulls_are_counted_where_the_file_does_not_say() -> None:
    target = io.BytesIO()
    pq.write_table(pa.table({"a": [1, None, 3], "b": ["x", "y", "z"]}), target, write_statistics=["b"])

    assert read_stats(*part_of(target.getvalue()), time_column=None).nulls == {"a": 1, "b": 0}


def test_times_are_read_where_the_file_does_not_say() -> None:
    target = io.BytesIO()
    at = pa.array([None, MILLENNIUM, None], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"at": at}), target, write_statistics=False)

    stats = read_stats(*part_of(target.getvalue()), time_column="at")

    assert (stats.first_ms, stats.last_ms, stats.untimed) == (946684800123, 946684800123, 2)


def test_days_are_times_too() -> None:
    table = pa.table({"day": pa.array([date(2000, 1, 2), date(2000, 1, 1)], pa.date32())})

    stats = read_stats(*part_of(parquet_of(table)), time_column="day")

    assert (stats.first_ms, stats.last_ms) == (946684800000, 946771200000)


def stats_of(first: int | None, last: int | None, *, untimed: int = 0) -> PartStats:
    return PartStats(3, {}, {}, first, last, untimed)


@pytest.mark.parametrize(
    ("parts", "span"),
    [
        ([], None),
        ([stats_of(5, 9), stats_of(2, 7)], (2, 9)),
        ([stats_of(None, None, untimed=3)], (1767323045678, 1767323045678)),
        ([stats_of(5, 9, untimed=1)], (5, 1767323045678)),
        ([stats_of(FIRST_MS, LAST_MS - 1)], (FIRST_MS, LAST_MS - 1)),
    ],
)
def test_rows_without_a_time_have_the_run_s(parts: list[PartStats], span: tuple[int, int] | None) -> None:
    assert span_ms(parts, logical_time=LOGICAL_TIME) == span


def test_a_part_without_the_column_counts_as_nulls() -> None:
    parts = [PartStats(3, {"a": "int64"}, {"a": 1}), PartStats(4, {"b": "int64"}, {"b": 0})]
    columns = [DruidColumn("a", "A", DruidType.LONG), DruidColumn("b", "B", DruidType.LONG)]

    assert expected_nulls(parts, columns) == {"A": 5, "B": 3}
