"""PostgreSQL's binary COPY format, read back field by field."""

import datetime as dt
import struct
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.toolkit.postgres_copy import encode_rows

TYPES = ("bigint", "double precision", "boolean", "date", "timestamp with time zone", "text", "jsonb")
SCHEMA = {
    "integer": pl.Int64,
    "number": pl.Float64,
    "boolean": pl.Boolean,
    "date": pl.Date,
    "datetime": pl.Datetime("us", "UTC"),
    "text": pl.String,
    "json": pl.String,
}
EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


def read_back(stream: bytes) -> list[tuple[Any, ...]]:
    """Return the rows of a stream as Python values, by the format's own description."""
    assert stream[:11] == b"PGCOPY\n\xff\r\n\0"
    assert stream[11:19] == bytes(8)
    at, rows = 19, []
    while (count := struct.unpack_from(">h", stream, at)[0]) != -1:
        at += 2
        row = []
        for column_type in TYPES[:count]:
            length = struct.unpack_from(">i", stream, at)[0]
            at += 4
            row.append(None if length < 0 else read_value(stream[at : at + length], column_type))
            at += max(length, 0)
        rows.append(tuple(row))
    assert at + 2 == len(stream)
    return rows


def read_value(data: bytes, column_type: str) -> Any:  # noqa: PLR0911 - one return per type
    match column_type:
        case "bigint":
            return struct.unpack(">q", data)[0]
        case "double precision":
            return struct.unpack(">d", data)[0]
        case "boolean":
            return bool(data[0])
        case "date":
            return EPOCH.date() + dt.timedelta(days=struct.unpack(">i", data)[0])
        case "timestamp with time zone":
            return EPOCH + dt.timedelta(microseconds=struct.unpack(">q", data)[0])
        case "jsonb":
            assert data[0] == 1
            return data[1:].decode()
    return data.decode()


def encoded(rows: list[tuple[Any, ...]]) -> bytes:
    return b"".join(bytes(buffer) for buffer in encode_rows(pl.DataFrame(rows, SCHEMA, orient="row"), TYPES))


ROW = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(allow_nan=False),
    st.none() | st.booleans(),
    st.none() | st.dates(),
    st.none() | st.datetimes(timezones=st.just(dt.UTC)),
    st.none() | st.text(),
    st.none() | st.sampled_from(["{}", '{"a": "ü"}', ""]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, max_size=12))
def test_rows_come_back_as_they_were(rows: list[tuple[Any, ...]]) -> None:
    assert read_back(encoded(rows)) == rows


@pytest.mark.parametrize(
    "row",
    [
        (None,) * 7,
        (7, 0.5, True, dt.date(1999, 12, 31), EPOCH, "0-0", "[]"),
        (7, None, False, None, EPOCH, "", None),
    ],
)
@pytest.mark.parametrize("row_count", [1, 2, 1000])
def test_columns_that_are_the_same_in_every_row_come_back_in_every_row(row: tuple[Any, ...], row_count: int) -> None:
    assert read_back(encoded([row] * row_count)) == [row] * row_count
    mixed = [(number, *row[1:]) for number in range(row_count)]
    assert read_back(encoded(mixed)) == mixed


def test_a_column_that_begins_and_ends_alike_is_not_taken_for_one_that_is_the_same() -> None:
    rows = [(number, 1.0, None, None, None, text, None) for number, text in ((1, "a"), (2, "b"), (1, "a"))]

    assert read_back(encoded(rows)) == rows


def test_a_slice_of_a_frame_is_written_alone() -> None:
    frame = pl.DataFrame([(n, n / 2, None, None, None, f"t{n}", None) for n in range(10)], SCHEMA, orient="row")

    stream = b"".join(bytes(buffer) for buffer in encode_rows(frame.slice(3, 2), TYPES))

    assert [row[0] for row in read_back(stream)] == [3, 4]
