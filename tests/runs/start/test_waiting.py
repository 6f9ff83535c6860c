"""Reasons why a run waits: dependencies, limits, priorities."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ingestion.models import Partition, Pipeline, Run, RunState
from ingestion.ports.errors import ConfigError, Refused
from ingestion.runs.operate import reconcile
from ingestion.runs.start import dependencies, pipelines
from ingestion.runs.start.admission import explain_waiting
from ingestion.runs.start.creation import create_run
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


def start(pipeline: Pipeline, **values: Any) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API, **values)
    return run


def cause(run: Run) -> str | None:
    waiting = explain_waiting(Run.objects.get(pk=run.pk))
    return waiting.cause if waiting else None


def test_each_wait_has_one_cause(driver: Driver, make_pipeline: MakePipeline, settings: Any) -> None:
    settings.HEADGATE_MAX_ACTIVE_RUNS = 1
    first, second = make_pipeline("first"), make_pipeline("second")
    running, same, other = start(first), start(first), start(second)
    causes = {"before": cause(running)}
    driver.step()
    causes |= {"planned": cause(running), "same": cause(same), "other": cause(other)}
    Partition.objects.filter(run=running).update(not_before=timezone.now() + timedelta(seconds=60))
    causes["put off"] = cause(running)
    Partition.objects.filter(run=running).update(
        not_before=None, state="leased", lease_until=timezone.now() + timedelta(seconds=60)
    )
    causes["at work"] = cause(running)
    Pipeline.objects.filter(pk=second.pk).update(is_paused=True)
    causes["paused"] = cause(other)

    assert causes == {
        "before": "worker",
        "planned": "worker",
        "same": "pipeline_busy",
        "other": "run_limit",
        "put off": "not_before",
        "at work": None,
        "paused": "paused",
    }


def test_a_run_that_has_just_begun_does_not_wait_for_itself(
    driver: Driver, make_pipeline: MakePipeline, settings: Any
) -> None:
    settings.HEADGATE_MAX_ACTIVE_RUNS = 1
    read_before = start(make_pipeline())
    driver.step()

    waiting = explain_waiting(read_before)

    assert waiting is not None
    assert waiting.cause == "worker"


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.COMPLETING, RunState.PUBLISHING])
def test_a_run_between_two_steps_waits_in_plain_words(make_pipeline: MakePipeline, state: RunState) -> None:
    run = start(make_pipeline())
    Run.objects.filter(pk=run.pk).update(state=state, started_at=timezone.now())
    run.refresh_from_db()

    waiting = explain_waiting(run)

    assert waiting is not None
    assert waiting.sentence == "Waiting for a free worker for the next step."


def test_runs_of_one_pipeline_go_one_after_the_other(driver: Driver, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline()
    runs = [start(pipeline) for _ in range(3)]

    driver.drain()

    states = [Run.objects.get(pk=run.pk).state for run in runs]
    assert states == [RunState.SUCCEEDED] * 3
    ended = [Run.objects.get(pk=run.pk) for run in runs]
    assert ended[0].finished_at <= ended[1].started_at
    assert ended[1].finished_at <= ended[2].started_at


def test_a_paused_pipeline_takes_no_runs(driver: Driver, make_pipeline: MakePipeline) -> None:
    with pytest.raises(Refused) as refusal:
        start(make_pipeline(is_paused=True))

    assert refusal.value.code == "pipeline.paused"


def test_a_dependent_pipeline_runs_once_after_each_publication(driver: Driver, make_pipeline: MakePipeline) -> None:
    upstream, downstream = make_pipeline("up"), make_pipeline("down")
    pipelines.set_dependencies(downstream, [(upstream, 3600)])

    for _ in range(2):
        start(upstream)
        driver.drain()
        for run in Run.objects.filter(pipeline=upstream):
            dependencies.start_dependents(run)
        reconcile.reconcile()
        driver.drain()

    runs = Run.objects.filter(pipeline=downstream)
    assert [(run.state, run.trigger) for run in runs] == [("succeeded", "dependency")] * 2


def test_a_run_waits_for_its_upstream_and_says_until_when(driver: Driver, make_pipeline: MakePipeline) -> None:
    upstream, downstream = make_pipeline("up"), make_pipeline("down")
    pipelines.set_dependencies(downstream, [(upstream, 3600)])
    run = start(downstream)
    driver.drain()

    waiting = explain_waiting(Run.objects.get(pk=run.pk))
    start(upstream)
    driver.drain()

    run.refresh_from_db()
    assert waiting is not None
    assert waiting.cause == "dependency"
    assert waiting.until == run.created_at + timedelta(seconds=3600)
    assert run.state == RunState.SUCCEEDED


def test_a_run_that_waits_too_long_for_its_upstream_fails(driver: Driver, make_pipeline: MakePipeline) -> None:
    upstream, downstream = make_pipeline("up"), make_pipeline("down")
    pipelines.set_dependencies(downstream, [(upstream, 10)])
    run = start(downstream)
    Run.objects.update(created_at=timezone.now() - timedelta(seconds=11))

    driver.drain()

    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.FAILED, "dependency.timeout")


def test_a_circle_of_dependencies_is_refused(driver: Driver, make_pipeline: MakePipeline) -> None:
    first, second, third = (make_pipeline(name) for name in ("a", "b", "c"))
    pipelines.set_dependencies(second, [(first, 60)])
    pipelines.set_dependencies(third, [(second, 60)])

    with pytest.raises(ConfigError) as itself:
        pipelines.set_dependencies(first, [(first, 60)])
    with pytest.raises(ConfigError) as circle:
        pipelines.set_dependencies(first, [(third, 60)])

    assert itself.value.code == "pipeline.self_dependency"
    assert circle.value.code == "pipeline.dependency_cycle"
    assert "a -> c -> b -> a" in str(circle.value)


def test_the_most_urgent_pending_run_is_woken_first(driver: Driver, make_pipeline: MakePipeline, settings: Any) -> None:
    settings.HEADGATE_MAX_ACTIVE_RUNS = 1
    busy = start(make_pipeline("busy"))
    driver.step()
    low, high = start(make_pipeline("low"), priority=1), start(make_pipeline("high"), priority=10)

    driver.drain()

    busy.refresh_from_db(), low.refresh_from_db(), high.refresh_from_db()
    assert busy.finished_at <= high.started_at <= high.finished_at <= low.started_at


def test_long_waiting_work_is_sent_again_a_step_higher(
    driver: Driver, make_pipeline: MakePipeline, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(make_pipeline(config={"lanes": 5}), priority=1)
    driver.step()
    sent = len(driver.history)
    Run.objects.update(started_at=timezone.now() - timedelta(seconds=2.5 * settings.HEADGATE_AGEING_S))
    Partition.objects.update(sent_at=timezone.now() - timedelta(seconds=2.5 * settings.HEADGATE_AGEING_S))
    monkeypatch.setattr("ingestion.dispatch.queue_depth", lambda _queue: 5)

    reconcile.reconcile()

    copies = driver.history[sent:]
    assert {call.step for call in copies} == {2}
    assert 0 < len(copies) < 5
    assert cause(run) == "worker"


def test_a_full_queue_gets_no_copies(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(make_pipeline(config={"lanes": 5}))
    driver.step()
    Partition.objects.update(sent_at=timezone.now() - timedelta(seconds=3600))
    sent = len(driver.history)
    monkeypatch.setattr("ingestion.dispatch.queue_depth", lambda _queue: 5)
    reconcile.reconcile()
    full = len(driver.history) - sent
    monkeypatch.setattr("ingestion.dispatch.queue_depth", lambda _queue: 3)

    reconcile.reconcile()

    assert full == 0
    assert len(driver.history) - sent == 2
