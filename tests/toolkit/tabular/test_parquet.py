"""Parquet keeps its types, and a damaged file is an answer instead of a crash."""

import io
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.ports.batch import READER_COLUMNS, ROW
from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.parquet_footer import is_encrypted
from tests.toolkit.tabular.reading import rows_of, spans_of, tables_of

TABLE = pa.table(
    {
        "i": [1, 2, 3],
        "f": [0.1, None, 3.0],
        "s": ["a", "", None],
        "t": [datetime(2024, 1, 1)] * 3,  # noqa: DTZ001 - a file may hold times without a zone
        "l": [[1], [], None],
    }
)


def written(table: pa.Table, *, row_group_size: int = 2) -> bytes:
    output = io.BytesIO()
    pq.write_table(table, output, row_group_size=row_group_size)
    return output.getvalue()


def test_types_are_those_of_the_file() -> None:
    [table] = tables_of(written(TABLE), name="a.parquet")

    assert table.drop_columns([name for name in READER_COLUMNS if name in table.column_names]).equals(TABLE)
    assert table.column(ROW).to_pylist() == [0, 1, 2]


def test_row_groups_become_spans() -> None:
    data = written(TABLE, row_group_size=1)

    spans = spans_of(data, name="a.parquet", target_bytes=1)

    assert [(span.first_row, span.row_count) for span in spans] == [(0, 1), (1, 1), (2, 1)]
    assert [row[ROW] for row in rows_of(data, name="a.parquet", target_bytes=1)] == [0, 1, 2]
    assert all(span.offset + span.length <= len(data) for span in spans)


def test_a_file_without_rows_is_one_empty_span() -> None:
    data = written(TABLE.slice(0, 0))

    [span] = spans_of(data, name="a.parquet")

    assert span.row_count == 0
    assert rows_of(data, name="a.parquet") == []


def test_our_own_names_are_renamed() -> None:
    [table] = tables_of(written(pa.table({"_row": [7], "__time": [1]})), name="a.parquet")

    assert table.to_pylist()[0] | {"_row": 0} == table.to_pylist()[0]
    assert (table.column("row_").to_pylist(), table.column("time_").to_pylist()) == ([7], [1])


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda data: data[:-1], "file.truncated"),
        (lambda data: data[: len(data) // 2], "file.truncated"),
        (lambda data: data[:6], "file.truncated"),
        (lambda data: data[:-8] + (2**31 - 1).to_bytes(4, "little") + b"PAR1", "file.truncated"),
        (lambda data: data[:-40] + b"\xff" * 32 + data[-8:], "file.malformed"),
        (lambda data: data[:4] + b"\xff" * 60 + data[64:], "file.malformed"),
        (lambda data: b"PAR1" + b"\x00" * 8 + b"PAR1", "file.malformed"),
    ],
)
def test_a_damaged_file_says_so(damage: object, code: str) -> None:
    assert callable(damage)

    with pytest.raises(ConfigError) as raised:
        rows_of(damage(written(TABLE)), name="a.parquet")

    assert raised.value.code == code


def test_every_truncation_is_refused() -> None:
    data = written(TABLE)

    for length in range(5, len(data), 7):
        with pytest.raises(ConfigError):
            rows_of(data[:length], name="a.parquet")


def test_too_many_columns_are_refused() -> None:
    with pytest.raises(ConfigError) as raised:
        spans_of(written(pa.table({f"c{number}": [1] for number in range(5_001)})), name="a.parquet")

    assert raised.value.code == "file.too_many_columns"


def test_too_deep_a_column_is_refused() -> None:
    kind: pa.DataType = pa.int64()
    for _ in range(40):
        kind = pa.list_(kind)

    with pytest.raises(ConfigError) as raised:
        spans_of(written(pa.table({"a": pa.nulls(1, kind)})), name="a.parquet")

    assert raised.value.code == "file.malformed"


@pytest.mark.parametrize("head", [b"PARE", b"age-encryption.org/v1\n", b"Salted__", b"PK\x03\x04\x14\x00\x01\x00"])
@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a"])
def test_an_encrypted_file_is_told_by_its_first_bytes(head: bytes, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spans_of(head + b"\x00\xff" * 100, name=name)

    assert caught.value.code == "file.encrypted"


@pytest.mark.parametrize("ticks", [[1, 1001], [1000, 2000], [-1, None]])
def test_old_timestamps_keep_nanoseconds(ticks: list[int | None]) -> None:
    output = io.BytesIO()
    table = pa.table({"t": pa.array(ticks, pa.timestamp("ns"))})
    pq.write_table(table, output, use_deprecated_int96_timestamps=True)

    [read] = tables_of(output.getvalue(), name="a.parquet")

    assert read.column("t").cast(pa.timestamp("ns")).equals(table.column("t"))


HUGE = Decimal("1" * 60)
UNKNOWN = [
    (pa.array([HUGE, None], pa.decimal256(76, 2)), [f"{HUGE}.00", None]),
    (pa.array([[HUGE]], pa.list_(pa.decimal256(76, 0))), [f"[{HUGE}]"]),
    (pa.array([{"x": HUGE}], pa.struct([("x", pa.decimal256(76, 0))])), [f'{{"x":{HUGE}}}']),
    (pa.array([["a"]], pa.list_view(pa.string())), ['["a"]']),
    (pa.array([bytes(15) + b"\1"], pa.uuid()), ["00000000-0000-0000-0000-000000000001"]),
    (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}'])), ['{"a":1}']),
    (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None], pa.int8())), [True, False, None]),
    (pa.ExtensionArray.from_storage(pa.opaque(pa.int32(), "t", "v"), pa.array([1], pa.int32())), [1]),
    (pa.array([2**62, 5], pa.duration("s")), [f"PT{2**62}S", "PT5S"]),
    (pa.array([5], pa.duration("s")), [timedelta(seconds=5)]),
]


@pytest.mark.parametrize(("array", "values"), UNKNOWN, ids=[str(array.type)[:20] for array, _ in UNKNOWN])
def test_a_type_that_polars_does_not_know_is_read_all_the_same(array: Any, values: list[Any]) -> None:
    [table] = tables_of(written(pa.table({"a": array})), name="a.parquet")

    assert pl.DataFrame(table)["a"].to_list() == values


@given(st.binary(max_size=200))
def test_a_footer_of_any_bytes_is_answered(footer: bytes) -> None:
    try:
        assert is_encrypted(footer) in (True, False)
    except ValueError:
        pass
