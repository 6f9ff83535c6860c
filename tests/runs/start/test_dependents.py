"""Messages to dependents and waiting runs: no pipeline stands in another's way, and nothing is sent without end."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ingestion.models import Partition, Pipeline, PipelineDependency, Run, RunState
from ingestion.runs.deliver import cancellation
from ingestion.runs.operate import reconcile
from ingestion.runs.start import admission
from ingestion.runs.start.creation import create_run
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


def start(pipeline: Pipeline, **values: Any) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API, **values)
    return run


def test_a_pipeline_that_cannot_run_does_not_keep_other_dependents_from_theirs(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    upstream, broken, sound = make_pipeline("upstream"), make_pipeline("broken"), make_pipeline("sound")
    for pipeline in (broken, sound):
        PipelineDependency.objects.create(pipeline=pipeline, upstream=upstream)
    Pipeline.objects.filter(pk=broken.pk).update(stream="gone")

    start(upstream)
    driver.drain()
    reconcile.reconcile()
    driver.drain()

    assert list(Run.objects.filter(pipeline=sound).values_list("state", flat=True)) == [RunState.SUCCEEDED]


def test_a_dependent_run_that_was_cancelled_is_not_made_again_from_an_older_publication(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    upstream = make_pipeline("upstream")
    start(upstream)
    driver.drain()
    start(upstream)
    driver.drain()
    dependent = make_pipeline("dependent")
    PipelineDependency.objects.create(pipeline=dependent, upstream=upstream)
    reconcile.reconcile()
    cancellation.cancel_run(Run.objects.get(pipeline=dependent).pk)

    reconcile.reconcile()

    assert Run.objects.filter(pipeline=dependent).count() == 1


def test_many_runs_of_one_pipeline_do_not_keep_another_from_being_woken(
    driver: Driver, make_pipeline: MakePipeline, settings: Any
) -> None:
    settings.HEADGATE_MAX_ACTIVE_RUNS = 1
    crowded, other = make_pipeline("crowded"), make_pipeline("other")
    for _ in range(25):
        start(crowded)
    last = start(other)
    driver.waiting.clear()
    Run.objects.update(sent_at=timezone.now() - timedelta(seconds=3600))

    admission.send_waiting_runs()

    assert {call.ids["run_id"] for call in driver.waiting} >= {last.pk}
    assert len(driver.waiting) == 2


def test_waiting_work_is_not_sent_again_at_every_look(
    driver: Driver, make_pipeline: MakePipeline, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.dispatch.queue_depth", lambda _queue: 1000)
    start(make_pipeline(config={"lanes": 5}), priority=1)
    driver.step()
    Run.objects.update(started_at=timezone.now() - timedelta(seconds=2.5 * settings.HEADGATE_AGEING_S))
    Partition.objects.update(sent_at=timezone.now() - timedelta(seconds=2.5 * settings.HEADGATE_AGEING_S))
    sent = len(driver.history)

    for _ in range(10):
        reconcile.reconcile()

    assert 0 < len(driver.history) - sent <= 2


def test_runs_that_nobody_plans_are_not_nudged_into_a_full_queue(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(make_pipeline())
    sent = len(driver.history)
    monkeypatch.setattr("ingestion.dispatch.queue_depth", lambda _queue: 5)
    Run.objects.update(sent_at=timezone.now() - timedelta(seconds=3600))

    reconcile.reconcile()

    assert len(driver.history) == sent
