"""A run on its way into Druid, moved by the engine: what goes wrong there uses up nothing, and nothing comes twice."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ingestion import registry
from ingestion.models import Delivery, Destination, Pipeline, Run, RunState
from ingestion.ports.publication import DeliveryState
from ingestion.runs.deliver import cancellation, loading
from ingestion.runs.start.creation import create_run
from sinks.druid.sink import DruidSink
from tests.fakes.druid import FakeDruid
from tests.runs.driver import Driver

MakePipeline = Callable[..., Pipeline]
LOOKS_OF_AN_OUTAGE = 8
"""More than the attempts that a delivery has."""


@pytest.fixture
def druid(settings: Any) -> Iterator[FakeDruid]:
    settings.HEADGATE_SINKS = {**settings.HEADGATE_SINKS, "druid": "sinks.druid.sink:DruidSink"}
    settings.HEADGATE_EGRESS_ALLOW = ["127.0.0.0/8"]
    settings.HEADGATE_EGRESS_PORTS = list(range(1, 65536))
    with FakeDruid() as running:
        yield running


@pytest.fixture
def pipeline(druid: FakeDruid, make_pipeline: MakePipeline) -> Pipeline:
    """A pipeline into Druid alone."""
    registry._table.cache_clear()
    made = make_pipeline()
    destination = Destination.objects.create(name="druid", kind="druid", config={"url": druid.url})
    made.destinations.set([destination])
    return made


def start(pipeline: Pipeline) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API)
    return run


def delivery_of(run: Run) -> Delivery:
    return Delivery.objects.get(run=run)


def go_on(driver: Driver, run: Run, druid: FakeDruid, *, until: Callable[[], bool], steps: int = 400) -> None:
    """Carry messages out, with the time of every next look come, until the condition holds."""
    for _ in range(steps):
        if until():
            return
        if driver.waiting:
            driver.step()
        else:
            driver.publish(loading.load_message(delivery_of(run).pk))
        Delivery.objects.filter(run=run).update(not_before=None)
        task_id = str(Delivery.objects.filter(run=run).values_list("refs__task", flat=True).first() or "")
        if druid.can_end(task_id):
            druid.await_task(task_id)
    raise AssertionError(f"not within {steps} steps: {Delivery.objects.filter(run=run).values()}")


def is_submitted(run: Run) -> bool:
    found = Delivery.objects.filter(run=run, state=DeliveryState.SUBMITTED).first()
    return found is not None and bool(found.refs.get("submitted_at"))


def is_over(run: Run) -> bool:
    run.refresh_from_db()
    return run.state in (RunState.SUCCEEDED, RunState.PARTIAL, RunState.FAILED)


@pytest.mark.django_db(transaction=True)
def test_a_run_comes_into_druid_row_by_row_once(driver: Driver, druid: FakeDruid, pipeline: Pipeline) -> None:
    run = start(pipeline)

    go_on(driver, run, druid, until=lambda: is_over(run))

    assert run.state == RunState.SUCCEEDED, run.message
    delivery = delivery_of(run)
    assert delivery.state == DeliveryState.VERIFIED
    assert delivery.counted == len(druid.rows("items")) > 0


@pytest.mark.django_db(transaction=True)
def test_an_overlord_that_is_away_for_longer_than_all_attempts_fails_no_delivery(
    driver: Driver, druid: FakeDruid, pipeline: Pipeline
) -> None:
    druid.hold()
    run = start(pipeline)
    go_on(driver, run, druid, until=lambda: is_submitted(run))
    druid.fail_next("*", "unavailable", times=None)

    for _ in range(LOOKS_OF_AN_OUTAGE):
        driver.waiting.clear()
        driver.publish(loading.load_message(delivery_of(run).pk))
        driver.step()
        Delivery.objects.filter(run=run).update(not_before=None)
    state = delivery_of(run).state
    druid.clear_faults()
    druid.release()
    go_on(driver, run, druid, until=lambda: is_over(run))

    assert state == DeliveryState.SUBMITTED
    assert run.state == RunState.SUCCEEDED, run.message
    assert druid.count("POST /druid/indexer/v1/task") == 1


@pytest.mark.django_db(transaction=True)
def test_a_run_that_is_cancelled_while_druid_loads_leaves_nothing(
    driver: Driver, druid: FakeDruid, pipeline: Pipeline
) -> None:
    druid.hold()
    run = start(pipeline)
    go_on(driver, run, druid, until=lambda: is_submitted(run))
    task_id = delivery_of(run).refs["task"]

    cancellation.cancel_run(run.pk)
    driver.drain()
    druid.release()

    delivery = delivery_of(run)
    assert (delivery.needs_abort, delivery.counted) == (False, 0)
    assert druid.task_state(task_id) == "FAILED"
    assert druid.rows("items") == []


@pytest.mark.django_db(transaction=True)
def test_a_cancel_in_the_moment_before_the_task_is_handed_over_stops_it(
    driver: Driver, druid: FakeDruid, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    druid.hold()
    run = start(pipeline)
    commit = DruidSink.commit

    def plan(self: DruidSink, *args: Any) -> Any:
        monkeypatch.setattr(DruidSink, "commit", hand_over)
        return commit(self, *args)

    def hand_over(self: DruidSink, *args: Any) -> Any:
        # The plan is noted, and the worker has not heard of the cancel yet.
        cancellation.cancel_run(run.pk)
        return commit(self, *args)

    monkeypatch.setattr(DruidSink, "commit", plan)
    go_on(driver, run, druid, until=lambda: is_cancelled(run))
    driver.drain()
    druid.release()

    delivery = delivery_of(run)
    assert (delivery.needs_abort, delivery.counted) == (False, 0)
    assert druid.task_state(delivery.refs["task"]) == "FAILED"
    assert druid.rows("items") == []


def is_cancelled(run: Run) -> bool:
    run.refresh_from_db()
    return run.state == RunState.CANCELLED
