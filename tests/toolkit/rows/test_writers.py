"""Rows in files: what stands in them, and that they can be gone on with."""

import csv
import io
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import fastexcel
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.clean.sequence import RowSequence
from ingestion.toolkit.lake.opening import ObjectStore, open_lake
from ingestion.toolkit.rows import workbook
from ingestion.toolkit.rows.formats import MEDIA_TYPES, format_of, write
from ingestion.toolkit.rows.spreadsheets import defuse
from tests.toolkit.rows.material import numbered, put_part, sequence

TIMESTAMP = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> ObjectStore:
    return open_lake(str(tmp_path / "lake"))


@pytest.fixture
def mixed(lake: ObjectStore) -> RowSequence:
    """One row of every kind, and one of nulls."""
    columns = {
        "=id": pa.array([2**53 + 1, None]),
        "text": pa.array(["=1+1", None]),
        "number": pa.array([-0.25, None]),
        "flag": pa.array([True, None]),
        "day": pa.array([date(2026, 1, 2), None]),
        "at": pa.array([TIMESTAMP, None], pa.timestamp("us", tz="UTC")),
    }
    return sequence(lake, [put_part(lake, columns)])


def content(rows: RowSequence, file_format: str, tmp_path: Path, **chosen: Any) -> bytes:
    return b"".join(write(rows, file_format=file_format, scratch=tmp_path / "scratch", **chosen))


def test_json_lines_hold_the_values_as_they_are(mixed: RowSequence, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in content(mixed, "jsonl", tmp_path).splitlines()]

    assert lines[0] == {
        "=id": 2**53 + 1,
        "text": "=1+1",
        "number": -0.25,
        "flag": True,
        "day": "2026-01-02",
        "at": "2026-01-02T03:04:05.000600+00:00",
    }
    assert set(lines[1].values()) == {None}


def test_csv_holds_no_formulas_not_even_in_its_header(mixed: RowSequence, tmp_path: Path) -> None:
    found = list(csv.reader(io.StringIO(content(mixed, "csv", tmp_path).decode(), newline="")))

    assert found == [
        ["'=id", "text", "number", "flag", "day", "at"],
        ["9007199254740993", "'=1+1", "-0.25", "true", "2026-01-02", "2026-01-02T03:04:05.000600+00:00"],
        [""] * 6,
    ]


def test_parquet_holds_the_types(mixed: RowSequence, tmp_path: Path) -> None:
    table = pq.read_table(io.BytesIO(content(mixed, "parquet", tmp_path)))

    assert table.to_pylist()[0]["at"] == TIMESTAMP
    assert [str(field.type) for field in table.schema] == [
        "int64", "string", "double", "bool", "date32[day]", "timestamp[us, tz=UTC]",
    ]  # fmt: skip


def test_a_workbook_holds_texts_numbers_and_no_formulas(mixed: RowSequence, tmp_path: Path) -> None:
    data = content(mixed, "xlsx", tmp_path)

    sheet = fastexcel.read_excel(data).load_sheet("rows", header_row=None).to_arrow().to_pylist()
    assert [list(row.values()) for row in sheet][0] == ["'=id", "text", "number", "flag", "day", "at"]
    assert list(sheet[1].values())[:3] == ["9007199254740993", "'=1+1", "-0.25"]
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("file_format", sorted(MEDIA_TYPES))
@pytest.mark.parametrize("after", [0, 7, 10, 24, 25])
def test_a_file_can_be_gone_on_with(lake: ObjectStore, tmp_path: Path, file_format: str, after: int) -> None:
    rows = sequence(
        lake, [put_part(lake, numbered(count, first=first), link=first) for first, count in ((0, 10), (10, 15))]
    )

    data = content(rows, file_format, tmp_path, after=after, limit=4)

    expected = list(range(after, min(after + 4, 25)))
    if file_format == "csv":
        assert data.decode().split() == ([] if after else ["id"]) + [str(number) for number in expected]
    elif file_format == "jsonl":
        assert [json.loads(line)["id"] for line in data.splitlines()] == expected
    elif file_format == "parquet":
        assert pq.read_table(io.BytesIO(data))["id"].to_pylist() == expected
    else:
        sheet = fastexcel.read_excel(data).load_sheet("rows").to_arrow().to_pylist()
        assert [int(row["id"]) for row in sheet] == expected


