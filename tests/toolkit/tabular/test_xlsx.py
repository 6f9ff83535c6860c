"""Sheets come with the types that their cells have."""

import io
import zipfile
from datetime import UTC, date, datetime, time
from typing import Any

import pytest
import xlsxwriter

from ingestion.ports.batch import ERROR_CODE, ROW
from ingestion.ports.errors import ConfigError
from tests.toolkit.tabular.reading import cells_of, errors_of, rows_of, spans_of


def book(*rows: list[Any], sheets: tuple[str, ...] = ("Sheet1",)) -> bytes:
    output = io.BytesIO()
    workbook = xlsxwriter.Workbook(output, {"remove_timezone": True, "default_date_format": "yyyy-mm-dd hh:mm:ss"})
    for name in sheets:
        sheet = workbook.add_worksheet(name)
        for number, row in enumerate(rows):
            for position, value in enumerate(row):
                if value == "#DIV/0!":
                    sheet.write_formula(number, position, "=1/0", None, value)
                elif value is not None:
                    sheet.write(number, position, value)
    workbook.close()
    return output.getvalue()


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([1, 2, None], [1, 2, None]),
        ([1, 2.5], [1.0, 2.5]),
        (["x", "ü", ""], ["x", "ü", None]),
        ([True, False], [True, False]),
        ([1, "x", 2.5], ["1", "x", "2.5"]),
        (["007", "1e5"], ["007", "1e5"]),
        ([datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)], [datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC).replace(tzinfo=None)]),
        ([date(2024, 1, 2), date(2024, 1, 3)], [date(2024, 1, 2), date(2024, 1, 3)]),
        ([time(1, 2, 3)], ["01:02:03"]),
        ([1e300, 1.25e19], [1e300, 1.25e19]),
    ],
)
def test_cells_have_the_type_they_have_in_the_sheet(values: list[Any], cells: list[Any]) -> None:
    data = book(["key", "a"], *[["k", value] for value in values])

    assert [row[1] for row in cells_of(data, name="a.xlsx")] == cells


def test_empty_rows_are_no_records() -> None:
    rows = rows_of(book(["a", "b"], [1, 2], [], [3, None]), name="a.xlsx")

    assert [(row[ROW], row["a"], row["b"]) for row in rows] == [(0, 1, 2), (1, 3, None)]


def test_an_excel_error_is_an_error_row() -> None:
    data = book(["a", "b"], [1, 2], [3, "#DIV/0!"], [4, 5])

    assert errors_of(data, name="a.xlsx") == [(1, "row.malformed")]
    assert cells_of(data, name="a.xlsx") == [[1, 2], [4, 5]]


def test_the_first_sheet_is_read_unless_another_is_named() -> None:
    data = book(["a"], [1], sheets=("one", "two"))

    assert spans_of(data, name="a.xlsx")[0].layout == {"sheet": "one"}
    assert spans_of(data, name="a.xlsx", sheet="two")[0].layout == {"sheet": "two"}


def test_an_unnamed_column_gets_a_name() -> None:
    [row] = rows_of(book(["a", None, "_b"], [1, 2, 3]), name="a.xlsx")

    assert (row["a"], row["column_2"], row["b_"]) == (1, 2, 3)


def test_a_header_alone_is_no_rows() -> None:
    assert rows_of(book(["a", "b"]), name="a.xlsx") == []


@pytest.mark.parametrize(
    ("data", "options", "code"),
    [
        (book(["a"], [1])[:-30], {}, "file.truncated"),
        (book(["a"], [1])[:400], {}, "file.truncated"),
        (book(["a", "a"], [1, 2]), {}, "file.duplicate_column"),
        (book(), {}, "file.empty"),
        (book(["a"], [1]), {"sheet": "none"}, "file.malformed"),
    ],
)
def test_a_workbook_that_cannot_be_used_says_why(data: bytes, options: dict[str, str], code: str) -> None:
    with pytest.raises(ConfigError) as raised:
        spans_of(data, name="a.xlsx", **options)

    assert raised.value.code == code


@pytest.mark.parametrize("position", [0.2, 0.4, 0.6, 0.8])
def test_damaged_bytes_are_an_answer_and_no_crash(position: float) -> None:
    data = bytearray(book(["a", "b"], *[[number, f"text {number}"] for number in range(200)]))
    at = int(len(data) * position)
    data[at : at + 40] = b"\xff" * 40

    try:
        rows = rows_of(bytes(data), name="a.xlsx")
    except ConfigError as error:
        assert error.code.startswith("file.")
    else:
        assert all(row[ERROR_CODE] is None for row in rows)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("xl/worksheets/sheet1.xml", "w") as member:
            for _ in range(300):
                member.write(b" " * 1024 * 1024)

    with pytest.raises(ConfigError) as raised:
        spans_of(output.getvalue(), name="a.xlsx")

    assert raised.value.code == "file.malformed"
