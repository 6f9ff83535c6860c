"""Cancelling and dropping: nothing is begun, done or published any more once it is said to be over."""

from collections.abc import Callable
from typing import Any

import pytest

from ingestion.ports.errors import ConfigError, SinkUnavailable
from ingestion.ports.publication import DeliveryView, Manifest, WriteMode
from tests.fakes.druid import FakeDruid
from tests.sinks.druid.support import PIPELINE, Bench, day

TASK = "POST /druid/indexer/v1/task"
FIRST = "hg.samples.1.101.a1"
ROWS = [{"id": number, "name": "Si", "at": day(1 + number % 3)} for number in range(9)]
APPEND, MERGE, REPLACE = WriteMode.APPEND, WriteMode.MERGE, WriteMode.REPLACE


def begun(
    bench: Bench, *, until: Callable[[DeliveryView], bool], mode: WriteMode = APPEND
) -> tuple[Manifest, DeliveryView]:
    manifest = bench.manifest(1, ROWS, mode=mode)
    return manifest, bench.deliver(manifest, until=until).delivery


def is_planned(view: DeliveryView) -> bool:
    return "task" in view.refs


def is_submitted(view: DeliveryView) -> bool:
    return bool(view.refs.get("submitted_at"))


def aborted(bench: Bench, manifest: Manifest, view: DeliveryView) -> int:
    """Abort as the engine does, again and again while it is busy; return what is counted then."""
    for _ in range(50):
        try:
            bench.sink.abort(manifest, view, bench.ctx)
        except SinkUnavailable as error:
            assert error.code == "sink.busy"
            assert error.retry_after_s
            bench.wait(error.retry_after_s)
            continue
        return bench.sink.count(manifest, view, bench.ctx)
    raise AssertionError("it is busy for ever")


# cancelling


def test_a_running_task_is_stopped_and_what_was_staged_is_removed(druid: FakeDruid, local: Bench) -> None:
    druid.hold()
    manifest, view = begun(local, until=is_submitted)

    left = aborted(local, manifest, view)

    assert left == 0
    assert druid.task_state(FIRST) == "FAILED"
    assert local.staged() == []
    assert druid.count("POST /druid/indexer/v1/task/*/shutdown") == 1


def test_a_cancel_can_be_repeated(druid: FakeDruid, local: Bench) -> None:
    druid.hold()
    manifest, view = begun(local, until=is_submitted)

    for _ in range(2):
        assert aborted(local, manifest, view) == 0


def test_what_has_nothing_yet_is_cancelled_without_a_question(druid: FakeDruid, local: Bench) -> None:
    manifest = local.manifest(1, ROWS, mode=APPEND)
    local.stage(manifest, local.view(manifest))
    before = len(druid.requests)

    local.sink.abort(manifest, local.view(manifest), local.ctx)

    assert local.staged() == []
    assert len(druid.requests) == before


def test_nothing_can_be_begun_under_the_id_of_a_cancelled_plan(druid: FakeDruid, local: Bench) -> None:
    manifest, view = begun(local, until=is_planned)

    assert aborted(local, manifest, view) == 0
    # A worker that slept through it all wakes up and goes on with what it knew.
    local.stage(manifest, view)
    step, late = local.step(manifest, view)

    assert late.refs["is_foreign"]
    assert local.tasks() == []
    assert druid.rows(PIPELINE) == []


def test_a_submission_that_was_on_its_way_is_stopped(druid: FakeDruid, local: Bench) -> None:
    druid.hold()
    manifest, view = begun(local, until=is_planned)
    local.step(manifest, view)  # handed over, and its notes were never kept

    assert aborted(local, manifest, view) == 0
    assert druid.task_state(FIRST) == "FAILED"


def test_a_cancel_waits_until_the_task_is_over(druid: FakeDruid, local: Bench) -> None:
    druid.hold()
    manifest, view = begun(local, until=is_submitted)
    druid.fail_next("POST /druid/indexer/v1/task/*/shutdown", "json", times=2, body={"task": FIRST})

    with pytest.raises(SinkUnavailable) as raised:
        local.sink.abort(manifest, view, local.ctx)

    assert raised.value.code == "sink.busy"
    assert local.staged() != []
    assert aborted(local, manifest, view) == 0