def test_parquet_leaves_in_row_groups_and_not_at_the_end(
    lake: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingestion.toolkit.rows import writers

    monkeypatch.setattr(writers, "_GROUP_ROWS", 100)
    rows = sequence(lake, [put_part(lake, numbered(100, first=first), link=first) for first in (0, 100, 200)])

    blocks = list(write(rows, file_format="parquet", scratch=tmp_path))

    assert len(blocks) == 4
    assert pq.read_metadata(io.BytesIO(b"".join(blocks))).num_row_groups == 3


@pytest.mark.parametrize(
    ("columns", "limits", "code"),
    [
        (numbered(3), {"MAX_ROWS": 2}, "export.too_many_rows"),
        ({"a": [1], "b": [1]}, {"MAX_COLUMNS": 1}, "export.too_many_columns"),
        ({"a": ["x", "x" * 32_768]}, {}, "export.cell_too_long"),
    ],
)
def test_what_excel_cannot_hold_is_refused_and_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict[str, Any], limits: dict[str, int], code: str
) -> None:
    lake = open_lake(str(tmp_path / "lake"))
    for limit, value in limits.items():
        monkeypatch.setattr(workbook, limit, value)
    rows = sequence(lake, [put_part(lake, columns)])

    with pytest.raises(ConfigError) as caught:
        content(rows, "xlsx", tmp_path)

    assert caught.value.code == code


def test_a_workbook_of_the_last_rows_alone_may_fit(
    lake: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workbook, "MAX_ROWS", 2)
    rows = sequence(lake, [put_part(lake, numbered(3))])

    assert content(rows, "xlsx", tmp_path, after=1)


def test_csv_holds_any_text(lake: ObjectStore, tmp_path: Path) -> None:
    texts = [
        'say "x"',
        "a,b",
        "two\nlines",
        "mac\rline",
        " padded ",
        "",
        None,
        "-1",
        "+1;x",
        "＝1",
        "\t",
        "''",
        "é\u2028",
    ]
    early = [datetime(7, 1, 2, tzinfo=UTC)] * len(texts)
    rows = sequence(
        lake, [put_part(lake, {"text": pa.array(texts), "at": pa.array(early, pa.timestamp("us", tz="UTC"))})]
    )

    found = list(csv.reader(io.StringIO(content(rows, "csv", tmp_path).decode(), newline="")))

    assert found[1:] == [[defuse(text) or "", "0007-01-02T00:00:00+00:00"] for text in texts]


def test_a_lone_column_of_nulls_keeps_its_lines(lake: ObjectStore, tmp_path: Path) -> None:
    rows = sequence(lake, [put_part(lake, {"text": pa.array([None, "x", None], pa.string())})])

    found = list(csv.reader(io.StringIO(content(rows, "csv", tmp_path).decode(), newline="")))

    assert [line for line in found if line != []] == [["text"], [""], ["x"], [""]]


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "\nx", "＝1", "-1+1", "--1", "+1;x", "-"])
def test_a_text_that_would_be_a_formula_is_defused(text: str) -> None:
    assert defuse(text) == f"'{text}"


@pytest.mark.parametrize("value", ["x", "", "-1", "+1.5", "-1e-3", "-.5", -1, None, 1.5, "a=b"])
def test_everything_else_stays_as_it_is(value: Any) -> None:
    assert defuse(value) == value


def test_an_extension_names_a_format() -> None:
    assert [format_of(Path(f"a{extension}")) for extension in (".csv", ".NDJSON", ".xlsx")] == ["csv", "jsonl", "xlsx"]
    with pytest.raises(ConfigError, match=r"\.parquet"):
        format_of(Path("a.txt"))
