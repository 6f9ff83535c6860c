"""Reading a destination as others do, by nothing but its documents, and short ways to publish into one."""

import gzip
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from ingestion.ports.context import Context, Lake
from ingestion.ports.publication import Manifest, WriteMode
from ingestion.ports.schema import ColumnType, ContractBody
from ingestion.ports.sink import CommitStep
from ingestion.toolkit.lake.local import LocalLake
from ingestion.toolkit.lake.opening import open_lake
from sinks.objects.config import ObjectsConfig
from sinks.objects.sink import ObjectsSink
from tests.conformance.parts import CONTRACT, delivery_of, manifest_of, store_part

Row = dict[str, Any]


def read_pointed(store: Lake, *, pipeline: str = "samples") -> list[Row]:
    """Return all rows that a reader of the pointer sees, with a later manifest's in the place of those it replaces."""
    pointer = json.loads(store.read(f"{pipeline}/latest.json"))
    documents = [json.loads(store.read(key)) for key in pointer["manifests"]]
    rows: dict[Any, Row] = {}
    for number, document in enumerate(documents):
        for place, row in enumerate(read_manifest(store, document)):
            is_merged = number > 0 and document["mode"] == "merge"
            key = document["contract"]["key"]
            known = any(found["mode"] == "merge" for found in documents[1:])
            rows[tuple(row[name] for name in key) if is_merged or known else (number, place)] = row
    return list(rows.values())


def read_manifest(store: Lake, document: dict[str, Any]) -> list[Row]:
    """Return the rows of a manifest's files, each of which must be what it says."""
    rows = []
    for part in document["parts"]:
        content = store.read(part["path"])
        assert (len(content), hashlib.sha256(content).hexdigest()) == (part["bytes"], part["sha256"])
        found = _read(content, document)
        assert len(found) == part["rows"], part
        rows += [{**row, **part.get("partition", {})} for row in found]
    assert len(rows) == document["rows"]
    return rows


def _read(content: bytes, document: dict[str, Any]) -> list[Row]:
    if document["format"] == "parquet":
        return pq.read_table(io.BytesIO(content)).to_pylist()
    if document["gzip"]:
        content = gzip.decompress(content)
    if document["format"] == "jsonl":
        return [json.loads(line) for line in content.splitlines()]
    frame = pl.read_csv(io.BytesIO(content), infer_schema=False)
    types = {column["name"]: column["type"] for column in document["columns"]}
    numbers = {ColumnType.INTEGER: pl.Int64, ColumnType.NUMBER: pl.Float64}
    return frame.with_columns(
        pl.col(name).cast(numbers[types[name]]) for name in frame.columns if types.get(name) in numbers
    ).to_dicts()


def records(rows: Sequence[Row]) -> list[Row]:
    """Return the rows' own columns, ordered by id."""
    found = [{name: row[name] for name in ("id", "formula", "energy")} for row in rows]
    return sorted(found, key=lambda row: int(row["id"]))


def sink_at(folder: Path, **settings: Any) -> ObjectsSink:
    """Return a sink into a folder."""
    return ObjectsSink(ObjectsConfig(url=str(folder), **settings))


def store_of(sink: ObjectsSink) -> LocalLake:
    """Return the folder that a sink writes into, opened without it."""
    store = open_lake(sink.config.url)
    assert isinstance(store, LocalLake)
    return store


def deliver(sink: ObjectsSink, manifest: Manifest, ctx: Context) -> CommitStep:
    """Bring a run to its destination."""
    for part in manifest.parts:
        sink.stage(part, delivery_of(manifest), ctx)
    return sink.commit(manifest, delivery_of(manifest), ctx)


def publish(
    sink: ObjectsSink,
    ctx: Context,
    *,
    run_id: int,
    rows: Sequence[Row],
    mode: WriteMode = WriteMode.MERGE,
    contract: ContractBody = CONTRACT,
) -> Manifest:
    """Publish rows as a run, and return its manifest."""
    from dataclasses import replace

    part = store_part(ctx.lake, rows, run_id=run_id)
    manifest = replace(manifest_of([part], run_id=run_id, mode=mode), contract=contract)
    deliver(sink, manifest, ctx)
    return manifest


def files(sink: ObjectsSink) -> list[str]:
    """Return all that lies in a sink's folder."""
    root = Path(sink.config.url)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def pointed(sink: ObjectsSink) -> list[int]:
    """Return the runs whose manifests the pointer names."""
    pointer = json.loads(Path(sink.config.url, "samples/latest.json").read_text())
    return [
        int(Path(key).stem.split("-")[-2] if "compacted" in key else Path(key).stem) for key in pointer["manifests"]
    ]


def is_compacted(sink: ObjectsSink) -> bool:
    """Return whether the published state begins with a compacted manifest."""
    pointer = json.loads(Path(sink.config.url, "samples/latest.json").read_text())
    return "/manifests/compacted-" in pointer["manifests"][0]
