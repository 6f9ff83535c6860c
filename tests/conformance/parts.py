"""Small clean parts and the manifests that name them, for the tests of sinks."""

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.ports.batch import PAGE, PART, ROW, RUN
from ingestion.ports.context import Lake
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, PartView, WriteMode
from ingestion.ports.schema import Column, ColumnType, ContractBody

LOGICAL_TIME = "2026-01-02T03:04:05+00:00"
CONTRACT = ContractBody(
    name="samples",
    key=("id",),
    columns=(
        Column(name="id", type=ColumnType.INTEGER, nullable=False),
        Column(name="formula", type=ColumnType.STRING),
        Column(name="energy", type=ColumnType.NUMBER, unit="eV/atom"),
    ),
)
_FORMULAS = ("Si", "GaAs", "Fe2O3", "", "Größe α", None)


def rows_of(first_id: int, row_count: int) -> list[dict[str, Any]]:
    """Return records with unique ids from `first_id` on; among them null, empty and non-ASCII values."""
    return [
        {
            "id": number,
            "formula": _FORMULAS[number % len(_FORMULAS)],
            "energy": None if number % 5 == 0 else -number / 4,
        }
        for number in range(first_id, first_id + row_count)
    ]


def parquet_bytes(rows: Sequence[dict[str, Any]], *, run_id: int, lane: int, link: int) -> bytes:
    """Return the records as a clean part: zstd Parquet with the columns that every clean row carries."""
    table = pa.table(
        {
            "id": pa.array([row["id"] for row in rows], pa.int64()),
            "formula": pa.array([row["formula"] for row in rows], pa.string()),
            "energy": pa.array([row["energy"] for row in rows], pa.float64()),
            RUN: pa.array([run_id] * len(rows), pa.int64()),
            PART: pa.array([f"{lane}-{link}"] * len(rows), pa.string()),
            ROW: pa.array(range(len(rows)), pa.int64()),
            PAGE: pa.array([None] * len(rows), pa.int64()),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def store_part(
    lake: Lake,
    rows: Sequence[dict[str, Any]],
    *,
    pipeline: str = "samples",
    run_id: int = 7,
    lane: int = 0,
    link: int = 0,
    seq: int = 0,
) -> PartView:
    """Put the records into the lake as one clean part, and return it as a sink sees it."""
    content = parquet_bytes(rows, run_id=run_id, lane=lane, link=link)
    sha256 = hashlib.sha256(content).hexdigest()
    key = f"clean/{pipeline}/{run_id}/{lane}-{link}/{seq:06d}-{sha256[:16]}.parquet"
    lake.put_if_absent(key, content)
    return PartView(key, lane, link, seq, rows=len(rows), size_bytes=len(content), sha256=sha256)


def manifest_of(
    parts: Sequence[PartView], *, pipeline: str = "samples", run_id: int = 7, mode: WriteMode = WriteMode.MERGE
) -> Manifest:
    """Return what a run with these parts publishes."""
    return Manifest(
        run_id=run_id,
        pipeline=pipeline,
        mode=mode,
        contract=CONTRACT,
        contract_version=1,
        parts=tuple(parts),
        rows=sum(part.rows for part in parts),
        logical_time=LOGICAL_TIME,
    )


def delivery_of(manifest: Manifest, *, pipeline_id: int = 1, delivery_id: int = 1) -> DeliveryView:
    """Return the run on its way into the destination under test."""
    return DeliveryView(
        id=delivery_id,
        run_id=manifest.run_id,
        pipeline=manifest.pipeline,
        pipeline_id=pipeline_id,
        destination="under-test",
        mode=manifest.mode,
        contract=manifest.contract,
        state=DeliveryState.PLANNED,
        attempt=1,
        logical_time=manifest.logical_time,
    )
