"""One delivery of a pipeline at a time in one destination, looked at together, ended without harm."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from ingestion.models import Delivery, DeliveryPart, Pipeline, Run, RunState
from ingestion.ports.context import Context
from ingestion.ports.errors import SinkUnavailable
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, Receipt, Rejection
from ingestion.ports.sink import CommitStep
from ingestion.runs.deliver import cancellation
from ingestion.runs.operate import reconcile, retry
from ingestion.runs.read.quarantine import iterate_rejected
from ingestion.runs.start.creation import create_run
from tests.fakes import plugins
from tests.runs.driver import TASKS, Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


def start(pipeline: Pipeline) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API)
    return run


def delivery_of(run: Run) -> Delivery:
    return Delivery.objects.get(run=run)


def let_time_pass() -> None:
    for model in (Delivery, DeliveryPart):
        model.objects.update(not_before=None, sent_at=None)


@pytest.fixture(autouse=True)
def seldom_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next look be far away, so that nothing is due before a test says so."""
    monkeypatch.setattr(plugins.MemorySink, "next_poll_s", 600.0)


@pytest.fixture
def two_runs(driver: Driver, make_pipeline: MakePipeline) -> tuple[Run, Run]:
    """Two runs of one pipeline whose parts are staged, the first of them submitted and looked at again later."""
    pipeline = make_pipeline(max_active_runs=2)
    plugins.TROUBLE["commit.later"] = 1
    runs = start(pipeline), start(pipeline)
    driver.drain()
    return runs


def test_the_next_run_waits_until_the_one_before_has_ended_and_is_woken_then(
    driver: Driver, two_runs: tuple[Run, Run]
) -> None:
    first, second = two_runs
    while_first_is_at_it = delivery_of(first).state, delivery_of(second).state

    Delivery.objects.filter(run=first).update(not_before=None)
    TASKS["ingestion.load"](delivery_of(first).pk)
    driver.drain()

    assert while_first_is_at_it == (DeliveryState.SUBMITTED, DeliveryState.PLANNED)
    for run in two_runs:
        run.refresh_from_db()
        assert run.state == RunState.SUCCEEDED
    assert [call for call in plugins.CALLS if call.startswith("commit")] == [f"commit {run.pk}" for run in two_runs]
    assert set(Delivery.objects.values_list("lock", flat=True)) == {None}


def test_waiting_for_a_turn_uses_up_no_attempt(driver: Driver, two_runs: tuple[Run, Run]) -> None:
    _, second = two_runs

    for _ in range(20):
        Delivery.objects.filter(run=second).update(not_before=None)
        TASKS["ingestion.load"](delivery_of(second).pk)

    assert (delivery_of(second).state, delivery_of(second).attempt) == (DeliveryState.PLANNED, 0)


def test_two_turns_at_once_are_impossible_by_construction(two_runs: tuple[Run, Run]) -> None:
    first, second = two_runs

    with pytest.raises(IntegrityError), transaction.atomic():
        Delivery.objects.filter(run=second).update(lock=delivery_of(first).lock)


@pytest.mark.parametrize("ending", ["cancelled", "overdue"])
def test_a_run_that_is_over_gives_its_turn_back_when_its_work_there_is_removed(
    driver: Driver, two_runs: tuple[Run, Run], ending: str
) -> None:
    first, second = two_runs
    if ending == "cancelled":
        cancellation.cancel_run(first.pk)
    else:
        Run.objects.filter(pk=first.pk).update(deadline_at=first.created_at)
        reconcile.reconcile()
    held_until_removed = delivery_of(first).lock

    driver.drain()
    let_time_pass()
    reconcile.reconcile()
    driver.drain()

    assert held_until_removed is not None
    assert f"abort {first.pk}" in plugins.CALLS
    assert (delivery_of(first).state, delivery_of(first).needs_abort) == (DeliveryState.FAILED, False)
    second.refresh_from_db()
    assert second.state == RunState.SUCCEEDED


