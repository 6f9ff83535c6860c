"""Sheets come with the types that their cells have."""

import io
import zipfile
from datetime import UTC, date, datetime, time
from typing import Any

import pytest
import xlsxwriter

from ingestion.ports.batch import ERROR, ERROR_CODE, ROW
from ingestion.ports.errors import ConfigError
from tests.toolkit.tabular.reading import cells_of, errors_of, rows_of, spans_of


def book(
    *rows: list[Any], sheets: tuple[str, ...] = ("Sheet1",), hidden: int = 0, begins_1904: bool = False, at: int = 0
) -> bytes:
    output = io.BytesIO()
    options = {"remove_timezone": True, "default_date_format": "yyyy-mm-dd hh:mm:ss", "date_1904": begins_1904}
    workbook = xlsxwriter.Workbook(output, options)
    for index, name in enumerate(sheets):
        sheet = workbook.add_worksheet(name)
        if index < hidden:
            sheet.hide() if index % 2 else sheet.very_hidden()
        elif index == hidden:
            sheet.activate()
        for number, row in enumerate(rows, start=at):
            for position, value in enumerate(row, start=at):
                if isinstance(value, str) and value.startswith("#"):
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
        ([time(9, 30, 15, 250_000), time(0, 0)], ["09:30:15.250", "00:00:00"]),
        ([time(9, 30), datetime(2024, 1, 2, 3, 4, tzinfo=UTC)], ["09:30:00", "2024-01-02T03:04:00"]),
        ([time(9, 30), "x"], ["09:30:00", "x"]),
        ([date(1900, 1, 1), date(1900, 2, 28), None], [date(1900, 1, 1), date(1900, 2, 28), None]),
        ([True, 5, 1], ["true", "5", "1"]),
        ([5, 1, False], ["5", "1", "false"]),
        ([1.5, True, None], ["1.5", "true", None]),
        ([True, None], [True, None]),
        ([True, "TRUE"], ["true", "TRUE"]),
        ([1e300, 1.25e19], [1e300, 1.25e19]),
    ],
)
def test_cells_have_the_type_they_have_in_the_sheet(values: list[Any], cells: list[Any]) -> None:
    data = book(["key", "a"], *[["k", value] for value in values])

    assert [row[1] for row in cells_of(data, name="a.xlsx")] == cells


@pytest.mark.parametrize("begins_1904", [False, True])
def test_times_and_dates_do_not_depend_on_the_day_from_which_days_are_counted(begins_1904: bool) -> None:
    moment = datetime(2024, 1, 2, 9, 30, 15, 250_000, tzinfo=UTC).replace(tzinfo=None)

    data = book(["time", "at"], [time(9, 30, 15, 250_000), moment], [time(0, 0), moment], begins_1904=begins_1904)

    assert cells_of(data, name="a.xlsx") == [["09:30:15.250", moment], ["00:00:00", moment]]


def test_empty_rows_are_no_records() -> None:
    rows = rows_of(book(["a", "b"], [1, 2], [], [3, None]), name="a.xlsx")

    assert [(row[ROW], row["a"], row["b"]) for row in rows] == [(0, 1, 2), (1, 3, None)]


def test_an_excel_error_is_an_error_row() -> None:
    data = book(["a", "b"], [1, 2], [3, "#DIV/0!"], [4, 5])

    assert errors_of(data, name="a.xlsx") == [(1, "row.malformed")]
    assert cells_of(data, name="a.xlsx") == [[1, 2], [4, 5]]


def with_sheet(data: bytes, old: bytes, new: bytes) -> bytes:
    """Return the workbook with other XML in its first sheet."""
    output = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(output, "w") as copy:
        for info in archive.infolist():
            content = archive.read(info)
            if info.filename == "xl/worksheets/sheet1.xml":
                assert old in content
                content = content.replace(old, new)
            copy.writestr(info.filename, content)
    return output.getvalue()


@pytest.mark.parametrize("error", ["#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"])
@pytest.mark.parametrize("at", [0, 2])
def test_a_row_with_an_error_names_cell_column_and_error(error: str, at: int) -> None:
    data = book(["a", "b", "#N/A"], [1, 2, 3], [3, "#N/A", 3], [4, True, 3], at=at)
    data = with_sheet(data, b"<v>#N/A</v>", f"<v>{error}</v>".encode())

    [bad] = [row for row in rows_of(data, name="a.xlsx") if row[ERROR_CODE]]

    assert bad[ROW] == 1
    assert f"the cell {'BD'[at // 2]}{3 + at} in the column 'b' has Excel's error {error}" in bad[ERROR]


@pytest.mark.parametrize(
    "cell",
    [
        b'<c r="A2"><f>1+1</f></c>',
        b'<c r="A2" s="1"><f>1+1</f><v></v></c>',
        b'<c r="A2" t="str"><f>"x"</f></c>',
        b'<c r="A2" t="n"><f t="shared" si="0"/><v/></c>',
        b'<c r="A2">\n <f t="array" ref="A2:A3">1+1</f>\n <v></v>\n</c>',
    ],
)
def test_a_formula_that_nobody_calculated_is_an_error_and_no_empty_cell(cell: bytes) -> None:
    data = with_sheet(book(["a", "b"], [1, 2], [3, 4]), b'<c r="A2"><v>1</v></c>', cell)

    bad, good = rows_of(data, name="a.xlsx")

    assert "the cell A2 in the column 'a' has a formula without a calculated value" in bad[ERROR]
    assert (good["a"], good["b"]) == (3, 4)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (b'<c r="A2" t="str"><f>""</f><v></v></c>', ""),
        (b'<c r="A2" t="str"><f>"x"</f><v>x</v></c>', "x"),
        (b'<c r="A2"><f>1+1</f><v>2</v></c>', "2"),
    ],
)
def test_a_calculated_formula_is_its_value(cell: bytes, value: str) -> None:
    data = with_sheet(book(["a", "b"], [1, 2], ["y", 4]), b'<c r="A2"><v>1</v></c>', cell)

    assert [row["a"] for row in rows_of(data, name="a.xlsx")] == [value, "y"]


def test_the_first_visible_sheet_is_read_unless_another_is_named() -> None:
    data = book(["a"], [1], sheets=("one", "two & three", "four"), hidden=1)

    [chosen], [named] = spans_of(data, name="a.xlsx"), spans_of(data, name="a.xlsx", sheet="one")

    assert (chosen.layout["sheet"], named.layout["sheet"]) == ("two & three", "one")
    assert chosen.notes == (
        "Of a.xlsx the sheet 'two & three' is read, the first visible one; there are also: four, one (hidden).",
    )
    assert named.notes == ()


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
