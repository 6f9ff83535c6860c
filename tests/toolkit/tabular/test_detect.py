"""The content says what a file is; its name may only agree."""

import io
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.detect import detect
from tests.toolkit.tabular.reading import opener
from tests.toolkit.tabular.test_xlsx import book


def parquet() -> bytes:
    output = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), output)
    return output.getvalue()


def archive() -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as file:
        file.writestr("a.csv", "a,b\n")
    return output.getvalue()


PARQUET, XLSX, ZIP = parquet(), book(["a"], [1]), archive()
CSV, JSON, JSONL = b"a,b\n1,2\n", b'[{"a":1}]', b'{"a":1}\n{"a":2}\n'


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.csv", CSV, "csv"),
        ("A.CSV", CSV, "csv"),
        ("a.tsv", b"a\tb\n", "csv"),
        ("a.txt", b"a;b\n1;2\n", "csv"),
        ("a.csv", b"a\n1\n", "csv"),
        ("a.csv", b"[a],b\n1,2\n", "csv"),
        ("a.csv", b"{a},b\n1,2\n", "csv"),
        ("a.csv", b"2024,1\n", "csv"),
        ("a", CSV, "csv"),
        ("a.dat", CSV, "csv"),
        ("a.json", JSON, "json"),
        ("a.json", b" \n [ ]", "json"),
        ("a.json", b'{\n"a": 1\n}', "json"),
        ("a.json", JSONL, "jsonl"),
        ("a.jsonl", JSONL, "jsonl"),
        ("a.ndjson", b'{"a":1\n{"a":2}\n', "jsonl"),
        ("a.txt", JSONL, "jsonl"),
        ("a", JSONL, "jsonl"),
        ("a", JSON, "json"),
        ("a.parquet", PARQUET, "parquet"),
        ("a", PARQUET, "parquet"),
        ("a.xlsx", XLSX, "xlsx"),
        ("a", XLSX, "xlsx"),
    ],
)
def test_a_format_is_recognised(name: str, data: bytes, found: str) -> None:
    assert detect(opener(data), len(data), name=name) == found


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.csv", b"", "file.empty"),
        ("a.parquet", b"", "file.empty"),
        ("a.json", b" \n", "file.empty"),
        ("a.csv", PARQUET, "file.wrong_type"),
        ("a.csv", XLSX, "file.wrong_type"),
        ("a.csv", JSON, "file.wrong_type"),
        ("a.csv", JSONL, "file.wrong_type"),
        ("a.csv", b"<!DOCTYPE html><html>", "file.wrong_type"),
        ("a.csv", b"\x1f\x8b\x08\x00", "file.wrong_type"),
        ("a.json", CSV, "file.wrong_type"),
        ("a.jsonl", JSON, "file.wrong_type"),
        ("a.jsonl", CSV, "file.wrong_type"),
        ("a.parquet", CSV, "file.wrong_type"),
        ("a.xlsx", ZIP, "file.wrong_type"),
        ("a.xlsx", CSV, "file.wrong_type"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1", "file.wrong_type"),
        ("a.zip", ZIP, "file.unknown_type"),
        ("a", b"hello world", "file.unknown_type"),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", "file.unknown_type"),
        ("a.pdf", b"%PDF-1.7", "file.unknown_type"),
        ("a.csv", "a,b\n".encode("utf-16"), "file.encoding"),
        ("a.csv", "a,b\n".encode("utf-16-le"), "file.encoding"),
        ("a.json", JSON.decode().encode("utf-16"), "file.encoding"),
    ],
)
def test_what_is_not_what_it_says_is_refused(name: str, data: bytes, code: str) -> None:
    with pytest.raises(ConfigError) as raised:
        detect(opener(data), len(data), name=name)

    assert raised.value.code == code


def test_what_is_known_and_not_read_is_named() -> None:
    with pytest.raises(ConfigError) as raised:
        detect(opener(b"\x1f\x8b\x08\x00"), 4, name="a.csv.gz")

    assert str(raised.value) == (
        "a.csv.gz is a gzip archive as far as can be told. Send CSV, JSON, JSON Lines, Parquet or XLSX."
    )


def test_the_sentence_names_both_sides() -> None:
    with pytest.raises(ConfigError) as raised:
        detect(opener(PARQUET), len(PARQUET), name="a.csv")

    assert str(raised.value) == "a.csv is named .csv but its content is Parquet. Rename it or send the right file."


@pytest.mark.parametrize(("wanted", "data"), [("csv", CSV), ("jsonl", b'{"a":1}'), ("json", b'{"a":1}')])
def test_a_named_format_needs_no_extension(wanted: str, data: bytes) -> None:
    assert detect(opener(data), len(data), name="a.data", wanted=wanted) == wanted


def test_a_named_format_must_agree_with_the_content() -> None:
    with pytest.raises(ConfigError) as raised:
        detect(opener(PARQUET), len(PARQUET), name="a.parquet", wanted="csv")

    assert raised.value.code == "file.wrong_type"
