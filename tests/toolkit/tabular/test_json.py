"""JSON Lines and JSON arrays: types where they are plain, nothing lost unseen."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.ports.batch import ERROR, ERROR_CODE, RAW, ROW
from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular import json_array, json_records, text
from ingestion.toolkit.tabular.json_records import JSON_TEXT
from tests.toolkit.tabular.reading import cells_of, errors_of, rows_of, spans_of, tables_of


def as_lines(*records: str) -> bytes:
    return "\n".join(records).encode()


def as_array(*records: str) -> bytes:
    return (" [" + " ,\n".join(records) + "] \n").encode()


FORMS = [pytest.param(as_lines, "a.jsonl", id="jsonl"), pytest.param(as_array, "a.json", id="array")]


@pytest.mark.parametrize(("form", "name"), FORMS)
@pytest.mark.parametrize(
    ("values", "kind", "cells"),
    [
        (["1", "2", "null"], pa.int64(), [1, 2, None]),
        (["1.5", "2.0"], pa.float64(), [1.5, 2.0]),
        (["1", "2.5"], pa.float64(), [1.0, 2.5]),
        (["true", "false"], pa.bool_(), [True, False]),
        (['"x"', '""', "null"], pa.string(), ["x", "", None]),
        (["null", "null"], pa.string(), [None, None]),
        (["1", '"x"', "true", "2.50"], pa.string(), ["1", "x", "true", "2.5"]),
        (["[1,2]", '{"k": "é"}', "null"], pa.string(), ["[1,2]", '{"k":"é"}', None]),
        (["123456789012345678901234", "1"], pa.string(), ["123456789012345678901234", "1"]),
        (["9223372036854775807", "1"], pa.int64(), [2**63 - 1, 1]),
        (["9223372036854775808", "1"], pa.string(), ["9223372036854775808", "1"]),
        (["9007199254740993", "0.5"], pa.string(), ["9007199254740993", "0.5"]),
        (["[123456789012345678901234]"], pa.string(), ["[123456789012345678901234]"]),
        (["12345678901234567.89", "1.5"], pa.string(), ["12345678901234567.89", "1.5"]),
        (["0.30000000000000004", "0.10000000000000000"], pa.float64(), [0.30000000000000004, 0.1]),
        (["1e400", "1E2"], pa.string(), ["1e400", "100.0"]),
        (["1e-400", "0.0"], pa.string(), ["1e-400", "0.0"]),
        (['{"d": [12345678901234567.89, 1.5, 1e400]}'], pa.string(), ['{"d":[12345678901234567.89,1.5,1e400]}']),
        (['"a: \\"b\\": c"'], pa.string(), ['a: "b": c']),
    ],
)
def test_a_column_keeps_the_type_its_values_share(
    form: Any, name: str, values: list[str], kind: pa.DataType, cells: list[Any]
) -> None:
    [table] = tables_of(form(*[f'{{"a": {value}}}' for value in values]), name=name)

    assert table.schema.field("a").type == kind
    assert table.column("a").to_pylist() == cells


@pytest.mark.parametrize(("form", "name"), FORMS)
@pytest.mark.parametrize("batch_rows", [1, 2, 1000])
def test_batches_do_not_show(form: Any, name: str, batch_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "BATCH_ROWS", batch_rows)
    data = form('{"a":1,"b":true}', '{"a":2.5}', '{"c":[1]}', '{"a":null,"b":"x","c":3}')

    [table] = tables_of(data, name=name)

    assert table.select(["a", "b", "c"]).to_pylist() == [
        {"a": 1.0, "b": "true", "c": None},
        {"a": 2.5, "b": None, "c": None},
        {"a": None, "b": None, "c": "[1]"},
        {"a": None, "b": "x", "c": "3"},
    ]


@pytest.mark.parametrize(
    ("data", "name", "codes"),
    [
        (b"[1, {}]", "a.json", ["row.not_an_object", None]),
        (b"{}\n{}\n", "a.jsonl", [None, None]),
        (b'{"a" b}\n', "a.jsonl", ["row.malformed"]),
        (b'{"a":1},\n{"a":2},\n', "a.jsonl", ["row.malformed"] * 2),
        (b"[1,2]\n[3,4]\n", "a.jsonl", ["row.not_an_object"] * 2),
        (b"[[1,2],[3]]", "a.json", ["row.not_an_object"] * 2),
    ],
)
def test_records_without_any_column_are_rows_or_errors(data: bytes, name: str, codes: list[str | None]) -> None:
    assert [(row[ROW], row[ERROR_CODE]) for row in rows_of(data, name=name)] == list(enumerate(codes))


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_a_column_of_nested_values_says_so(form: Any, name: str) -> None:
    [table] = tables_of(form('{"a":[1],"b":1}', "3"), name=name)

    assert table.schema.field("a").metadata == JSON_TEXT
    assert not table.schema.field("b").metadata


@pytest.mark.parametrize(("form", "name"), FORMS)
@pytest.mark.parametrize(
    ("record", "code"),
    [
        ("[1]", "row.not_an_object"),
        ("3", "row.not_an_object"),
        ("null", "row.not_an_object"),
        ('{"a":1,"a":2}', "row.malformed"),
        ('{"a":1,"b":{"c":1,"c":2}}', "row.malformed"),
        ('{"a":1e999,"b":"\\ud800"}', "row.malformed"),
        ('{"a" \t: 1,"a":2}', "row.malformed"),
        ('{"a":1,"a":2,"b":"\\u0022:"}', "row.malformed"),
        ('{"a":1,"\\u0061":2}', "row.malformed"),
        ('{"a":NaN}', "row.malformed"),
        ('{"a":-Infinity}', "row.malformed"),
        ('{"a":"\\ud800"}', "row.malformed"),
        ('{"a":' + "[" * 101 + "]" * 101 + "}", "row.malformed"),
        pytest.param('{"a":' + "1" * 5_000 + "}", "row.malformed", id="5000-digits"),
    ],
)
def test_a_bad_record_is_an_error_row_between_good_ones(form: Any, name: str, record: str, code: str) -> None:
    rows = rows_of(form('{"b":1}', record, '{"b":2}'), name=name)

    assert [row[ROW] for row in rows] == [0, 1, 2]
    assert [row[ERROR_CODE] for row in rows] == [None, code, None]
    assert json.loads(rows[1][RAW]) == record
    assert rows[1][ERROR]


def test_a_broken_line_is_an_error_row_wherever_it_stands() -> None:
    data = b'{"a":1}\n{"a":\nnonsense\n{"a":2}\n{"a":3'

    assert errors_of(data, name="a.jsonl") == [(1, "row.malformed"), (2, "row.malformed"), (4, "row.malformed")]


def test_as_many_levels_as_are_allowed_are_read() -> None:
    deep = "[" * 99 + "]" * 99

    assert cells_of(as_lines(f'{{"a":{deep}}}'), name="a.jsonl") == [[deep]]


@pytest.mark.parametrize(
    ("data", "cells"),
    [
        (b'{"a":1}\r\n{"a":2}\r\n', [[1], [2]]),
        (b'\n\n{"a":1}\n\r\n\n{"a":2}', [[1], [2]]),
        (b'\xef\xbb\xbf{"a":1}\n', [[1]]),
        (b' {"a" : 1} \n{"a":2}\n', [[1], [2]]),
    ],
)
@pytest.mark.parametrize("target_bytes", [1, 1_000])
@pytest.mark.parametrize("block_bytes", [1, 5, 1_000])
def test_lines_are_found_however_they_end(
    data: bytes, cells: list[list[int]], target_bytes: int, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", block_bytes)

    assert cells_of(data, name="a.jsonl", target_bytes=target_bytes) == cells
    assert sum(span.row_count or 0 for span in spans_of(data, name="a.jsonl")) == len(cells)


@pytest.mark.parametrize(
    ("data", "cells"),
    [
        (b"[]", []),
        (b" [ ] ", []),
        (b'{"a":1,\n "b":[2]}', [[1, "[2]"]]),
        (b'\xef\xbb\xbf[{"a":1}]', [[1]]),
        ('[{"ä":"\\u00e9\\ud83d\\ude00"}]'.encode(), [["é😀"]]),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 3, 1_000])
def test_a_document_is_read_element_by_element(
    data: bytes, cells: list[list[Any]], block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_array, "BLOCK_BYTES", block_bytes)

    assert cells_of(data, name="a.json") == cells


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b'[{"a":1},', "file.truncated"),
        (b'[{"a":1}', "file.truncated"),
        (b'[{"a":"x', "file.truncated"),
        (b'[{"a":1,', "file.truncated"),
        (b'[{"a":1} {"a":2}]', "file.malformed"),
        (b'[{"a":1}] x', "file.malformed"),
        (b'[{"a" 1}]', "file.malformed"),
        (b'[{"a":1},]', "file.malformed"),
        pytest.param(b"[" * 100_000, "file.malformed", id="100000-levels"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, "file.malformed", id="100000-closed-levels"),
        (b'[{"a":"\xff"}]', "file.encoding"),
        (b'[{"a":"\x00"}]', "file.encoding"),
    ],
)
def test_a_broken_document_says_why(data: bytes, code: str) -> None:
    with pytest.raises(ConfigError) as raised:
        rows_of(data, name="a.json")

    assert raised.value.code == code


@pytest.mark.parametrize("data", [b'{"a":\xff}\n', b'{"a":"\x00"}\n', '{"a":1}'.encode("utf-16")])
def test_lines_that_are_no_utf8_are_refused_with_the_byte(data: bytes) -> None:
    with pytest.raises(ConfigError) as raised:
        spans_of(data, name="a.jsonl")

    assert raised.value.code == "file.encoding"


def test_renamed_columns_are_known_before_reading() -> None:
    [span] = spans_of(b'{"_id":1,"__time":2}\n', name="a.jsonl")

    assert span.renamed == {"id_": "_id", "time_": "__time"}
    assert rows_of(b'{"_id":1,"__time":2}\n', name="a.jsonl")[0]["time_"] == 2


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
RECORDS = st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES), max_size=8)


@pytest.mark.parametrize(("form", "name"), FORMS)
@settings(max_examples=200, deadline=None)
@given(records=RECORDS, target_bytes=st.integers(1, 200), ensure_ascii=st.booleans())
def test_what_json_writes_comes_back(
    form: Any, name: str, records: list[dict[str, Any]], target_bytes: int, ensure_ascii: bool
) -> None:
    data = form(*[json.dumps(record, ensure_ascii=ensure_ascii) for record in records])
    if not records and name == "a.jsonl":
        return

    rows = rows_of(data, name=name, target_bytes=target_bytes)

    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        assert row[ERROR_CODE] is None, row
        for column, value in record.items():
            assert _same(row.get(column), value)


def _same(cell: Any, value: Any) -> bool:
    if cell == value:
        return True
    return isinstance(cell, str) and not isinstance(value, str) and json.loads(cell) == value
