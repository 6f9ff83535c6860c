"""Tables against contracts: rules, outcomes, books, columns as a whole."""

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from ingestion.ports.errors import ConfigError
from ingestion.quality.checking import Counts
from ingestion.quality.contracts import RULES
from ingestion.quality.rejects import REJECTED_SCHEMA
from tests.quality.tables import broken, check, check_column, contract

ID = {"name": "id", "type": "integer", "nullable": False}


@pytest.mark.parametrize(
    ("column", "good", "bad", "rule"),
    [
        ({"nullable": False}, ["a", ""], [None], "nullable"),
        ({"type": "integer", "nullable": False}, ["1"], [None, "", " "], "nullable"),
        ({"pattern": "^[A-Z]{2}$"}, ["AB", None], ["A", "ABC", "AB\n", ""], "pattern"),
        ({"pattern": "b"}, ["abc"], ["acc"], "pattern"),
        ({"type": "integer", "pattern": "^[0-9]{2}$"}, ["12"], ["1"], "pattern"),
        ({"type": "integer", "min": 0}, ["0", "1", None], ["-1"], "min"),
        ({"type": "integer", "max": 9007199254740993}, ["9007199254740993"], ["9007199254740994"], "max"),
        ({"type": "integer", "min": 0.5, "max": 1.5}, ["1"], ["0"], "min"),
        ({"type": "integer", "max": -1e30}, [None], ["1"], "max"),
        ({"type": "integer", "min": 1e30}, [None], ["1"], "min"),
        ({"type": "integer", "max": 1e30}, [str(2**63 - 1)], [], "max"),
        ({"type": "number", "min": 0, "max": 1}, ["0", "1", "0.5"], ["-0.001"], "min"),
        ({"type": "number", "min": 0, "max": 1}, ["0"], ["1.001"], "max"),
        ({"type": "date", "min": "2024-01-01"}, ["2024-01-01"], ["2023-12-31"], "min"),
        ({"type": "datetime", "max": "2024-01-01"}, ["2024-01-01T00:00:00Z"], ["2024-01-01T00:00:00.000001Z"], "max"),
        ({"type": "datetime", "max": "2024-01-01T00:00:00Z"}, ["2024-01-01T01:00:00+01:00"], ["2024-01-02"], "max"),
        ({"enum": ["a", "b"]}, ["a", "b", None], ["A", "c"], "enum"),
        ({"type": "integer", "enum": [1, "2"]}, ["1", "02"], ["3"], "enum"),
        ({"type": "boolean", "enum": [True]}, ["true", "1"], ["0"], "enum"),
        ({"type": "date", "enum": ["2024-01-01"]}, ["2024-01-01"], ["2024-01-02"], "enum"),
        ({"type": "datetime", "enum": ["2024-01-01T00:00:00Z"]}, ["2024-01-01"], ["2024-01-02"], "enum"),
        ({"type": "number", "enum": [1, 2.5]}, ["1.0", "2.5"], ["2"], "enum"),
        ({"type": "any", "enum": ["x"]}, ["x"], ["y"], "enum"),
    ],
)
def test_each_rule_takes_the_good_and_names_the_bad(
    column: dict[str, Any], good: list[str | None], bad: list[str | None], rule: str
) -> None:
    verdict = check_column([*good, *bad], **column)

    assert broken(verdict) == {len(good) + number: [("v", rule)] for number in range(len(bad))}
    assert rule in RULES
    assert verdict.counts == Counts(len(good) + len(bad), len(good), len(bad), 0, 0)


def test_texts_that_the_contract_calls_missing_are_null_in_every_column() -> None:
    body = contract(ID, {"name": "a"}, {"name": "b", "type": "number"}, missing_values=["", "#N/A"])

    verdict = check(body, {"id": ["1", "2", "#N/A"], "a": ["", "#N/A ", "x"], "b": ["#N/A", "2", "3"]})

    assert verdict.clean.select(["a", "b"]).to_pylist() == [{"a": None, "b": None}, {"a": "#N/A ", "b": 2.0}]
    assert broken(verdict) == {2: [("id", "nullable")]}
    assert json.loads(verdict.rejected["raw"][0].as_py()) == {"id": "#N/A", "a": "x", "b": "3"}


