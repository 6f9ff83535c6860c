"""Material that the worker tests ingest: files with known books, and what a reader finds afterwards."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ingestion.catalog import query_records
from ingestion.models import Part, Pipeline, Run, Upload
from ingestion.runs.record.lake import open_lake
from ingestion.runs.start import uploads

CONTRACT: dict[str, Any] = {
    "name": "samples",
    "key": ["id"],
    "columns": [
        {"name": "id", "type": "integer", "nullable": False},
        {"name": "formula", "type": "string", "pattern": "^[A-Z]"},
        {"name": "energy", "type": "number", "min": -100, "max": 100},
    ],
}


def csv_bytes(rows: int, *, first: int = 0, bad_every: int = 0) -> bytes:
    """Return a CSV of `rows` records; every `bad_every`-th has an energy that is no number."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "formula", "energy"])
    for number in range(first, first + rows):
        is_bad = bad_every and number % bad_every == 0
        writer.writerow([number, f"Si{number}O2", "much" if is_bad else f"{number / 1000:.3f}"])
    return out.getvalue().encode()


def upload(content: bytes, *, name: str = "samples.csv", contract: dict[str, Any] | None = None, **values: Any) -> Run:
    """Return the run of a file that was just received."""
    stored, _ = uploads.receive(io.BytesIO(content).read, name=name)
    run, _ = uploads.ingest_upload(
        Upload.objects.get(pk=stored.pk), trigger=Run.Trigger.UPLOAD, contract=contract or CONTRACT, **values
    )
    return run


def published_ids(run: Run) -> list[int]:
    """Return the ids in the clean parts that the run's manifest names, in the manifest's order."""
    lake = open_lake()
    manifest = json.loads(lake.read(run.manifest_key))
    found: list[int] = []
    for part in manifest["parts"]:
        with lake.open(part["key"]) as stored:
            found += pq.read_table(stored, columns=["id"])["id"].to_pylist()
    return found


def delivered_ids(lake_folder: Path, run: Run) -> list[int]:
    """Return the ids that a reader of the objects destination finds for the run."""
    root = Path(f"{lake_folder}-published")
    manifest = json.loads((root / run.pipeline.name / "manifests" / f"{run.pk:08d}.json").read_text())
    found: list[int] = []
    for part in manifest["parts"]:
        found += pq.read_table(root / part["path"], columns=["id"])["id"].to_pylist()
    return found


def catalog_ids(pipeline: Pipeline) -> list[int]:
    """Return the ids that a reader of the catalog finds."""
    found: list[int] = []
    after: str | int | None = None
    while True:
        rows = query_records(pipeline_id=pipeline.pk, after=after, limit=1000)
        found += [row["record"]["id"] for row in rows]
        if len(rows) < 1000:
            return found
        after = rows[-1]["cursor"]


def fingerprint(run: Run) -> list[tuple[str, int, int, int, str]]:
    """Return the published parts' places and hashes: what must not depend on what went wrong on the way."""
    return list(
        Part.objects.filter(run=run, zone__in=(Part.Zone.CLEAN, Part.Zone.REJECTED)).values_list(
            "zone", "lane", "link", "seq", "sha256"
        )
    )
