"""Runs on their way into the catalog, and what a reader finds of them."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import polars as pl

from ingestion.catalog import DatabaseCatalog, query_records
from ingestion.models import Pipeline, Run, RunState
from ingestion.ports.publication import DeliveryState, DeliveryView, PartView, Receipt, WriteMode
from ingestion.ports.schema import Column, ContractBody

KEYED = ContractBody(name="sample", key=("id",), columns=(Column(name="id", type="integer"),))
KEYLESS = ContractBody(name="sample")
LOGICAL_TIME = datetime(2026, 1, 2, tzinfo=UTC)
Rows = list[dict[str, Any]]


def start_run(pipeline: Pipeline) -> Run:
    return Run.objects.create(pipeline=pipeline, state=RunState.DELIVERING, trigger=Run.Trigger.CLI, mode=pipeline.mode)


def view(run: Run, *, mode: WriteMode = WriteMode.MERGE, contract: ContractBody = KEYED) -> DeliveryView:
    return DeliveryView(
        id=run.pk,
        run_id=run.pk,
        pipeline=run.pipeline.name,
        pipeline_id=run.pipeline_id,
        destination="catalog",
        mode=mode,
        contract=contract,
        state=DeliveryState.PLANNED,
        attempt=1,
        logical_time=LOGICAL_TIME.isoformat(),
    )


def clean_part(rows: Rows | pl.DataFrame, *, lane: int = 0) -> tuple[PartView, Callable[[], io.BytesIO]]:
    frame = (rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows)).with_row_index("_row")
    file = io.BytesIO()
    frame.write_parquet(file)
    part = PartView(
        key=f"clean/{lane}", lane=lane, link=0, seq=0, rows=frame.height, size_bytes=len(file.getvalue()), sha256="0"
    )
    return part, partial(io.BytesIO, file.getvalue())


def stage(delivery: DeliveryView, rows: Rows | pl.DataFrame, *, lane: int = 0) -> Receipt:
    part, open_part = clean_part(rows, lane=lane)
    return DatabaseCatalog().stage(part, delivery, open_part=open_part)


def publish(pipeline: Pipeline, rows: Rows | pl.DataFrame, *, run: Run | None = None, **how: Any) -> Receipt:
    delivery = view(run or start_run(pipeline), **how)
    stage(delivery, rows)
    return DatabaseCatalog().commit(delivery)


def seen(pipeline: Pipeline) -> dict[int, Any]:
    return {row["record"]["id"]: row["record"]["v"] for row in query_records(pipeline_id=pipeline.pk, limit=10_000)}


def numbered(ids: range, value: str) -> Rows:
    return [{"id": i, "v": value} for i in ids]


def outcome(receipt: Receipt) -> tuple[int, int, int]:
    return receipt.inserted, receipt.updated, receipt.unchanged