def test_a_row_lists_every_rule_it_breaks_in_the_order_of_the_contract() -> None:
    body = contract(
        ID,
        {"name": "a", "type": "string", "pattern": "^x", "enum": ["xy"]},
        {"name": "b", "type": "number"},
        key=["id"],
    )

    verdict = check(body, {"b": ["NaN"], "a": ["q"], "id": [None]})

    assert broken(verdict) == {
        0: [("id", "nullable"), ("id", "key.null"), ("a", "pattern"), ("a", "enum"), ("b", "type")]
    }
    (row,) = verdict.rejected.to_pylist()
    assert row["outcome"] == "rejected"
    assert json.loads(row["raw"]) == {"b": "NaN", "a": "q", "id": None}
    assert all(error["message"].endswith(".") or "pattern" in error["message"] for error in row["errors"])


def test_the_offending_value_is_cut() -> None:
    verdict = check_column(["ä" * 500], type="integer")

    assert verdict.rejected["errors"][0].as_py()[0]["value"] == "ä" * 200


def test_every_clean_row_says_where_it_came_from() -> None:
    verdict = check(
        contract({"name": "v", "type": "integer"}),
        {"w": ["x", "y"], "v": ["1", "2"], "_row": [10, 11], "_page": pa.array([0, 1], pa.int64())},
    )

    assert verdict.clean.column_names == ["v", "w", "_run", "_part", "_row", "_page"]
    assert verdict.clean.to_pylist()[1] == {"v": 2, "w": "y", "_run": 7, "_part": "0-0", "_row": 11, "_page": 1}
    assert verdict.clean.schema.field("_row").type == pa.int64()
    assert verdict.clean.schema.field("_page").type == pa.int32()


def test_without_reader_columns_rows_are_numbered_from_zero() -> None:
    verdict = check_column(["1", "x"], type="integer")

    assert verdict.clean["_row"].to_pylist() == [0]
    assert verdict.rejected.select(["_row", "_page"]).to_pylist() == [{"_row": 1, "_page": None}]
    assert verdict.rejected.schema == REJECTED_SCHEMA


def test_a_record_that_could_not_be_read_is_rejected_for_that_alone() -> None:
    verdict = check(
        contract(ID, key=["id"]),
        {
            "id": ["1", None, "1"],
            "_raw": [None, "1;2;3", None],
            "_error_code": [None, "row.too_many_fields", None],
            "_error": [None, "The line has 3 fields.", None],
            "_page": [0, 0, 0],
        },
    )

    unreadable, duplicate = verdict.rejected.to_pylist()
    assert unreadable["raw"] == "1;2;3"
    assert unreadable["errors"] == [
        {"column": "", "rule": "read", "value": "row.too_many_fields", "message": "The line has 3 fields."}
    ]
    assert duplicate["outcome"] == "duplicate"
    assert verdict.counts == Counts(3, 1, 1, 1, 0)


def test_filtered_rows_are_counted_and_neither_checked_nor_published() -> None:
    verdict = check(
        contract(ID, key=["id"]),
        {"id": ["1", "1", "x", "2"], "_filtered": [None, True, True, False], "_error_code": [None, None, "c", None]},
    )

    assert verdict.counts == Counts(4, 2, 0, 0, 2)
    assert verdict.clean["id"].to_pylist() == [1, 2]


def test_in_files_the_first_of_several_rows_with_one_key_stays() -> None:
    verdict = check(contract(ID, key=["id"]), {"id": ["1", "2", " 1", "01", "2"], "v": list("abcde")})

    assert verdict.clean["v"].to_pylist() == ["a", "b"]
    assert verdict.rejected["outcome"].to_pylist() == ["duplicate"] * 3
    assert broken(verdict) == dict.fromkeys([2, 3, 4], [("id", "key.duplicate")])
    assert verdict.counts == Counts(5, 2, 0, 3, 0)


def test_from_an_api_the_newest_version_stays_then_the_last() -> None:
    body = contract(ID, {"name": "at", "type": "datetime"}, key=["id"])
    data = {
        "id": ["1", "1", "1", "2", "2", "3", "3"],
        "at": ["2024-01-01", "2024-01-03", "2024-01-02", "2024-01-01", "2024-01-01", "2024-01-01", None],
        "v": list("abcdefg"),
    }

    verdict = check(body, data, is_file=False, cursor_field="at")

    assert verdict.clean["v"].to_pylist() == ["b", "e", "f"]
    assert verdict.high_water == "2024-01-03T00:00:00Z"


