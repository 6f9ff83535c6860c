"""Rows as lines of text: exact, complete, and harmless in a spreadsheet where that was asked for."""

import csv
import datetime as dt
import io
import json
import math

import polars as pl
import pyarrow as pa
import pytest

from ingestion.toolkit.tabular.lines import csv_header, csv_lines, json_lines

ROWS = pa.record_batch(
    {
        "whole": pa.array([2**63 - 1, None], pa.int64()),
        "huge": pa.array([2**64 - 1, 0], pa.uint64()),
        "number": pa.array([0.1, 1e300]),
        "text": pa.array(['a,"b"\r\nc', ""]),
        "flag": pa.array([True, None]),
        "day": pa.array([dt.date(2026, 1, 2), None]),
        "at": pa.array([dt.datetime(2026, 1, 2, 3, 4, 5, 60, tzinfo=dt.UTC), None], pa.timestamp("us", "UTC")),
        "nested": pa.array(['{"a": [1, 0.10]}', None]),
    }
)


def as_csv(batch: pa.RecordBatch, *, defuse: bool = True) -> list[list[str]]:
    text = csv_header(batch.schema.names, defuse=defuse) + csv_lines(batch, defuse=defuse)
    return list(csv.reader(io.StringIO(text.decode(), newline="")))


def test_json_lines_hold_every_column_in_order_with_nested_values_as_such() -> None:
    lines = json_lines(ROWS, json_columns={"nested"}).decode().splitlines()

    assert lines[0] == (
        '{"whole":9223372036854775807,"huge":18446744073709551615,"number":0.1,"text":"a,\\"b\\"\\r\\nc","flag":true,'
        '"day":"2026-01-02","at":"2026-01-02T03:04:05.000060Z","nested":{"a": [1, 0.10]}}'
    )
    assert json.loads(lines[1]) == {
        "whole": None, "huge": 0, "number": 1e300, "text": "", "flag": None, "day": None, "at": None, "nested": None,
    }  # fmt: skip
    assert len(lines) == 2


def test_a_column_whose_name_has_a_nul_keeps_it() -> None:
    batch = pa.record_batch(
        [pa.array(["x"]), pa.array([1.5]), pa.array([dt.date(2026, 1, 2)]), pa.array(["[1]"])],
        names=["a\0b", "a", "d\0", "n\0"],
    )

    assert json.loads(json_lines(batch, json_columns={"n\0"})) == {
        "a\0b": "x", "a": 1.5, "d\0": "2026-01-02", "n\0": [1],
    }  # fmt: skip
    assert csv_lines(batch, defuse=True) == b"x,1.5,2026-01-02,[1]\r\n"


def test_a_column_that_is_not_named_as_json_stays_text() -> None:
    assert json.loads(json_lines(ROWS).splitlines()[0])["nested"] == '{"a": [1, 0.10]}'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":\n  1,\r\n "b": "x\\ny"}', {"a": 1, "b": "x\ny"}),
        ("[1, 2", "[1, 2"),
        ("NaN", "NaN"),
        ("[NaN]", "[NaN]"),
        ("12345678901234567890", 12345678901234567890),
        ("", ""),
        ("null", None),
        ('"ü"', "ü"),
    ],
)
def test_json_text_becomes_its_value_on_one_line_or_stays_text(text: str, value: object) -> None:
    written = json_lines(pa.record_batch({"a": [1], "j": [text], "z": [2]}), json_columns={"j"})

    assert written.count(b"\n") == 1
    assert json.loads(written) == {"a": 1, "j": value, "z": 2}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_null_in_both_formats(value: float) -> None:
    batch = pa.record_batch({"id": [1], "x": [value]})

    assert json.loads(json_lines(batch)) == {"id": 1, "x": None}
    assert as_csv(batch)[1] == ["1", ""]


def test_csv_follows_its_standard_and_tells_an_empty_text_from_none() -> None:
    assert as_csv(ROWS)[1:] == [
        ["9223372036854775807", "18446744073709551615", "0.1", 'a,"b"\r\nc', "true", "2026-01-02",
         "2026-01-02T03:04:05.000060Z", '{"a": [1, 0.10]}'],
        ["", "0", "1e+300", "", "", "", "", ""],
    ]  # fmt: skip
    text = csv_header(["a", "b"], defuse=True) + csv_lines(
        pa.record_batch({"a": ["", None], "b": ["x", "y"]}), defuse=True
    )
    assert text == b'a,b\r\n"",x\r\n,y\r\n'
    assert pl.read_csv(text)["a"].to_list() == ["", None]


@pytest.mark.parametrize("text", ["=cmd()", "+a", "-a", "@x", "\t=1", "\r=1", "\n=1", "＝1", "=", "-", "+1e", "-1-1"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    batch = pa.record_batch({"id": [-1], text: [text]})

    assert as_csv(batch) == [["id", f"'{text}"], ["-1", f"'{text}"]]
    assert as_csv(batch, defuse=False) == [["id", text], ["-1", text]]


@pytest.mark.parametrize("text", ["-1", "+1", "-1.5", "-.5", "+1e-5", "-0", "a=1", "", "'=1", " =1"])
def test_numbers_and_other_text_stay_as_they_are(text: str) -> None:
    assert as_csv(pa.record_batch({"id": [1], "t": [text]}))[1] == ["1", text]


def test_no_rows_are_no_lines() -> None:
    nothing = ROWS.slice(0, 0)

    assert json_lines(nothing, json_columns={"nested"}) == b""
    assert csv_lines(nothing, defuse=True) == b""
