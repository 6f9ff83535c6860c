"""Cancel, retry, roll back, deadlines."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from ingestion.models import Delivery, Partition, PartitionState, Pipeline, Run, RunState
from ingestion.ports.errors import Refused
from ingestion.ports.publication import DeliveryState
from ingestion.runs.deliver import cancellation
from ingestion.runs.operate import reconcile, retry
from ingestion.runs.record.lake import manifest_key, open_lake
from ingestion.runs.start.creation import create_run
from tests.fakes import plugins
from tests.runs.driver import Driver
from tests.servers import wait_until

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


def start(pipeline: Pipeline, **values: Any) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API, **values)
    return run


@pytest.mark.parametrize("steps", range(9))
def test_a_cancelled_run_publishes_nothing_wherever_it_was(
    driver: Driver, make_pipeline: MakePipeline, steps: int
) -> None:
    run = start(make_pipeline(config={"lanes": 2, "pages": 1}))
    for _ in range(steps):
        if driver.waiting:
            driver.step()
    run.refresh_from_db()
    if run.is_terminal:
        pytest.skip("the run has fewer steps")

    cancellation.cancel_run(run.pk, by="tester")
    driver.drain()
    reconcile.reconcile()
    driver.drain()

    run.refresh_from_db()
    assert run.state == RunState.CANCELLED
    assert open_lake().head(manifest_key(run)) is None
    assert plugins.MemorySink.committed == {}
    assert not Partition.objects.filter(run=run, state__in=("pending", "leased")).exists()
    assert not Delivery.objects.filter(run=run, needs_abort=True).exists()
    assert reconcile.reconcile() == []


def test_a_run_that_has_ended_cannot_be_cancelled(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline())
    driver.drain()

    with pytest.raises(Refused) as refusal:
        cancellation.cancel_run(run.pk)

    assert refusal.value.code == "run.not_cancellable"


def test_a_cancel_names_the_destinations_that_had_taken_the_rows(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline())
    driver.drain()
    Run.objects.filter(pk=run.pk).update(state=RunState.LOADING)

    cancelled = cancellation.cancel_run(run.pk)

    assert "memory" in cancelled.message


def test_a_cancel_waits_for_the_destination_that_is_being_verified_and_names_it(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite lets one transaction write at a time")
    run = start(make_pipeline())
    driver.drain()
    Run.objects.filter(pk=run.pk).update(state=RunState.LOADING)
    Delivery.objects.filter(run=run).update(state=DeliveryState.STAGED, inserted=0, counted=0)
    events = run.events.filter(kind="delivery.failed")
    thread = threading.Thread(target=_cancel_in_a_connection_of_its_own, args=(run.pk,))

    with transaction.atomic():
        Delivery.objects.filter(run=run).update(state=DeliveryState.VERIFIED, inserted=2, counted=2)
        thread.start()
        wait_until(_somebody_waits, what="the cancel's wait")
    thread.join(30)

    run.refresh_from_db()
    assert run.state == RunState.CANCELLED
    assert "memory" in run.message
    assert not events.exists()


def _cancel_in_a_connection_of_its_own(run_id: int) -> None:
    try:
        cancellation.cancel_run(run_id)
    finally:
        connection.close()


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
        return cursor.fetchone() is not None


def test_a_retry_goes_on_where_the_run_stopped(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline(config={"lanes": 2, "pages": 2}))
    driver.step()
    plugins.TROUBLE["fetch.rejected"] = 1
    driver.drain()
    run.refresh_from_db()
    assert run.state == RunState.FAILED
    fetched = list(plugins.CALLS)

    retry.retry_run(run.pk)
    driver.drain()

    run.refresh_from_db()
    assert (run.state, run.code, run.message, run.accepted) == (RunState.SUCCEEDED, "", "", 16)
    assert all(plugins.CALLS.count(call) == 1 for call in fetched if call.startswith("page"))


def test_a_retry_of_a_partial_run_delivers_from_the_lake(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline())
    plugins.TROUBLE["commit.rejected"] = 1
    driver.drain()
    pages = len([call for call in plugins.CALLS if call.startswith("page")])

    retry.retry_run(run.pk)
    driver.drain()

    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.SUCCEEDED, "")
    assert len([call for call in plugins.CALLS if call.startswith("page")]) == pages
    assert Delivery.objects.get(run=run).state == "verified"


def test_a_run_that_failed_in_planning_is_planned_again(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline())
    plugins.TROUBLE["plan.unavailable"] = 99
    for _ in range(12):
        driver.drain()
        Run.objects.update(not_before=None, sent_at=None)
        reconcile.reconcile()
    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.FAILED, "source.unavailable")
    plugins.TROUBLE.clear()

    retry.retry_run(run.pk)
    driver.drain()

    run.refresh_from_db()
    assert run.state == RunState.SUCCEEDED


def test_a_retry_is_refused_once_a_later_run_was_published(driver: Driver, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline()
    first = start(pipeline)
    plugins.TROUBLE["fetch.rejected"] = 1
    driver.drain()
    start(pipeline)
    driver.drain()

    with pytest.raises(Refused) as refusal:
        retry.retry_run(first.pk)

    assert refusal.value.code == "run.superseded"


def test_a_roll_back_publishes_an_earlier_run_again(driver: Driver, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline()
    first = start(pipeline)
    driver.drain()
    second = start(pipeline)
    driver.drain()
    pages = len(plugins.CALLS)

    again = retry.roll_back(first.pk)
    driver.drain()

    again.refresh_from_db()
    assert (again.state, again.accepted, again.republishes_id) == (RunState.SUCCEEDED, 12, first.pk)
    assert again.pk > second.pk
    assert not any(call.startswith("page") for call in plugins.CALLS[pages:])
    assert plugins.MemorySink.committed[again.pk] == 12


def test_an_unpublished_run_cannot_be_rolled_back_to(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline())

    with pytest.raises(Refused) as refusal:
        retry.roll_back(run.pk)

    assert refusal.value.code == "run.not_published"


def test_a_run_over_its_deadline_fails_and_can_be_retried(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline())
    driver.step()
    Run.objects.update(deadline_at=timezone.now() - timedelta(seconds=1))

    repairs = reconcile.reconcile()
    driver.drain()
    run.refresh_from_db()
    late = (run.state, run.code)
    retry.retry_run(run.pk)
    driver.drain()

    run.refresh_from_db()
    assert [repair.kind for repair in repairs] == ["overdue"]
    assert late == (RunState.FAILED, "run.deadline")
    assert run.state == RunState.SUCCEEDED


def test_the_same_idempotency_key_is_the_same_run(driver: Driver, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline()
    first, is_new = create_run(pipeline, trigger="api", idempotency_key="k")
    second, is_new_again = create_run(pipeline, trigger="api", idempotency_key="k")

    with pytest.raises(Refused) as refusal:
        create_run(pipeline, trigger="api", idempotency_key="k", query={"limit": 1})

    assert (first.pk, is_new, is_new_again) == (second.pk, True, False)
    assert refusal.value.code == "run.idempotency_mismatch"


def test_a_dead_worker_is_replaced_when_its_lease_ends(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline())
    driver.step()
    driver.waiting.clear()
    Partition.objects.filter(run=run).update(
        state=PartitionState.LEASED, fence=1, lease_until=timezone.now() - timedelta(seconds=1)
    )

    repairs = reconcile.reconcile()
    driver.drain()

    run.refresh_from_db()
    assert [repair.kind for repair in repairs] == ["lease"]
    assert run.state == RunState.SUCCEEDED
