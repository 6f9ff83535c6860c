"""A converted file holds what the reader understood, cell for cell."""

import csv
import io
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.convert import Conversion, convert_to_csv
from tests.toolkit.tabular.test_xlsx import book


def convert(folder: Path, name: str, data: bytes, **options: Any) -> Conversion:
    (folder / name).write_bytes(data)
    return convert_to_csv(folder / name, folder / "out", **options)


def cells(conversion: Conversion) -> list[list[str]]:
    return list(csv.reader(io.StringIO(conversion.path.read_text(encoding="utf-8"), newline="")))


def test_a_csv_is_written_as_rfc_4180(tmp_path: Path) -> None:
    done = convert(tmp_path, "a.b.csv", b'\xef\xbb\xbfa;b\n1;"x\ny"\n;""\n\'q;p,"r\n')

    assert done.path == tmp_path / "out" / "a.b_converted.csv"
    assert done.path.read_bytes() == b'a,b\r\n1,"x\ny"\r\n,""\r\n\'q,"p,""r"\r\n'
    assert (done.format, done.row_count, done.errors) == ("csv", 3, ())


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.jsonl", b'{"a":1,"b":1.0}\n{"a":2.5,"b":null}\n', [["a", "b"], ["1", "1.0"], ["2.5", ""]]),
        ("a.jsonl", b'{"a":1e16,"b":1e-7}\n', [["a", "b"], ["1e+16", "1e-07"]]),
        ("a.json", b'[{"a":true,"b":[1,{"c":2}]},{"a":"x"}]', [["a", "b"], ["true", '[1,{"c":2}]'], ["x", ""]]),
        ("a.json", b'[{"a":123456789012345678901234}]', [["a"], ["123456789012345678901234"]]),
        ("a.csv", b"a,b\n007,1.50\n", [["a", "b"], ["007", "1.50"]]),
        ("a.csv", b"_a,__time\n1,2\n", [["a_", "time_"], ["1", "2"]]),
        ("a.xlsx", book(["i", "f", "s", "b"], [1, 1, "x", True], [2, 2.5, None, False]), [
            ["i", "f", "s", "b"], ["1", "1", "x", "true"], ["2", "2.5", "", "false"],
        ]),
        ("a.xlsx", book(["d", "t"], [date(2024, 1, 2), datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)]), [
            ["d", "t"], ["2024-01-02", "2024-01-02T03:04:05"],
        ]),
    ],
)  # fmt: skip
def test_every_cell_is_text(tmp_path: Path, name: str, data: bytes, expected: list[list[str]]) -> None:
    assert cells(convert(tmp_path, name, data)) == expected


def test_parquet_types_become_text(tmp_path: Path) -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
    table = pa.table(
        {
            "f": pa.array([0.1, 5.0, 1e-7]),
            "g": pa.array([0.1, 1.0, None], pa.float32()),
            "z": pa.array([moment, None, moment.replace(microsecond=0)], pa.timestamp("us", "UTC")),
            "n": pa.array([1, 2, None], pa.timestamp("s")),
            "d": pa.array([date(2024, 1, 2)] * 3),
            "m": pa.array([None, "1.50", "2.00"]).cast(pa.decimal128(10, 2)),
            "l": [[1], [], None],
            "s": [{"k": "ü"}] * 3,
            "b": [b"raw", b"\xff", None],
            "c": pa.array(["x", "y", None]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")

    done = convert_to_csv(tmp_path / "a.parquet", tmp_path)

    assert cells(done)[1:] == [
        [
            "0.1",
            "0.1",
            "2024-01-02T03:04:05.600Z",
            "1970-01-01T00:00:01",
            "2024-01-02",
            "",
            "[1]",
            '{"k":"ü"}',
            "raw",
            "x",
        ],
        ["5.0", "1.0", "", "1970-01-01T00:00:02", "2024-01-02", "1.50", "[]", '{"k":"ü"}', "/w==", "y"],
        ["1e-07", "", "2024-01-02T03:04:05Z", "", "2024-01-02", "2.00", "", '{"k":"ü"}', "", ""],
    ]


def test_unreadable_rows_are_returned_and_not_written(tmp_path: Path) -> None:
    done = convert(tmp_path, "a.csv", b"a,b\n1,2\n3\n4,5,6\n7,8\n")

    assert cells(done) == [["a", "b"], ["1", "2"], ["7", "8"]]
    assert [(error.row, error.code, error.raw) for error in done.errors] == [
        (1, "row.too_few_fields", "3"),
        (2, "row.too_many_fields", "4,5,6"),
    ]
    assert done.errors[0].message == "The line has 1 fields, the header has 2."


@pytest.mark.parametrize("target_bytes", [1, 20, 1_000])
def test_columns_that_come_later_are_in_the_header(tmp_path: Path, target_bytes: int) -> None:
    data = b'{"a":1}\n{"b":2}\nbroken\n{"c":3,"a":4}\n'

    done = convert(tmp_path, "a.jsonl", data, target_bytes=target_bytes)

    assert cells(done) == [["a", "b", "c"], ["1", "", ""], ["", "2", ""], ["4", "", "3"]]
    assert [error.row for error in done.errors] == [2]


def test_spans_follow_each_other(tmp_path: Path) -> None:
    data = b"n,t\n" + b"".join(b'%d,"a\nb"\n' % number for number in range(500))

    done = convert(tmp_path, "a.csv", data, target_bytes=100)

    assert [row[0] for row in cells(done)[1:]] == [str(number) for number in range(500)]


def test_an_empty_cell_in_one_column_is_still_a_record(tmp_path: Path) -> None:
    done = convert(tmp_path, "a.jsonl", b'{"a":null}\n{"a":"x"}\n')

    assert done.path.read_bytes() == b'a\r\n""\r\nx\r\n'


def test_a_header_alone_gives_a_header_alone(tmp_path: Path) -> None:
    assert convert(tmp_path, "a.csv", b"a,b\n").path.read_bytes() == b"a,b\r\n"


def test_a_refused_file_leaves_nothing_and_keeps_an_older_output(tmp_path: Path) -> None:
    convert(tmp_path, "a.csv", b"a,b\n1,2\n")

    with pytest.raises(ConfigError):
        convert(tmp_path, "a.csv", b'a,b\n1,"2\n')
    with pytest.raises(ConfigError):
        convert(tmp_path, "b.csv", b"")

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_converted.csv"]
    assert (tmp_path / "out" / "a_converted.csv").read_bytes() == b"a,b\r\n1,2\r\n"
