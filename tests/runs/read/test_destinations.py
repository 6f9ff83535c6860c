"""Health of destinations, counted from their deliveries, and their addresses without secrets."""

from collections.abc import Callable
from typing import Any

import pytest

from ingestion.models import Delivery, Destination, Pipeline, Run
from ingestion.runs.read.destinations import address_of, health_of, pipelines_of
from ingestion.runs.start.creation import create_run
from tests.fakes import plugins
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


def publish(driver: Driver, pipeline: Pipeline) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API)
    driver.drain()
    return run


def test_health_tells_what_came_through_what_is_open_and_what_was_given_up(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    good, bad = make_pipeline("good"), make_pipeline("bad")
    memory = Destination.objects.get()
    run = publish(driver, good)
    plugins.TROUBLE["commit.rejected"] = 1
    failed = publish(driver, bad)
    Delivery.objects.create(run=Run.objects.create(pipeline=good, trigger="api", mode=good.mode), destination=memory)

    health = health_of([memory])[memory.pk]

    assert (health.state, health.open, health.failed, health.verified, health.rows) == ("failing", 1, 1, 1, 12)
    assert (health.last_verified_run, health.last_verified_at is not None) == (run.pk, True)
    assert [(each.pipeline, each.run_id, each.code) for each in health.failing] == [("bad", failed.pk, "sink.rejected")]


def test_a_pipeline_whose_newest_delivery_came_through_is_not_failing_any_more(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline()
    plugins.TROUBLE["commit.rejected"] = 1
    publish(driver, pipeline)
    publish(driver, pipeline)

    health = health_of(Destination.objects.all())[Destination.objects.get().pk]

    assert (health.state, health.failed, health.failing) == ("ok", 1, ())


def test_a_destination_without_deliveries_is_unused(db: None) -> None:
    destination = Destination.objects.create(name="new", kind="memory")

    health = health_of([destination])[destination.pk]

    assert (health.state, health.open, health.rows, health.last_verified_at) == ("unused", 0, 0, None)


def test_the_health_of_many_destinations_takes_three_questions(
    driver: Driver, make_pipeline: MakePipeline, django_assert_num_queries: Any
) -> None:
    pipeline = make_pipeline()
    for number in range(5):
        pipeline.destinations.add(Destination.objects.create(name=f"more-{number}", kind="memory"))
    publish(driver, pipeline)
    destinations = list(Destination.objects.all())

    with django_assert_num_queries(3):
        found = health_of(destinations)

    assert [health.state for health in found.values()] == ["ok"] * 6


def test_a_pipeline_that_delivered_there_once_still_belongs_to_a_destination(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline("before")
    publish(driver, pipeline)
    memory = Destination.objects.get()
    pipeline.destinations.clear()
    make_pipeline("now")

    assert [found.name for found in pipelines_of(memory)] == ["before", "now"]


@pytest.mark.parametrize(
    ("config", "address"),
    [
        ({"base_url": "https://me:canary@example.org/v1"}, "https://example.org/v1"),
        ({"url": "s3://bucket/prefix?endpoint=http://store:7070&secret_key=canary"}, None),
        ({"path": "/srv/rows.sqlite3"}, "/srv/rows.sqlite3"),
        ({"host": "db", "port": 5432, "database": "rows", "password": "canary"}, "db:5432/rows"),
        ({"host": "db"}, "db"),
        ({}, ""),
    ],
)
def test_an_address_is_shown_without_secrets(config: dict[str, Any], address: str | None) -> None:
    shown = address_of(config)

    assert "canary" not in shown
    assert address is None or shown == address
