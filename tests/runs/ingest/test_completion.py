"""Runs that read, or may publish, a part of the data only."""

from collections.abc import Callable
from typing import Any

import pytest

from ingestion.models import Checkpoint, Partition, Pipeline, Run, RunState
from ingestion.runs.start.creation import create_run
from tests.fakes import plugins
from tests.runs.driver import TASKS, Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


def start(pipeline: Pipeline, **values: Any) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API, **values)
    return run


def test_partitions_do_not_wait_for_a_draft_from_one_that_has_failed(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    run = start(make_pipeline(config={"lanes": 3}, contract=None, allow_partial=True))
    driver.step()
    plugins.TROUBLE["fetch.rejected"] = 1

    for _ in range(12):
        for call in [driver.waiting.pop(0) for _ in driver.waiting[:]]:
            TASKS[call.name](**call.ids)
        Partition.objects.update(not_before=None)

    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.PARTIAL, "source.rejected")
    assert run.accepted == 24
    assert run.contract is not None


def test_a_run_of_which_nothing_succeeded_is_not_published(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline(config={"lanes": 2}, allow_partial=True))
    plugins.TROUBLE["fetch.rejected"] = 2

    driver.drain()

    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.FAILED, "source.rejected")
    assert plugins.MemorySink.committed == {}


@pytest.mark.parametrize("query", [{"limit": 4}, {"filter": "name = 1"}], ids=["limit", "filter"])
def test_a_run_that_reads_less_than_its_pipeline_leaves_the_checkpoint(
    driver: Driver, make_pipeline: MakePipeline, query: dict[str, Any]
) -> None:
    run = start(make_pipeline(mode=Pipeline.Mode.INCREMENTAL), query=query)

    driver.drain()

    run.refresh_from_db()
    assert run.state == RunState.SUCCEEDED
    assert not Checkpoint.objects.exists()


def test_a_limit_that_was_not_reached_advances_the_checkpoint(driver: Driver, make_pipeline: MakePipeline) -> None:
    start(make_pipeline(mode=Pipeline.Mode.INCREMENTAL), query={"limit": 100})

    driver.drain()

    assert Checkpoint.objects.exists()
