"""A first contract, inferred from data."""

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from ingestion.ports.batch import DELIMITER
from ingestion.ports.schema import Column, ColumnType, ExtraColumns
from ingestion.quality.contracts import compile_contract
from ingestion.quality.draft import draft_contract


def drafted(values: pa.Array | list[Any], name: str = "v") -> Column:
    column = draft_contract(pa.table({name: values}), name="x").column(name)
    assert column is not None
    return column


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", " 3 "], ColumnType.INTEGER),
        (["0", "1"], ColumnType.INTEGER),
        (["1", "2.5", "1e3"], ColumnType.NUMBER),
        (["true", "False"], ColumnType.BOOLEAN),
        (["2024-01-01", "2024-02-29"], ColumnType.DATE),
        (["2024-01-01T00:00:00Z", "2024-01-02 10:00"], ColumnType.DATETIME),
        (["2024-01-01T00:00:00", "2024-01-02"], ColumnType.DATETIME),
        (["1", "x"], ColumnType.STRING),
        (["1", "n/a"], ColumnType.STRING),
        (["1.5", "NaN"], ColumnType.STRING),
        (["007", "12"], ColumnType.STRING),
        (["+491234"], ColumnType.STRING),
        (["123456789012345678901234"], ColumnType.STRING),
        (["123456789012345678901234", "1.5"], ColumnType.STRING),
        (["true", "1"], ColumnType.STRING),
        (["1.0", "2.0"], ColumnType.NUMBER),
        (["0.1", "0.30000000000000004", "1.50000000000000000000", "1e22"], ColumnType.NUMBER),
        (["12345678901234567.89", "1.5"], ColumnType.STRING),
        (["0.1234567890123456789"], ColumnType.STRING),
        (["1e400"], ColumnType.STRING),
        (["1e-400"], ColumnType.STRING),
        (["2024-01-01T00:00:00.123456"], ColumnType.DATETIME),
        (["2024-01-01T00:00:00.123456789Z"], ColumnType.STRING),
        (pa.array([1, 1_000], pa.timestamp("ns")), ColumnType.STRING),
        (pa.array([253_402_300_800], pa.timestamp("s")), ColumnType.STRING),
        (pa.array([Decimal("1.50")]), ColumnType.NUMBER),
        (pa.array([Decimal("12345678901234567.89")]), ColumnType.STRING),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), ColumnType.OBJECT),
        (pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int8())), ColumnType.STRING),
        (["2024-02-30"], ColumnType.STRING),
        ([None, None], ColumnType.STRING),
        (["", ""], ColumnType.STRING),
        (pa.array([1]), ColumnType.INTEGER),
        (pa.array([2**63], pa.uint64()), ColumnType.STRING),
        (pa.array([1.5]), ColumnType.NUMBER),
        (pa.array([float("nan")]), ColumnType.STRING),
        (pa.array([True]), ColumnType.BOOLEAN),
        (pa.array([dt.date(2024, 1, 1)]), ColumnType.DATE),
        (pa.array([0], pa.timestamp("ns")), ColumnType.DATETIME),
        (pa.array([{"a": 1}]), ColumnType.OBJECT),
        (pa.array([[1]]), ColumnType.ARRAY),
        (pa.nulls(1), ColumnType.STRING),
    ],
)
def test_a_type_is_proposed_only_where_every_value_fits_without_loss(values: Any, kind: ColumnType) -> None:
    column = drafted(values)

    assert column.type is kind


def test_a_late_value_counts_as_much_as_an_early_one() -> None:
    assert drafted(["1"] * 5_000 + ["x"]).type is ColumnType.STRING


@pytest.mark.parametrize(
    ("values", "nullable"), [(["a"], False), (["a", ""], False), (["1", " "], True), (["1", None], True), ([], True)]
)
def test_a_column_is_nullable_unless_no_null_was_seen(values: list[str | None], nullable: bool) -> None:
    assert drafted(pa.array(values, pa.string())).nullable is nullable


@pytest.mark.parametrize(
    ("values", "is_number"),
    [
        (["1,5", "-1.234,75", "12", "", None, " 0,5 "], True),
        (["1.234,567", "5"], True),
        (["0,125"], True),
        (["1,234", "5,678"], False),
        (["1,5", "x"], False),
        (["1,5", "1.5"], False),
        (["1,5", "007"], False),
        (["1,5", "+49"], False),
        (["1,5", "12,3,4"], False),
        (["1,5", "12345678901234567,25"], False),
        (["1.234", "5.678"], None),
        (["", None], False),
    ],
)
def test_a_decimal_comma_is_told_where_commas_do_not_stand_between_cells(
    values: list[str | None], is_number: bool | None
) -> None:
    table = pa.table({"v": pa.array(values, pa.string())})

    [found] = draft_contract(table.replace_schema_metadata({DELIMITER: ";"}), name="x").columns
    [plain] = draft_contract(table.replace_schema_metadata({DELIMITER: ","}), name="x").columns

    if is_number is None:
        assert (found.type, found.format) == (plain.type, plain.format) == (ColumnType.NUMBER, None)
    else:
        assert (found.type, found.format) == (
            (ColumnType.NUMBER, "1.234,5") if is_number else (ColumnType.STRING, None)
        )
        assert plain.type is ColumnType.STRING


def test_no_key_is_guessed() -> None:
    body = draft_contract(pa.table({"id": ["1", "2"]}), name="x")

    verdict = compile_contract(body).check(pa.table({"id": ["1", "1"]}), run_id=1, part="0-0", is_file=True)

    assert body.key == ()
    assert (verdict.counts.accepted, verdict.counts.duplicate) == (2, 0)


def test_reader_columns_and_unreadable_rows_do_not_count() -> None:
    table = pa.table({"v": ["1", "x"], "_row": [0, 1], "_error_code": [None, "row.malformed"]})

    body = draft_contract(table, name="n" * 300)

    assert [(column.name, column.type) for column in body.columns] == [("v", ColumnType.INTEGER)]
    assert body.extra_columns is ExtraColumns.KEEP
    assert len(body.name) == 100


def test_the_draft_accepts_what_it_was_made_from() -> None:
    table = pa.table(
        {
            "id": ["1", "2", "3"],
            "n": ["1", None, " 2"],
            "x": ["1.5", "", "2"],
            "b": ["true", "FALSE", None],
            "at": ["2024-01-01", "2024-01-01T10:00:00+02:00", ""],
            "o": pa.array([{"a": 1}, None, {"a": 2}]),
            "f": pa.array([1.0, float("nan"), None]),
            "big": pa.array([2**63, 1, None], pa.uint64()),
        }
    )

    verdict = compile_contract(draft_contract(table, name="x")).check(table, run_id=1, part="0-0", is_file=True)

    assert verdict.counts.accepted == 3
