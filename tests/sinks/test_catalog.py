"""The catalog sink: a thin cover of the catalog that it is handed."""

import dataclasses
from typing import Any

import pytest
from pydantic import ValidationError

from ingestion.catalog import DatabaseCatalog, query_records
from ingestion.models import CatalogPublication, CatalogRecord, CatalogState, Pipeline, Run, RunState, Source
from ingestion.ports.errors import ConfigError
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest
from ingestion.ports.sink import Sink
from sinks.catalog import CatalogSink
from tests.conformance.context import MemoryLake, RecordingContext
from tests.conformance.parts import delivery_of
from tests.conformance.sink import SinkConformance

pytestmark = pytest.mark.both


@pytest.mark.django_db
class TestCatalogSink(SinkConformance):
    """The catalog on the database under test, with a pipeline and a run for every situation."""

    def make_sink(self, **_secrets: str) -> Sink:
        return CatalogSink(CatalogSink.Config())

    def renew(self) -> None:
        for model in (CatalogRecord, CatalogPublication, CatalogState, Run):
            model.objects.all().delete()
        source, _ = Source.objects.get_or_create(name="lab", kind="files")
        self.pipeline, _ = Pipeline.objects.get_or_create(name="samples", source=source, stream="samples")

    def make_context(self, lake: MemoryLake) -> RecordingContext:
        recording = RecordingContext(lake=lake)
        recording.context = dataclasses.replace(recording.context, catalog=DatabaseCatalog())
        return recording

    def make_delivery(self, manifest: Manifest) -> DeliveryView:
        Run.objects.create(
            pk=manifest.run_id,
            pipeline=self.pipeline,
            state=RunState.DELIVERING,
            trigger=Run.Trigger.CLI,
            mode=self.pipeline.mode,
        )
        return delivery_of(manifest, pipeline_id=self.pipeline.pk)

    def read_rows(self, manifest: Manifest) -> list[dict[str, Any]]:
        rows = query_records(pipeline_id=self.pipeline.pk, limit=1_000)
        return sorted((row["record"] for row in rows if row["run_id"] == manifest.run_id), key=lambda row: row["id"])

    def test_the_rows_can_be_read_when_the_commit_returns(self) -> None:
        manifest, delivery, ctx = self._situation()

        receipts, step = self._deliver(self.make_sink(), manifest, delivery, ctx)

        assert step.state == DeliveryState.AVAILABLE
        assert step.receipt is not None
        assert step.receipt.visible == sum(receipt.inserted for receipt in receipts) == manifest.rows


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
