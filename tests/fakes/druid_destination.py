"""A destination at the fake Druid, with a delivery whose task is running there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ingestion.models import Delivery, Destination, Pipeline, Run
from ingestion.ports.publication import DeliveryState
from ingestion.runs.start.creation import create_run
from tests.fakes.druid import FakeDruid
from tests.runs.driver import Driver


@dataclass(frozen=True)
class HeldTask:
    """A task that stays RUNNING, and whose delivery waits for it."""

    druid: FakeDruid
    delivery: Delivery
    task_id: str


@contextmanager
def held_task(pipeline: Pipeline, *, driver: Driver, settings: Any) -> Iterator[HeldTask]:
    """Give a task of the pipeline's next run at a Druid that does not let it work; the destination is called druid."""
    with FakeDruid() as druid:
        settings.HEADGATE_EGRESS_ALLOW = [urlsplit(druid.url).netloc]
        druid.hold()
        config = {"url": druid.url, "segment_granularity": "month"}
        pipeline.destinations.set([Destination.objects.create(name="druid", kind="druid", config=config)])
        create_run(pipeline, trigger=Run.Trigger.API)
        driver.drain()
        delivery = Delivery.objects.select_related("destination").get(destination__name="druid")
        assert delivery.state == DeliveryState.SUBMITTED, delivery.message
        task_id = str(delivery.refs["task"])
        druid.write_log(task_id, "begins\nreads https://store/key?X-Amz-Signature=canary-1\nhas read 12 rows\n")
        yield HeldTask(druid, delivery, task_id)
