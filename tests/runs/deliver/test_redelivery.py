"""Deliveries after the publication: to a repaired destination, to one that was added later, in the order of runs."""

from collections.abc import Callable
from typing import Any

import pytest

from ingestion.models import Delivery, DeliveryPart, Destination, Pipeline, Run, RunState
from ingestion.ports.errors import Refused
from ingestion.ports.publication import DeliveryState
from ingestion.runs.deliver.redelivery import redeliver, redeliver_everything
from ingestion.runs.operate import reconcile
from ingestion.runs.start.creation import create_run
from tests.fakes import plugins
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


def publish(driver: Driver, pipeline: Pipeline, *, mode: str | None = None) -> Run:
    if mode is not None:
        Pipeline.objects.filter(pk=pipeline.pk).update(mode=mode)
    run, _ = create_run(Pipeline.objects.get(pk=pipeline.pk), trigger=Run.Trigger.API)
    driver.drain()
    run.refresh_from_db()
    return run


def add_destination(pipeline: Pipeline, *, name: str = "later") -> Destination:
    destination = Destination.objects.create(name=name, kind="memory")
    pipeline.destinations.add(destination)
    return destination


def committed_order() -> list[int]:
    return [int(call.removeprefix("commit ")) for call in plugins.CALLS if call.startswith("commit ")]


def resolve_duplicates(driver: Driver) -> None:
    """Carry everything out, waits included."""
    for _ in range(6):
        driver.drain()
        for model in (Delivery, DeliveryPart):
            model.objects.update(not_before=None, sent_at=None)
        reconcile.reconcile()
    driver.drain()


def test_a_published_run_is_delivered_to_another_destination_without_asking_the_source(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    run = publish(driver, make_pipeline())
    destination = Destination.objects.create(name="later", kind="memory")
    pages = plugins.CALLS.count("page 0/0")

    delivery = redeliver(run.pk, destination, by="tester")
    driver.drain()

    delivery.refresh_from_db()
    run.refresh_from_db()
    assert (delivery.state, delivery.inserted, delivery.counted) == (DeliveryState.VERIFIED, 12, 12)
    assert run.state == RunState.SUCCEEDED
    assert plugins.CALLS.count("page 0/0") == pages
    assert run.events.filter(kind="delivery.again", values__by="tester").count() == 1


def test_a_redelivery_that_was_sent_twice_and_late_commits_once(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = publish(driver, make_pipeline())
    plugins.CALLS.clear()

    redeliver(run.pk, Destination.objects.create(name="later", kind="memory"))
    driver.drain(copies=2)
    for call in [call for call in driver.history if call.name in ("ingestion.deliver", "ingestion.load")]:
        driver.publish(call)
    driver.drain()

    assert committed_order() == [run.pk]


def test_a_failed_delivery_is_made_again_though_later_runs_were_published(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline(mode=Pipeline.Mode.INCREMENTAL)
    publish(driver, pipeline)
    plugins.TROUBLE["commit.rejected"] = 1
    failed = publish(driver, pipeline)
    publish(driver, pipeline)
    assert failed.state == RunState.PARTIAL

    delivery = redeliver(failed.pk, Destination.objects.get(name="memory"))
    driver.drain()

    delivery.refresh_from_db()
    assert delivery.state == DeliveryState.VERIFIED


@pytest.mark.parametrize(
    ("situation", "code"),
    [("unpublished", "run.not_published"), ("verified", "delivery.exists"), ("superseded", "delivery.superseded")],
)
def test_a_redelivery_that_would_do_harm_is_refused(
    driver: Driver, make_pipeline: MakePipeline, situation: str, code: str
) -> None:
    pipeline = make_pipeline()
    if situation == "unpublished":
        run, _ = create_run(pipeline, trigger=Run.Trigger.API)
    elif situation == "verified":
        run = publish(driver, pipeline)
    else:
        plugins.TROUBLE["commit.rejected"] = 1
        run = publish(driver, pipeline)
        publish(driver, pipeline)

    with pytest.raises(Refused) as refusal:
        redeliver(run.pk, Destination.objects.get(name="memory"))

    assert refusal.value.code == code


def test_a_destination_is_filled_from_the_last_full_refresh_on_in_the_order_of_runs(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline(mode=Pipeline.Mode.INCREMENTAL)
    publish(driver, pipeline)
    base = publish(driver, pipeline, mode=Pipeline.Mode.FULL_REFRESH)
    second = publish(driver, pipeline, mode=Pipeline.Mode.INCREMENTAL)
    third = publish(driver, pipeline)
    plugins.CALLS.clear()

    made = redeliver_everything(pipeline, Destination.objects.create(name="later", kind="memory"))
    driver.waiting.reverse()
    resolve_duplicates(driver)

    assert [delivery.run_id for delivery in made] == [base.pk, second.pk, third.pk]
    assert committed_order() == [base.pk, second.pk, third.pk]
    assert set(Delivery.objects.filter(destination__name="later").values_list("state", flat=True)) == {"verified"}
    assert redeliver_everything(pipeline, Destination.objects.get(name="later")) == []


def test_a_run_that_adds_fills_a_new_destination_first(driver: Driver, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(mode=Pipeline.Mode.INCREMENTAL)
    first = publish(driver, pipeline)
    later = add_destination(pipeline)
    plugins.CALLS.clear()

    second = publish(driver, pipeline)
    resolve_duplicates(driver)

    order = Delivery.objects.filter(destination=later).order_by("finished_at")
    assert [(delivery.run_id, delivery.state) for delivery in order] == [
        (first.pk, DeliveryState.VERIFIED),
        (second.pk, DeliveryState.VERIFIED),
    ]
    second.refresh_from_db()
    assert second.state == RunState.SUCCEEDED


def test_a_full_refresh_needs_nothing_of_what_was_before(driver: Driver, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline()
    publish(driver, pipeline)
    later = add_destination(pipeline)

    second = publish(driver, pipeline)

    assert list(Delivery.objects.filter(destination=later).values_list("run_id", flat=True)) == [second.pk]


def test_nothing_is_added_where_the_full_refresh_before_it_is_missing(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline()
    plugins.TROUBLE["commit.rejected"] = 1
    base = publish(driver, pipeline)

    added: Any = publish(driver, pipeline, mode=Pipeline.Mode.INCREMENTAL)

    assert (added.state, added.code) == (RunState.PARTIAL, "delivery.incomplete")
    redeliver_everything(pipeline, Destination.objects.get(name="memory"))
    resolve_duplicates(driver)
    states = Delivery.objects.filter(run__in=(base, added)).values_list("state", flat=True)
    assert list(states) == ["verified", "verified"]
