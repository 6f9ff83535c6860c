"""Work whose worker slot is used up, and of work that breaks inside of its transaction."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db import DataError

from ingestion.models import Delivery, Partition, PartitionState, Pipeline, Run, RunState
from ingestion.ports.batch import Query
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, DeadlineReached
from ingestion.ports.publication import DeliveryView, Manifest, PartView, Receipt
from ingestion.ports.sink import CommitStep
from ingestion.runs.deliver import publishing, staging
from ingestion.runs.ingest import planning, validation
from ingestion.runs.start.creation import create_run
from ingestion.runs.work.attempts import Outcome
from tests.fakes import plugins
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


def start(pipeline: Pipeline, **values: Any) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API, **values)
    return run


def _is_told_to_stop(ctx: Context) -> bool:
    try:
        ctx.beat()
    except DeadlineReached:
        return True
    return False


def test_staging_which_begins_at_the_first_row_again_is_not_stopped_by_the_end_of_its_slot(
    driver: Driver, make_pipeline: MakePipeline, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(make_pipeline())
    while not Delivery.objects.filter(run=run).exists():
        driver.step()
    told_to_stop = []

    def stage(self: plugins.MemorySink, part: PartView, delivery: DeliveryView, ctx: Context) -> Receipt:
        told_to_stop.append(_is_told_to_stop(ctx))
        return Receipt(inserted=part.rows)

    monkeypatch.setattr(plugins.MemorySink, "stage", stage)
    settings.HEADGATE_SLOT_S = 0

    staging.deliver_part(Delivery.objects.get(run=run).parts.get().pk)

    assert told_to_stop == [False]


@pytest.mark.parametrize("resumes", [True, False])
def test_only_loading_that_begins_anew_is_not_stopped_by_the_end_of_its_slot(
    driver: Driver, make_pipeline: MakePipeline, settings: Any, monkeypatch: pytest.MonkeyPatch, resumes: bool
) -> None:
    capabilities = replace(plugins.MemorySink.capabilities, resumes_commit=resumes)
    monkeypatch.setattr(plugins.MemorySink, "capabilities", capabilities)
    run = start(make_pipeline())
    told_to_stop = []
    commit = plugins.MemorySink.commit

    def note(self: plugins.MemorySink, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        told_to_stop.append(_is_told_to_stop(ctx))
        return commit(self, manifest, delivery, ctx)

    monkeypatch.setattr(plugins.MemorySink, "commit", note)
    while not Delivery.objects.filter(run=run).exists():
        driver.step()
    settings.HEADGATE_SLOT_S = 0
    driver.drain()

    assert told_to_stop == [resumes]


def test_planning_which_begins_anew_is_not_stopped_by_the_end_of_its_slot(
    driver: Driver, make_pipeline: MakePipeline, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(make_pipeline())
    told_to_stop = []

    def plan(self: plugins.PagesConnector, query: Query, since: object, ctx: Context) -> list[object]:
        told_to_stop.append(_is_told_to_stop(ctx))
        return []

    monkeypatch.setattr(plugins.PagesConnector, "plan", plan)
    settings.HEADGATE_SLOT_S = 0

    planning.plan_run(run.pk)

    assert told_to_stop == [False]


def test_an_error_inside_of_the_publication_is_settled_like_any_other(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(make_pipeline(mode=Pipeline.Mode.INCREMENTAL))
    while Run.objects.get(pk=run.pk).state != RunState.PUBLISHING:
        driver.step()

    def broken(self: object, *_: object) -> None:
        raise ConfigError("config.invalid", where="pages", detail="asked for")

    monkeypatch.setattr(plugins.PagesConnector, "checkpoint", broken)

    outcome = publishing.publish_run(run.pk)

    run.refresh_from_db()
    assert outcome is Outcome.FAILED
    assert (run.state, run.code) == (RunState.FAILED, "config.invalid")


def test_a_time_limit_inside_of_a_transaction_puts_the_work_back(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(make_pipeline())
    while not Partition.objects.filter(run=run, stage="validate").exists():
        driver.step()

    def late(name: str) -> None:
        if name == "validate.before_commit":
            raise validation_limit

    validation_limit = staging.dispatch.TimeLimitReached()
    monkeypatch.setattr(validation, "failpoint", late)
    partition = Partition.objects.get(run=run)

    outcome = validation.validate_partition(partition.pk)

    partition.refresh_from_db()
    assert outcome is Outcome.PUT_BACK
    assert (partition.state, partition.lease_until) == (PartitionState.PENDING, None)


def test_values_that_the_database_refuses_fail_the_work_with_an_incident(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(make_pipeline())

    def refuse(name: str) -> None:
        if name == "validate.before_commit":
            raise DataError("unsupported Unicode escape sequence")

    monkeypatch.setattr(validation, "failpoint", refuse)

    driver.drain()
    Partition.objects.update(not_before=None)
    driver.publish(validation.validate_message(Partition.objects.get(run=run).pk))
    driver.drain()

    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.FAILED, "worker.errored")
