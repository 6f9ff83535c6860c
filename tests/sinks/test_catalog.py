"""The catalog sink: a thin cover of the catalog that it is handed."""

import dataclasses
import hashlib
import io
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from ingestion.catalog import DatabaseCatalog, query_records
from ingestion.models import Pipeline, Run, RunState, Source
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError
from ingestion.ports.schema import Column, ContractBody
from ingestion.ports.sink import DeliveryState, DeliveryView, Manifest, PartView, Sink, WriteMode
from sinks.catalog import CatalogSink
from tests.conformance.context import RecordingContext

CONTRACT = ContractBody(name="sample", key=("id",), columns=(Column(name="id", type="integer"),))
LOGICAL_TIME = "2026-01-02T00:00:00+00:00"


@pytest.fixture
def ctx() -> Context:
    return dataclasses.replace(RecordingContext().context, catalog=DatabaseCatalog())


def deliver(rows: list[dict[str, Any]], ctx: Context) -> tuple[Manifest, DeliveryView]:
    source, _ = Source.objects.get_or_create(name="lab", kind="files")
    pipeline, _ = Pipeline.objects.get_or_create(name="samples", source=source, stream="samples")
    run = Run.objects.create(pipeline=pipeline, state=RunState.DELIVERING, trigger="cli", mode=pipeline.mode)
    file = io.BytesIO()
    pl.DataFrame(rows).with_row_index("_row").write_parquet(file)
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    part = PartView(
        key=f"clean/samples/{run.pk}/0-0/000000-{digest[:16]}.parquet",
        lane=0,
        link=0,
        seq=0,
        rows=len(rows),
        size_bytes=len(file.getvalue()),
        sha256=digest,
    )
    ctx.lake.put_if_absent(part.key, file.getvalue())
    manifest = Manifest(
        run_id=run.pk,
        pipeline=pipeline.name,
        mode=WriteMode.MERGE,
        contract=CONTRACT,
        contract_version=1,
        parts=(part,),
        rows=len(rows),
        logical_time=LOGICAL_TIME,
    )
    delivery = DeliveryView(
        id=run.pk,
        run_id=run.pk,
        pipeline=pipeline.name,
        pipeline_id=pipeline.pk,
        destination="catalog",
        mode=WriteMode.MERGE,
        contract=CONTRACT,
        state=DeliveryState.PLANNED,
        attempt=1,
        logical_time=LOGICAL_TIME,
    )
    return manifest, delivery


@pytest.mark.django_db
def test_a_delivery_can_be_read_when_its_commit_returns(ctx: Context) -> None:
    sink = CatalogSink(CatalogSink.Config())
    manifest, delivery = deliver([{"id": 1, "v": "a"}, {"id": 2, "v": "b"}], ctx)

    staged = sink.stage(manifest.parts[0], delivery, ctx)
    before = query_records(limit=10)
    step = sink.commit(manifest, delivery, ctx)

    assert isinstance(sink, Sink)
    assert (staged.inserted, before) == (2, [])
    assert step.state == DeliveryState.AVAILABLE
    assert step.receipt is not None
    assert step.receipt.visible == sink.count(manifest, delivery, ctx) == 2
    assert [row["record"] for row in query_records(limit=10)] == [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}]


@pytest.mark.django_db
def test_an_aborted_delivery_leaves_nothing(ctx: Context) -> None:
    sink = CatalogSink()
    manifest, delivery = deliver([{"id": 1}], ctx)
    sink.stage(manifest.parts[0], delivery, ctx)

    sink.abort(manifest, delivery, ctx)

    assert sink.count(manifest, delivery, ctx) == 0
    assert query_records(limit=10) == []


@pytest.mark.django_db
def test_the_catalog_can_be_checked(ctx: Context) -> None:
    assert CatalogSink().check(ctx).ok


def test_a_context_without_a_catalog_is_named() -> None:
    ctx = RecordingContext().context

    report = CatalogSink().check(ctx)

    assert not report.ok
    assert report.findings[0].fix
    with pytest.raises(ConfigError):
        CatalogSink().abort(None, None, ctx)  # type: ignore[arg-type]


def test_there_is_nothing_to_configure() -> None:
    with pytest.raises(ValidationError):
        CatalogSink.Config.model_validate({"url": "x"})