def test_from_an_api_without_a_cursor_the_last_stays() -> None:
    verdict = check(contract(ID, key=["id"]), {"id": ["1", "1"], "v": ["a", "b"]}, is_file=False)

    assert verdict.clean["v"].to_pylist() == ["b"]


def test_uniqueness_is_decided_before_anything_is_taken_out() -> None:
    body = contract(ID, {"name": "v", "type": "integer"}, key=["id"])

    verdict = check(body, {"id": ["1", "1", "2", "2"], "v": ["x", "1", "1", "x"]})

    assert broken(verdict) == {
        0: [("v", "type")],
        1: [("id", "key.duplicate")],
        3: [("v", "type"), ("id", "key.duplicate")],
    }
    assert verdict.rejected["outcome"].to_pylist() == ["rejected", "duplicate", "rejected"]


def test_keys_of_several_columns_are_compared_as_a_whole() -> None:
    body = contract({"name": "a"}, {"name": "b", "type": "integer"}, key=["a", "b"])

    verdict = check(body, {"a": ["x", "x", "x", None, None], "b": ["1", "2", "1", "1", "1"]})

    assert broken(verdict) == {2: [("a,b", "key.duplicate")], 3: [("a", "key.null")], 4: [("a", "key.null")]}
    assert verdict.rejected["errors"][0].as_py()[0]["value"] == "x, 1"


def test_null_words_of_other_tools_are_text_and_not_null() -> None:
    words = ["n/a", "NA", "NULL", "null", "None", "nan", "#N/A", "-"]

    assert check_column(words, nullable=False).counts.accepted == len(words)
    assert check_column(words, type="integer").counts.rejected == len(words)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (contract(ID, key=["id"]), "contract.missing_key_column"),
        (contract({"name": "need", "nullable": False}), "contract.missing_column"),
        (contract({"name": "w"}, extra_columns="reject"), "contract.unexpected_column"),
    ],
)
def test_columns_that_do_not_fit_as_a_whole_stop_the_partition(body: dict[str, Any], code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(body, {"v": ["1"]})

    assert caught.value.code == code


def test_a_missing_nullable_column_is_filled_with_nulls_and_said() -> None:
    verdict = check(contract({"name": "v"}, {"name": "more", "type": "number"}), {"v": ["1"]})

    assert verdict.clean["more"].to_pylist() == [None]
    assert verdict.clean.column_names[:2] == ["v", "more"]
    assert len(verdict.warnings) == 1
    assert "'more'" in verdict.warnings[0]


def test_missing_columns_do_not_matter_where_no_row_could_be_read() -> None:
    body = contract(ID, key=["id"])

    empty = check(body, pa.table({}))
    unreadable = check(body, {"_error_code": ["row.malformed"], "_error": ["no"], "_raw": ["{"]})

    assert empty.counts == Counts(0, 0, 0, 0, 0)
    assert empty.clean.column_names == ["id", "_run", "_part", "_row", "_page"]
    assert unreadable.counts == Counts(1, 0, 1, 0, 0)
    assert unreadable.rejected["raw"].to_pylist() == ["{"]


def test_extra_columns_are_discarded_where_the_contract_says_so() -> None:
    verdict = check(contract({"name": "v"}, extra_columns="discard"), {"v": ["1"], "w": ["2"]})

    assert verdict.clean.column_names == ["v", "_run", "_part", "_row", "_page"]


def test_extra_columns_are_kept_in_types_that_every_destination_takes() -> None:
    data = pa.table(
        {
            "ns": pa.array([1_000], pa.timestamp("ns")),
            "nested": pa.array([{"a": [1.5]}]),
            "small": pa.array([1], pa.int8()),
            "half": pa.array([1.5], pa.float32()),
            "time": pa.array([dt.time(1, 2)]),
            "long": pa.array([dt.timedelta(days=1)]),
            "nothing": pa.nulls(1),
            "bytes": pa.array([b"\xff"]),
            "category": pa.array(["x"]).dictionary_encode(),
            "listed": pa.array([[b"x"]]),
        }
    )

    clean = check({"name": "x"}, data).clean

    assert clean.drop_columns(["_run", "_part", "_row", "_page"]).to_pylist() == [
        {
            "ns": dt.datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC),
            "nested": '{"a":[1.5]}',
            "small": 1,
            "half": 1.5,
            "time": "01:02:00",
            "long": "P1D",
            "nothing": None,
            "bytes": "/w==",
            "category": "x",
            "listed": '["x"]',
        }
    ]
    assert not [field for field in clean.schema if "ns" in str(field.type)]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([2**62, 0], pa.timestamp("ms")),
        pa.array([-(2**63), 0], pa.timestamp("us")),
        pa.array([2**63 - 1, 0], pa.timestamp("ns")),
        pa.array([2**62, 0], pa.timestamp("us", "Europe/Berlin")),
        pa.array([2**31 - 1, 0], pa.date32()),
        pa.array([[2**62], None], pa.list_(pa.timestamp("ms"))),
        pa.array([[2**31 - 1], None], pa.list_(pa.date32())),
        pa.array([[b"\xff"], None], pa.list_(pa.binary())),
        pa.array([[{"a": Decimal("1.5")}], None]),
        pa.array([2**62, 0], pa.duration("ms")),
    ],
)
def test_values_beyond_what_can_be_told_as_a_date_stop_nothing(values: pa.Array) -> None:
    kept = check({"name": "x"}, {"v": values})
    rejected = check(contract({"name": "w", "nullable": False}), {"v": values, "w": pa.nulls(2)})
    as_text = check_column(values, type="string")

    assert kept.counts.accepted == as_text.counts.accepted == 2
    assert [json.loads(raw)["w"] for raw in rejected.rejected["raw"].to_pylist()] == [None, None]


