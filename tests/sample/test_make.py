"""The bundled measurements are what their maker writes."""

import csv
import json
from pathlib import Path

import yaml

from ingestion.ports.schema import ContractBody
from sample.make import make_files

SAMPLE = Path(__file__).parents[2] / "sample"


def test_the_committed_files_are_what_make_writes() -> None:
    for name, content in make_files().items():
        assert (SAMPLE / name).read_bytes() == content.encode()


def test_the_contract_validates() -> None:
    body = ContractBody.model_validate(yaml.safe_load((SAMPLE / "measurements.yaml").read_text(encoding="utf-8")))

    assert body.key == ("id",)


def test_the_expected_counts_balance() -> None:
    expected = json.loads((SAMPLE / "expected.json").read_text(encoding="utf-8"))
    with (SAMPLE / "measurements.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]

    for books in (expected["measurements"], expected["structures"]):
        assert books["fetched"] == sum(books[name] for name in ("accepted", "rejected", "duplicate", "filtered"))
    assert expected["measurements"]["fetched"] == len(rows)
    assert expected["measurements"]["rejected"] == len(expected["faults"])
