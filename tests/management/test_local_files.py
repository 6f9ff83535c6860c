"""Commands about files on this machine."""

import json
from pathlib import Path

from ingestion.models import Contract
from tests.management.conftest import Ingest


def test_convert_writes_what_the_reader_understood(ingest: Ingest, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id;name\n1;x\n2;y;z\n")

    answer = ingest("convert", tmp_path / "a.csv", "--out", tmp_path / "out", "--json")

    told = json.loads(answer.out)["files"][0]
    assert answer.code == 0
    assert (tmp_path / "out" / "a_converted.csv").read_bytes() == b"id,name\r\n1,x\r\n"
    assert (told["rows"], told["errors"]) == (1, 1)
    assert json.loads(answer.err)["code"] == "row.too_many_fields"


def test_convert_goes_on_where_a_file_cannot_be_read(ingest: Ingest, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text('{"id": 1}\n')
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")

    answer = ingest("convert", tmp_path / "bad.parquet", tmp_path / "good.jsonl", "--out", tmp_path / "out")

    assert answer.code == 2
    assert json.loads(answer.err)["file"] == str(tmp_path / "bad.parquet")
    assert (tmp_path / "out" / "good_converted.csv").exists()


def test_convert_does_not_write_two_files_under_one_name(ingest: Ingest, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,b\n1,2\n")
    (tmp_path / "a.jsonl").write_text('{"id": 9}\n')

    answer = ingest("convert", tmp_path / "a.csv", tmp_path / "a.jsonl", "--out", tmp_path / "out")

    assert answer.code == 2
    assert (tmp_path / "out" / "a_converted.csv").read_text() == "id,b\n1,2\n"
    assert json.loads(answer.err)["code"] == "file.unwritable"


def test_contract_saves_a_version_for_each_change(ingest: Ingest, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: c\ncolumns:\n  - {name: id, type: integer}\n")
    ingest("contract", path)
    ingest("contract", path)
    path.write_text("name: c\ncolumns:\n  - {name: id, type: string}\n")

    answer = ingest("contract", path, "--json")

    assert json.loads(answer.out)["version"] == 2
    assert Contract.objects.count() == 2


def test_contract_names_what_is_wrong(ingest: Ingest, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: c\ncolumns:\n  - {name: id, type: whole}\n")

    answer = ingest("contract", path, "--json")

    assert (answer.code, json.loads(answer.out)["code"]) == (2, "contract.invalid")