def test_what_was_published_at_the_last_moment_is_counted(druid: FakeDruid, local: Bench) -> None:
    druid.load_after(3)
    manifest, view = begun(local, until=is_submitted)
    druid.await_task(FIRST)

    left = aborted(local, manifest, view)

    assert left == 9
    assert local.staged() == []


def test_and_goes_with_the_next_run(druid: FakeDruid, local: Bench) -> None:
    manifest, view = begun(local, until=is_submitted)
    druid.await_task(FIRST)
    aborted(local, manifest, view)
    local.withdraw(1)

    local.publish(2, [{"id": 50, "at": day(9)}], mode=APPEND)

    assert local.ids() == [(2, 50)]


def test_segments_that_are_never_loaded_do_not_keep_a_cancel_for_ever(druid: FakeDruid, local: Bench) -> None:
    druid.load_after(None)
    manifest, view = begun(local, until=is_submitted)
    druid.await_task(FIRST)
    local.wait(3600 + 601)

    local.sink.abort(manifest, view, local.ctx)

    assert local.staged() == []


def test_what_is_published_stays(local: Bench) -> None:
    manifest, view = begun(local, until=lambda found: bool(found.refs.get("published_at")))

    left = aborted(local, manifest, view)

    assert left == 9
    assert len(local.ids()) == 9


def test_who_may_not_use_up_an_id_can_still_cancel(druid: FakeDruid, local: Bench) -> None:
    manifest, view = begun(local, until=is_planned)
    druid.fail_next(TASK, "json", status=403, body={"Access-Check-Result": "Unauthorized"})

    assert aborted(local, manifest, view) == 0
    assert local.staged() == []


def test_a_druid_that_does_not_answer_is_asked_again_later(druid: FakeDruid, local: Bench) -> None:
    manifest, view = begun(local, until=is_submitted)
    druid.fail_next("*", "unavailable", times=None)

    with pytest.raises(SinkUnavailable) as raised:
        local.sink.abort(manifest, view, local.ctx)

    assert raised.value.code == "sink.unavailable"


def test_a_run_that_is_retried_after_its_cancel_comes_through(druid: FakeDruid, local: Bench) -> None:
    druid.hold()
    manifest, view = begun(local, until=is_submitted)
    aborted(local, manifest, view)
    druid.release()

    outcome = local.deliver(manifest, view)

    assert outcome.receipt == (9, 0, 0)
    assert len(local.ids()) == 9


@pytest.mark.parametrize("mode", [APPEND, MERGE])
def test_also_one_that_was_cancelled_before_it_was_handed_over(local: Bench, mode: WriteMode) -> None:
    manifest, view = begun(local, until=is_planned, mode=mode)
    aborted(local, manifest, view)

    outcome = local.deliver(manifest, view)

    assert outcome.receipt == (9, 0, 0)
    assert len(local.ids()) == 9


# dropping


def test_a_dry_run_only_says_what_a_drop_would_do(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, ROWS, mode=REPLACE)

    housekeeping = bench.sink.drop(PIPELINE, bench.ctx, dry_run=True)

    assert (housekeeping.object_count, housekeeping.is_dry_run) == (3, True)
    assert "3 chunks of datasource samples" in housekeeping.actions[0]
    assert len(bench.ids()) == 9


def test_a_drop_removes_everything_and_can_be_repeated(bench: Bench) -> None:
    bench.publish(1, ROWS, mode=REPLACE)
    bench.publish(2, ROWS[:1], mode=REPLACE)

    first = bench.sink.drop(PIPELINE, bench.ctx)
    second = bench.sink.drop(PIPELINE, bench.ctx)

    assert (first.object_count, second.object_count) == (3, 0)
    assert second.actions == ()
    assert bench.ids() == []


