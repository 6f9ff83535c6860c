"""Numbers for a dashboard: they are the sums of what the run pages show."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from ingestion.models import PUBLISHED_RUN_STATES, Delivery, Destination, Pipeline, Run
from ingestion.runs.read.progress import CONTROL_TOTALS, summarize
from ingestion.runs.read.statistics import collect_statistics
from ingestion.runs.start.creation import create_run
from tests.fakes import plugins
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]
TAKEN = ("inserted", "updated", "unchanged", "rejected")


def sums(rows: Iterable[Any], names: Iterable[str]) -> dict[str, int]:
    found = list(rows)
    return {name: sum(row[name] for row in found) for name in names}


def test_the_numbers_equal_the_ledger(driver: Driver, make_pipeline: MakePipeline) -> None:
    first, second = make_pipeline(config={"repeat_id": 1}), make_pipeline("others", config={"pages": 1})
    second.destinations.add(Destination.objects.create(name="second", kind="memory"))
    for pipeline in (first, second, second, first):
        create_run(pipeline, trigger=Run.Trigger.API)
        driver.drain()
    plugins.TROUBLE["commit.rejected"] = 1
    create_run(second, trigger=Run.Trigger.API)
    driver.drain()
    create_run(first, trigger=Run.Trigger.API)
    yesterday = Run.objects.filter(pipeline=first).first()
    Run.objects.filter(pk=yesterday.pk).update(published_at=timezone.now() - timedelta(days=1))  # type: ignore[union-attr]

    told = collect_statistics(days=7)

    runs = list(Run.objects.select_related("pipeline__source"))
    pages = {run.pk: summarize(run) for run in runs}
    published = [run for run in runs if run.state in PUBLISHED_RUN_STATES]
    assert {run.state for run in runs} == {"succeeded", "partial", "pending"}
    assert told["runs"]["by_state"] == Counter(run.state for run in runs)
    assert told["rows"] == sums((pages[run.pk] for run in published), CONTROL_TOTALS)
    for group, key in (
        ("by_day", lambda run: run.published_at.date()),
        ("by_source", lambda run: run.pipeline.source.name),
    ):
        for line in told[group]:
            own = [pages[run.pk] for run in published if key(run) == line[group.removeprefix("by_")]]
            assert {name: line[name] for name in CONTROL_TOTALS} == sums(own, CONTROL_TOTALS)
        assert sums(told[group], CONTROL_TOTALS) == told["rows"]

    deliveries = [
        (run.published_at.date(), delivery)  # type: ignore[union-attr]
        for run in published
        for delivery in pages[run.pk]["deliveries"]
    ]
    for line in told["by_destination"]:
        own = [delivery for _, delivery in deliveries if delivery["destination"] == line["name"]]
        assert {name: line[name] for name in TAKEN} == sums(own, TAKEN)
    assert {(line["day"], line["name"]) for line in told["by_day_and_destination"]} == {
        (day, delivery["destination"]) for day, delivery in deliveries
    }
    for line in told["by_day_and_destination"]:
        own = [d for day, d in deliveries if (day, d["destination"]) == (line["day"], line["name"])]
        assert {name: line[name] for name in TAKEN} == sums(own, TAKEN)
        assert line["deliveries"] == len(own)


def test_deliveries_are_counted_by_state_in_all_and_at_each_destination(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline()
    pipeline.destinations.add(Destination.objects.create(name="second", kind="memory"))
    create_run(pipeline, trigger=Run.Trigger.API)
    driver.drain()
    plugins.TROUBLE["commit.rejected"] = 1
    create_run(pipeline, trigger=Run.Trigger.API)
    while not Delivery.objects.filter(state="failed").exists():
        driver.step()

    told = collect_statistics()["deliveries"]

    found = list(Delivery.objects.values_list("destination__name", "state"))
    assert told["total"] == len(found) == 4
    assert told["by_state"] == Counter(state for _, state in found)
    assert told["by_state"]["failed"] == 1
    for name, states in told["by_destination"].items():
        assert states == Counter(state for place, state in found if place == name)


def test_an_installation_without_runs_has_numbers_too(db: None) -> None:
    told = collect_statistics()

    assert told["deliveries"] == {"total": 0, "by_state": {}, "by_destination": {}}
    assert (told["success_rate"], told["by_day_and_destination"]) == (None, [])