def test_a_worker_that_stops_for_a_cancel_lets_the_removal_begin_at_once(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(make_pipeline())

    def commit(self: plugins.MemorySink, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        cancellation.cancel_run(run.pk)
        return CommitStep(DeliveryState.SUBMITTED, next_poll_s=1.0)

    monkeypatch.setattr(plugins.MemorySink, "commit", commit)

    driver.drain()

    assert f"abort {run.pk}" in plugins.CALLS
    assert not delivery_of(run).needs_abort


def test_deliveries_that_are_due_together_are_looked_at_with_one_question(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def poll(
        self: plugins.MemorySink, deliveries: Sequence[DeliveryView], ctx: Context
    ) -> Mapping[int, Mapping[str, Any]]:
        asked.append(sorted(delivery.run_id for delivery in deliveries))
        return {delivery.id: {"status": "SUCCESS"} for delivery in deliveries}

    seen: list[Any] = []
    commit = plugins.MemorySink.commit

    def commit_seen(self: plugins.MemorySink, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        seen.append(delivery.polled)
        return commit(self, manifest, delivery, ctx)

    monkeypatch.setattr(plugins.MemorySink, "poll", poll, raising=False)
    monkeypatch.setattr(plugins.MemorySink, "commit", commit_seen)
    plugins.TROUBLE["commit.later"] = 3
    runs = [start(make_pipeline(name)) for name in ("one", "two", "three")]
    driver.drain()
    seen.clear()

    let_time_pass()
    TASKS["ingestion.load"](delivery_of(runs[1]).pk)
    driver.drain()

    assert asked == [[run.pk for run in runs]]
    assert seen == [{"status": "SUCCESS"}] * 3
    assert set(Run.objects.values_list("state", flat=True)) == {RunState.SUCCEEDED}


def test_rows_that_nobody_sees_yet_leave_the_run_partial_until_a_retry_finds_them(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_loaded(self: plugins.MemorySink, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        if delivery.state == DeliveryState.STAGED and "task" not in delivery.refs:
            return CommitStep(DeliveryState.PUBLISHED, next_poll_s=0, refs={"task": "t1"})
        return CommitStep(DeliveryState.PUBLISHED_NOT_LOADED, note="No Historical has room.")

    with monkeypatch.context() as patch:
        patch.setattr(plugins.MemorySink, "commit", not_loaded)
        run = start(make_pipeline())
        driver.drain()
    run.refresh_from_db()
    partial = run.state, run.code, delivery_of(run).state, delivery_of(run).message

    retry.retry_run(run.pk)
    kept = delivery_of(run).refs
    driver.drain()

    run.refresh_from_db()
    assert partial == (RunState.PARTIAL, "sink.not_loaded", "published_not_loaded", "No Historical has room.")
    assert kept == {"task": "t1"}
    assert (run.state, delivery_of(run).state) == (RunState.SUCCEEDED, DeliveryState.VERIFIED)


def test_refused_rows_are_counted_and_go_to_quarantine_one_by_one(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(self: plugins.MemorySink, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        rejections = tuple(
            Rejection(manifest.parts[0].name, index, "23514", f"Row {index} is too heavy.", "name") for index in (3, 1)
        )
        self.committed[manifest.run_id] = manifest.rows - 2
        receipt = Receipt(inserted=manifest.rows - 2, rejected=2, rejections=rejections)
        return CommitStep(DeliveryState.AVAILABLE, receipt=receipt)

    monkeypatch.setattr(plugins.MemorySink, "commit", commit)
    run = start(make_pipeline())

    driver.drain(copies=2)

    rows = list(iterate_rejected(run))
    assert [(row["outcome"], row["destination"], row["_row"]) for row in rows] == [
        ("rejected_by_destination", "memory", 1),
        ("rejected_by_destination", "memory", 3),
    ]
    assert rows[0]["errors"] == [{"column": "name", "rule": "23514", "value": "n1", "message": "Row 1 is too heavy."}]
    assert '"id":1' in rows[0]["raw"]
    assert (delivery_of(run).state, delivery_of(run).inserted, delivery_of(run).rejected) == ("verified", 10, 2)


def test_refused_rows_that_cannot_be_named_fail_the_delivery(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(self: plugins.MemorySink, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        return CommitStep(DeliveryState.AVAILABLE, receipt=Receipt(inserted=manifest.rows - 2, rejected=2))

    monkeypatch.setattr(plugins.MemorySink, "commit", commit)
    run = start(make_pipeline())

    driver.drain()

    assert (delivery_of(run).state, delivery_of(run).code) == (DeliveryState.FAILED, "sink.refusals_unnamed")


def test_every_state_of_a_delivery_is_a_line_of_the_log(driver: Driver, two_runs: tuple[Run, Run]) -> None:
    first, _ = two_runs

    let_time_pass()
    reconcile.reconcile()
    driver.drain()

    lines = first.events.filter(kind__startswith="delivery.").order_by("pk")
    states = ("staged", "submitted", "available", "verified")
    assert [line.kind for line in lines] == [f"delivery.{state}" for state in states]
    assert {line.values["delivery"] for line in lines} == {delivery_of(first).pk}


def test_a_destination_that_is_away_when_the_load_begins_is_tried_again(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = plugins.MemorySink.commit

    def commit_later(self: plugins.MemorySink, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        if plugins.trouble("commit.unavailable"):
            raise SinkUnavailable("sink.unavailable", destination=delivery.destination, detail="asked for")
        return commit(self, manifest, delivery, ctx)

    monkeypatch.setattr(plugins.MemorySink, "commit", commit_later)
    plugins.TROUBLE["commit.unavailable"] = 1
    run = start(make_pipeline())

    driver.drain()
    waiting = delivery_of(run)
    let_time_pass()
    reconcile.reconcile()
    driver.drain()

    assert (waiting.state, waiting.lease_until) == (DeliveryState.STAGED, None)
    assert delivery_of(run).state == DeliveryState.VERIFIED
