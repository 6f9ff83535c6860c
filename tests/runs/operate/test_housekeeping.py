"""Housekeeping of destinations by a person: who may, when not, and what becomes of the deliveries."""

from collections.abc import Callable
from typing import Any

import pytest

from ingestion.models import Delivery, Destination, Pipeline, Run
from ingestion.ports.errors import Refused
from ingestion.ports.housekeeping import Housekeeping
from ingestion.ports.publication import DeliveryState
from ingestion.runs.deliver.redelivery import redeliver_everything
from ingestion.runs.operate import housekeeping
from ingestion.runs.read.progress import summarize
from ingestion.runs.start.creation import create_run
from tests.fakes import plugins
from tests.runs.driver import Driver

MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def pipeline(driver: Driver, make_pipeline: MakePipeline) -> Pipeline:
    """A pipeline with one published run."""
    pipeline = make_pipeline()
    create_run(pipeline, trigger=Run.Trigger.API)
    driver.drain()
    return pipeline


@pytest.fixture
def can_drop(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the memory sink drop, and note what it was asked to."""
    dropped: list[str] = []

    def drop(self: plugins.MemorySink, pipeline: str, ctx: Any, *, dry_run: bool = False) -> Housekeeping:
        if not dry_run:
            dropped.append(pipeline)
        return Housekeeping(actions=(f"remove {pipeline}",), is_dry_run=dry_run)

    monkeypatch.setattr(plugins.MemorySink, "drop", drop, raising=False)
    return dropped


def memory() -> Destination:
    return Destination.objects.get(name="memory")


def test_what_a_kind_can_do_is_told_by_its_class(can_drop: list[str]) -> None:
    assert housekeeping.operations_of("memory") == ["drop"]
    assert housekeeping.operations_of("druid") == ["drop", "tasks"]
    assert housekeeping.operations_of("objects") == ["compact", "retain", "drop"]
    assert housekeeping.operations_of("catalog") == []


def test_what_a_destination_cannot_do_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(Refused) as refusal:
        housekeeping.compact(memory(), pipeline)

    assert refusal.value.code == "destination.cannot"


@pytest.mark.parametrize("confirm", ["", "memory", "Items"])
def test_nothing_is_dropped_that_a_person_has_not_confirmed_by_name(
    pipeline: Pipeline, can_drop: list[str], confirm: str
) -> None:
    with pytest.raises(Refused) as refusal:
        housekeeping.drop(memory(), pipeline, confirm=confirm)

    assert (refusal.value.code, can_drop) == ("destination.unconfirmed", [])


def test_a_dry_run_needs_no_confirmation_and_changes_nothing(pipeline: Pipeline, can_drop: list[str]) -> None:
    found = housekeeping.drop(memory(), pipeline, dry_run=True)

    assert (found.is_dry_run, can_drop) == (True, [])
    assert Delivery.objects.get().state == DeliveryState.VERIFIED


@pytest.mark.both
def test_what_was_dropped_can_be_filled_again(driver: Driver, pipeline: Pipeline, can_drop: list[str]) -> None:
    housekeeping.drop(memory(), pipeline, confirm="items", by="tester")
    removed = Delivery.objects.get().state
    shown = summarize(Run.objects.get())["destinations"]

    redeliver_everything(pipeline, memory())
    begun = Delivery.objects.get()
    driver.drain()

    assert (removed, can_drop, shown) == (DeliveryState.REMOVED, ["items"], {"memory": 0})
    assert (begun.inserted, begun.counted) == (0, None)
    assert Delivery.objects.get().state == DeliveryState.VERIFIED
    assert Run.objects.get().events.filter(kind="delivery.removed", values__by="tester").count() == 1


@pytest.mark.both
def test_nothing_is_dropped_under_a_delivery(driver: Driver, pipeline: Pipeline, can_drop: list[str]) -> None:
    plugins.TROUBLE["commit.later"] = 1
    create_run(pipeline, trigger=Run.Trigger.API)
    while not Delivery.objects.filter(state=DeliveryState.SUBMITTED).exists():
        driver.step()

    with pytest.raises(Refused) as refusal:
        housekeeping.drop(memory(), pipeline, confirm="items")

    assert (refusal.value.code, can_drop) == ("delivery.under_way", [])
