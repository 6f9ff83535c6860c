"""Runs that are reopened after their deadline cut them off."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ingestion.models import Destination, Partition, PartitionState, Pipeline, Run, RunState
from ingestion.runs.operate import reconcile, retry
from ingestion.runs.start.creation import create_run
from ingestion.runs.work.leases import claim
from tests.fakes import plugins
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


def start(pipeline: Pipeline, **values: Any) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API, **values)
    return run


def state_of(run: Run) -> tuple[str, str]:
    run.refresh_from_db()
    return run.state, run.code


def pass_deadline(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(deadline_at=timezone.now() - timedelta(seconds=1))
    reconcile.reconcile()


def test_a_run_whose_deadline_passed_under_a_worker_is_taken_up_by_a_retry(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    run = start(make_pipeline(config={"lanes": 2}))
    driver.step()
    driver.waiting.clear()
    held = Partition.objects.filter(run=run).first()
    assert held is not None
    assert claim(Partition, held.pk, expected=(PartitionState.PENDING,), to=PartitionState.LEASED)
    pass_deadline(run)
    assert state_of(run) == (RunState.FAILED, "run.deadline")

    retry.retry_run(run.pk)
    driver.drain()
    reconcile.reconcile()
    driver.drain()

    assert state_of(run) == (RunState.SUCCEEDED, "")


def test_a_retried_run_has_a_deadline_of_its_own(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline())
    driver.step()
    pass_deadline(run)

    reopened = retry.retry_run(run.pk)

    assert reopened.deadline_at is not None
    assert reopened.deadline_at > timezone.now() + timedelta(hours=1)


def test_a_retry_of_a_failed_run_also_repeats_its_failed_deliveries(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline()
    pipeline.destinations.add(Destination.objects.create(name="second", kind="memory"))
    run = start(pipeline)
    plugins.TROUBLE["commit.rejected"] = 1
    while not run.deliveries.filter(state="failed").exists():
        driver.step()
    assert state_of(run)[0] in (RunState.DELIVERING, RunState.LOADING)
    pass_deadline(run)

    retry.retry_run(run.pk)
    driver.drain()
    reconcile.reconcile()
    driver.drain()

    assert state_of(run) == (RunState.SUCCEEDED, "")
