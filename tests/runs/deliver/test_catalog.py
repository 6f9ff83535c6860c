"""Runs of one pipeline on their way into the catalog: who has ended is in nobody's way, who waits does not fail."""

from collections.abc import Callable
from typing import Any

import pytest

from ingestion.catalog import query_records
from ingestion.catalog.store import DatabaseCatalog
from ingestion.models import Delivery, DeliveryPart, Destination, Pipeline, Run, RunState
from ingestion.ports.errors import SinkRejected
from ingestion.runs.deliver import cancellation, loading
from ingestion.runs.operate import reconcile, retry
from ingestion.runs.start.creation import create_run
from tests.runs.driver import TASKS, Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


def start(pipeline: Pipeline, **values: Any) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API, **values)
    return run


def state_of(run: Run) -> tuple[str, str]:
    run.refresh_from_db()
    return run.state, run.code


@pytest.fixture
def catalog_pipeline(make_pipeline: MakePipeline) -> Pipeline:
    pipeline = make_pipeline(config={"lanes": 2})
    pipeline.destinations.set([Destination.objects.create(name="catalog", kind="catalog")])
    return pipeline


def refuse_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(self: DatabaseCatalog, delivery: Any) -> Any:
        monkeypatch.undo()
        raise SinkRejected("sink.rejected", destination="catalog", detail="asked for")

    monkeypatch.setattr(DatabaseCatalog, "commit", commit)


def test_what_a_failed_delivery_left_in_the_catalog_is_not_in_the_way_of_the_next_run(
    driver: Driver, catalog_pipeline: Pipeline
) -> None:
    first = start(catalog_pipeline)
    with pytest.MonkeyPatch.context() as patch:
        refuse_once(patch)
        driver.drain()
    assert state_of(first) == (RunState.PARTIAL, "sink.rejected")

    second = start(catalog_pipeline)
    driver.drain()

    assert state_of(second) == (RunState.SUCCEEDED, "")
    assert {row["run_id"] for row in query_records(limit=100, pipeline_id=catalog_pipeline.pk)} == {second.pk}


def test_a_retry_delivers_anew_what_has_made_way_for_a_later_run(driver: Driver, catalog_pipeline: Pipeline) -> None:
    Pipeline.objects.update(max_active_runs=2)
    first = start(catalog_pipeline)
    with pytest.MonkeyPatch.context() as patch:
        refuse_once(patch)
        driver.drain()
    second = start(Pipeline.objects.get(pk=catalog_pipeline.pk))
    while not Run.objects.get(pk=second.pk).catalog_publications.exists():
        driver.step()

    retry.retry_run(first.pk)
    for _ in range(20):
        for model in (Delivery, DeliveryPart):
            model.objects.update(not_before=None)
        for call in [driver.waiting.pop(0) for _ in driver.waiting[:]]:
            TASKS[call.name](**call.ids)

    assert state_of(second) == (RunState.SUCCEEDED, "")
    assert state_of(first) == (RunState.SUCCEEDED, "")


def test_a_run_that_finds_the_catalog_taken_waits_and_does_not_fail(driver: Driver, catalog_pipeline: Pipeline) -> None:
    Pipeline.objects.update(max_active_runs=2)
    first = start(catalog_pipeline)
    while not first.catalog_publications.exists():
        driver.step()
    held, driver.waiting = driver.waiting, []
    second = start(Pipeline.objects.get(pk=catalog_pipeline.pk))
    for _ in range(10):
        for call in [driver.waiting.pop(0) for _ in driver.waiting[:]]:
            TASKS[call.name](**call.ids)
        DeliveryPart.objects.update(not_before=None)
    waiting = state_of(second)

    driver.waiting += held
    driver.drain()
    DeliveryPart.objects.update(not_before=None, sent_at=None)
    reconcile.reconcile()
    driver.drain()

    assert waiting == (RunState.DELIVERING, "")
    assert state_of(first) == (RunState.SUCCEEDED, "")
    assert state_of(second) == (RunState.SUCCEEDED, "")


def test_a_cancel_between_the_commit_and_its_note_names_what_the_destination_took(
    driver: Driver, catalog_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(catalog_pipeline)

    def cancel(name: str) -> None:
        if name == "load.committed":
            cancellation.cancel_run(run.pk)

    monkeypatch.setattr(loading, "failpoint", cancel)

    driver.drain()
    Delivery.objects.update(lease_until=None)
    cancellation.abort_delivery(Delivery.objects.get(run=run).pk)

    assert state_of(run) == (RunState.CANCELLED, "")
    assert len(query_records(limit=100, pipeline_id=catalog_pipeline.pk)) == 24
    assert run.message == "The run was cancelled after catalog had taken its rows."
