"""The progress of a pull whose source announces how many records there are."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ingestion.management.cli.following import describe_progress
from ingestion.models import Partition, Pipeline, Run, RunState
from ingestion.ports.errors import DeadlineReached
from ingestion.runs.ingest import fetching
from ingestion.runs.read.progress import measure_progress, percent_done
from ingestion.runs.start.creation import create_run
from tests.runs.driver import Driver

MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int | None, int | None]]:
    """What the progress said after each page: records, expected, percent."""
    told: list[tuple[int, int | None, int | None]] = []

    def measure() -> None:
        progress = measure_progress(Run.objects.latest("pk"))
        told.append((progress.records, progress.expected_records, progress.percent))

    _after_each_page(monkeypatch, measure)
    return told


def _after_each_page(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    monkeypatch.setattr(fetching, "failpoint", lambda name: do() if name == "fetch.after_commit" else None)


def finish(driver: Driver, pipeline: Pipeline) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API)
    driver.drain()
    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.SUCCEEDED, "")
    return run


def expected(run: Run) -> list[int | None]:
    return list(Partition.objects.filter(run=run).order_by("lane", "link").values_list("expected_records", flat=True))


def test_an_announced_total_gives_percent_and_time_left(
    driver: Driver, make_pipeline: MakePipeline, seen: list[tuple[int, int | None, int | None]]
) -> None:
    run = finish(driver, make_pipeline(config={"pages": 4, "per_page": 5, "totals": [20, 20, 20, 20]}))

    assert seen == [(5, 20, 25), (10, 20, 50), (15, 20, 75), (20, 20, 100)]
    assert expected(run) == [20]


def test_the_time_left_is_that_of_the_records_still_to_be_read(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    _after_each_page(monkeypatch, lambda: _stop(True))
    run, _ = create_run(make_pipeline(config={"pages": 4, "per_page": 5, "totals": [20]}), trigger=Run.Trigger.API)
    driver.step()
    driver.step()
    Run.objects.filter(pk=run.pk).update(started_at=timezone.now() - timedelta(seconds=10))

    progress = measure_progress(Run.objects.get(pk=run.pk))

    assert progress.eta is not None
    assert 28 < (progress.eta - timezone.now()).total_seconds() < 32
    assert describe_progress(progress).startswith("5 of 20 records (25 %), 0/s, ")
    assert percent_done(run, progress) == 6


@pytest.mark.parametrize(
    ("totals", "told"),
    [
        ([10, 30, 12, 12], [(5, 10, 50), (10, 30, 33), (15, 15, 100), (20, 20, 100)]),
        ([7, None, None, None], [(5, 7, 71), (10, 10, 100), (15, 15, 100), (20, 20, 100)]),
        ([None, 10**30, -4, 0], [(5, None, None), (10, 10**15, 0), (15, 15, 100), (20, 20, 100)]),
        ([], [(5, None, None), (10, None, None), (15, None, None), (20, 20, 100)]),
    ],
)
def test_a_total_that_changes_or_lies_is_never_below_what_was_read(
    driver: Driver, make_pipeline: MakePipeline, seen: list[Any], totals: list[int | None], told: list[Any]
) -> None:
    run = finish(driver, make_pipeline(config={"pages": 4, "per_page": 5, "totals": totals}))

    assert seen == told
    assert expected(run) == [20]


def test_the_links_of_a_lane_share_its_total(
    driver: Driver, make_pipeline: MakePipeline, settings: Any, seen: list[Any]
) -> None:
    settings.HEADGATE_PARTITION_BYTES = 500
    pipeline = make_pipeline(config={"lanes": 2, "pages": 5, "per_page": 5, "totals": [40, 40, None, None, 25]})

    run = finish(driver, pipeline)

    assert sum(filter(None, expected(run))) == 50
    assert all(total in (40, 50, 55, 65, 80, None) for _, total, _ in seen), seen
    assert measure_progress(run).percent == 100


def test_a_pull_that_goes_on_after_a_stop_counts_what_it_had(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = iter([True, False, True])
    _after_each_page(monkeypatch, lambda: _stop(next(stops, False)))

    run = finish(driver, make_pipeline(config={"pages": 4, "per_page": 5, "totals": [20]}))

    assert expected(run) == [20]


def _stop(is_due: bool) -> None:
    if is_due:
        raise DeadlineReached