def test_a_drop_stops_the_task_that_is_at_it_first(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    bench.publish(5, [], mode=APPEND)
    begun(bench, until=is_submitted)

    bench.sink.drop(PIPELINE, bench.ctx)
    druid.release()

    assert druid.task_state(FIRST) == "FAILED"
    assert bench.ids() == []


def test_a_drop_lets_finished_tasks_and_those_of_others_be(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, ROWS, mode=REPLACE)
    druid.hold()
    bench.http.post(f"{druid.url}/druid/indexer/v1/task", json={**bench.tasks()[0], "id": "somebody_else"})

    bench.sink.drop(PIPELINE, bench.ctx)

    assert druid.count("POST /druid/indexer/v1/task/*/shutdown") == 0
    assert druid.task_state("somebody_else") == "RUNNING"


def test_a_drop_of_what_is_not_there_does_nothing(bench: Bench) -> None:
    housekeeping = bench.sink.drop(PIPELINE, bench.ctx)

    assert (housekeeping.actions, housekeeping.object_count) == ((), 0)


@pytest.mark.parametrize("pipeline", ['a"b', "../x", "x" * 200])
def test_a_name_that_is_none_is_not_dropped(druid: FakeDruid, bench: Bench, pipeline: str) -> None:
    with pytest.raises(ConfigError):
        bench.sink.drop(pipeline, bench.ctx)

    assert druid.requests == []


# tasks as a person sees them


def test_our_tasks_are_listed_newest_first_and_no_more_than_asked(druid: FakeDruid, bench: Bench) -> None:
    for run_id in range(1, 5):
        bench.publish(run_id, [{"id": run_id, "at": day(run_id)}], mode=APPEND)
    druid.hold()
    bench.http.post(f"{druid.url}/druid/indexer/v1/task", json={**bench.tasks()[0], "id": "somebody_else"})

    found = bench.sink.tasks(bench.ctx, limit=3)

    assert len(found) == 3
    assert all(task.id.startswith("hg.") and task.dataset == PIPELINE for task in found)
    assert [task.created_at for task in found] == sorted((task.created_at for task in found), reverse=True)
    assert found[0].duration_ms is not None


def test_a_log_is_given_and_an_absent_one_is_empty(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, ROWS, mode=APPEND)

    before = bench.sink.task_log(FIRST, bench.ctx, tail_bytes=100)
    druid.write_log(FIRST, "x" * 500 + "the end")

    assert before == ""
    assert bench.sink.task_log(FIRST, bench.ctx, tail_bytes=10).endswith("xxxthe end")


def test_a_task_that_is_over_or_unknown_is_said_to_be(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, ROWS, mode=APPEND)

    for task, code in ((FIRST, "sink.task_over"), ("hg.samples.9.109.a1", "sink.unknown_task")):
        with pytest.raises(ConfigError) as raised:
            bench.sink.cancel_task(task, bench.ctx)
        assert raised.value.code == code
    with pytest.raises(ConfigError):
        bench.sink.task_log("hg.samples.9.109.a1", bench.ctx, tail_bytes=10)

    assert druid.count("POST /druid/indexer/v1/task/*/shutdown") == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda sink, ctx: sink.cancel_task("somebody_else", ctx),
        lambda sink, ctx: sink.task_log("index_parallel_x", ctx, tail_bytes=10),
        lambda sink, ctx: sink.cancel_task("../../coordinator/v1/datasources/x", ctx),
    ],
)
def test_a_task_of_others_is_left_alone(druid: FakeDruid, bench: Bench, call: Callable[[Any, Any], None]) -> None:
    with pytest.raises(ConfigError) as raised:
        call(bench.sink, bench.ctx)

    assert raised.value.code == "sink.foreign_task"
    assert druid.requests == []


def test_a_task_that_a_person_stops_ends_its_delivery_until_it_is_asked_for_again(
    druid: FakeDruid, bench: Bench
) -> None:
    druid.hold()
    manifest, view = begun(bench, until=is_submitted)

    bench.sink.cancel_task(FIRST, bench.ctx)
    druid.release()
    outcome = bench.deliver(manifest, view, goes_on=True)
    stopped = len(bench.tasks())
    again = bench.retry(manifest, outcome)

    assert outcome.code == "sink.task_failed"
    assert "Shutdown request from user" in str(outcome.error)
    assert stopped == 1
    assert again.receipt == (9, 0, 0)
    assert len(bench.ids()) == 9