def test_a_contract_without_columns_passes_everything_as_it_is() -> None:
    verdict = check({"name": "x"}, {"a": ["1", "", None], "b": [1, 2, 3]})

    assert verdict.counts == Counts(3, 3, 0, 0, 0)
    assert verdict.clean["a"].to_pylist() == ["1", "", None]
    assert verdict.warnings == ()


def test_a_column_with_a_name_of_ours_is_published_under_another() -> None:
    verdict = check({"name": "x"}, {"_run": ["a"], "run_": ["b"], "_id": ["c"]})

    assert verdict.clean.column_names == ["run__", "run_", "_id", "_run", "_part", "_row", "_page"]
    assert verdict.clean["_run"].to_pylist() == [7]
    assert len(verdict.warnings) == 1


def test_two_columns_of_one_name_are_an_error_with_a_code() -> None:
    table = pa.Table.from_arrays([pa.array(["1"]), pa.array(["2"])], names=["a", "a"])

    with pytest.raises(ConfigError, match="'a' more than once"):
        check({"name": "x"}, table)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2024-01-01T00:00:00Z", "2024-01-02T00:00:00.5Z", "x"], "2024-01-02T00:00:00.500000Z"),
        ([None], ""),
    ],
)
def test_the_high_water_is_the_greatest_accepted_value(values: list[str | None], expected: str) -> None:
    verdict = check(
        contract({"name": "at", "type": "datetime"}), {"at": pa.array(values, pa.string())}, cursor_field="at"
    )

    assert verdict.high_water == expected


def test_rejected_rows_alone_pay_for_their_raw_record() -> None:
    verdict = check(
        contract({"name": "v", "type": "integer"}),
        {"v": ["1", "x"], "w": pa.array([{"k": 1}, {"k": 2}]), "_raw": pa.array([None, None], pa.string())},
    )

    assert [json.loads(raw) for raw in verdict.rejected["raw"].to_pylist()] == [{"v": "x", "w": {"k": 2}}]


def test_many_rejected_rows_keep_their_own_errors() -> None:
    values = ["x" if number % 3 else str(number) for number in range(120_001)]

    verdict = check_column(values, type="integer")

    assert verdict.rejected["_row"].to_pylist() == [number for number, value in enumerate(values) if value == "x"]
    assert all(len(errors) == 1 for errors in verdict.rejected["errors"].to_pylist())


def test_columns_whose_names_have_a_nul_are_columns_like_any_other() -> None:
    table = pa.table(
        [pa.array(["x", None]), pa.array([1, 2]), pa.array(["2026-01-02", "?"])], names=["a\0b", "a", "d\0"]
    )

    verdict = check(contract({"name": "d\0", "type": "date"}), table)

    assert verdict.clean.select(["a\0b", "a", "d\0"]).to_pylist() == [{"a\0b": "x", "a": 1, "d\0": dt.date(2026, 1, 2)}]
    assert broken(verdict) == {1: [("d\0", "type")]}
