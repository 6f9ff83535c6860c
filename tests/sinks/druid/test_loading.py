"""A delivery on its way: states, polls, control totals, and its end when things go wrong outside."""

from dataclasses import replace
from pathlib import Path

import pytest

from ingestion.ports.errors import Cancelled
from ingestion.ports.publication import DeliveryState, WriteMode
from ingestion.ports.schema import Column, ColumnType
from sinks.druid.loading import LAG_S, LONGEST_POLL_S, UNKNOWN_GRACE_S
from tests.fakes.druid import FakeDruid
from tests.sinks.druid.support import KEYLESS, PIPELINE, Bench, day

TASK = "POST /druid/indexer/v1/task"
STATUS = "GET /druid/indexer/v1/task/*/status"
ROWS = [{"id": number, "name": "Si", "at": day(1 + number % 4)} for number in range(12)]
ALL_MODES = pytest.mark.parametrize("mode", list(WriteMode))


def seen_once(bench: Bench, run_id: int = 1) -> bool:
    """Return whether every row of the run is there, and no other."""
    return bench.ids() == sorted((run_id, int(row["id"])) for row in ROWS)


@ALL_MODES
def test_a_delivery_goes_through_its_states(bench: Bench, mode: WriteMode) -> None:
    outcome = bench.publish(1, ROWS[:5], ROWS[5:], mode=mode)

    assert outcome.receipt == (12, 0, 0)
    assert [state.value for state in outcome.states] == ["staged", "submitted", "published", "available"]
    assert seen_once(bench)
    assert bench.staged() == []


def test_the_task_is_noted_before_it_is_handed_over(druid: FakeDruid, bench: Bench) -> None:
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)

    planned = bench.deliver(manifest, until=lambda view: "task" in view.refs)

    assert planned.delivery.refs["task"] == "hg.samples.1.101.a1"
    assert len(planned.delivery.refs["hash"]) == 64
    assert planned.step is not None
    assert planned.step.next_poll_s == 0
    assert druid.count(TASK) == 0


@pytest.mark.parametrize("granularity", ["hour", "day", "month", "year"])
def test_rows_go_into_chunks_of_the_asked_length(bench: Bench, granularity: str) -> None:
    bench.settings["segment_granularity"] = granularity

    outcome = bench.publish(1, ROWS, mode=WriteMode.REPLACE)

    assert outcome.receipt == (12, 0, 0)
    assert bench.tasks()[0]["spec"]["dataSchema"]["granularitySpec"]["segmentGranularity"] == granularity.upper()


def test_rows_without_a_time_have_the_run_s(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, [{"id": 1}, {"id": 2, "at": day(9)}], mode=WriteMode.REPLACE)

    assert sorted(row["__time"] for row in druid.rows(PIPELINE)) == [1767323045678, 1767938400000]


def test_looks_come_at_once_and_then_ever_more_rarely(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    began = bench.now

    outcome = bench.deliver(manifest, until=lambda _: (bench.now - began).total_seconds() > 1500)

    assert outcome.waits[0] == 1
    assert outcome.waits == sorted(outcome.waits)
    assert outcome.waits[-1] == LONGEST_POLL_S


def test_many_tasks_are_looked_at_with_one_question(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    bench.settings["max_tasks"] = 99
    views = []
    for run_id in range(1, 8):
        manifest = bench.manifest(run_id, [{"id": run_id, "at": day(run_id)}], mode=WriteMode.APPEND)
        outcome = bench.deliver(manifest, until=lambda view: bool(view.refs.get("submitted_at")))
        views.append(outcome.delivery)
    before = len(druid.requests)

    seen = bench.sink.poll(views, bench.ctx)

    assert len(druid.requests) == before + 1
    assert {number: found["status"]["code"] for number, found in seen.items()} == {view.id: "RUNNING" for view in views}


def test_what_was_seen_together_costs_no_further_question(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("submitted_at"))).delivery
    before = len(druid.requests)

    step, _ = bench.step(manifest, view)

    assert step.state is DeliveryState.SUBMITTED
    assert len(druid.requests) == before + 1


def test_what_has_no_task_is_not_asked_about(druid: FakeDruid, bench: Bench) -> None:
    manifest = bench.manifest(1, ROWS)

    assert bench.sink.poll([bench.view(manifest)], bench.ctx) == {}
    assert druid.requests == []


# submissions whose answer does not come


@pytest.mark.parametrize(
    ("how", "times"),
    [
        ("lost", 1),
        ("lost", 3),
        ("reset", 1),
        ("reset", 3),
        ("unavailable", 2),
        ("html", 2),
        ("broken_json", 1),
        ("empty", 1),
    ],
)
def test_a_submission_without_a_clear_answer_makes_exactly_one_task(
    druid: FakeDruid, bench: Bench, how: str, times: int
) -> None:
    druid.fail_next(TASK, how, times=times)

    outcome = bench.publish(1, ROWS, mode=WriteMode.APPEND)

    assert outcome.receipt == (12, 0, 0)
    assert seen_once(bench)
    assert {task["id"] for task in bench.tasks()} == {"hg.samples.1.101.a1"}


def test_a_submission_that_was_taken_is_found_by_asking_for_its_id(druid: FakeDruid, bench: Bench) -> None:
    druid.fail_next(TASK, "lost")

    bench.publish(1, ROWS, mode=WriteMode.APPEND)

    assert druid.count(TASK) == 1


def test_what_was_cancelled_by_then_is_not_handed_over(druid: FakeDruid, bench: Bench) -> None:
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    view = bench.deliver(manifest, until=lambda found: "task" in found.refs).delivery
    bench.is_stopped = True

    with pytest.raises(Cancelled):
        bench.step(manifest, view)

    assert druid.count(TASK) == 0


def test_a_page_that_says_200_is_no_acceptance(druid: FakeDruid, bench: Bench) -> None:
    druid.fail_next(TASK, "html", status=200, message="Sign in")

    outcome = bench.publish(1, ROWS, mode=WriteMode.APPEND)

    assert outcome.receipt == (12, 0, 0)
    assert druid.count(TASK) == 2


@pytest.mark.parametrize("polls", [1, 3])
def test_a_task_that_is_not_known_for_a_moment_is_waited_for(druid: FakeDruid, bench: Bench, polls: int) -> None:
    druid.hide_next_task(polls)

    outcome = bench.publish(1, ROWS, mode=WriteMode.APPEND)

    assert outcome.receipt == (12, 0, 0)
    assert seen_once(bench)
    assert len(bench.tasks()) == 1


def test_a_refused_spec_ends_the_delivery_with_druid_s_words(druid: FakeDruid, bench: Bench) -> None:
    druid.fail_next(TASK, "json", status=400, body={"error": "Could not resolve type id 's3'"})

    outcome = bench.publish(1, ROWS, mode=WriteMode.REPLACE)

    assert outcome.code == "sink.rejected"
    assert "Could not resolve type id 's3'" in str(outcome.error)


def test_a_refused_spec_is_planned_anew_once_the_settings_have_changed(druid: FakeDruid, bench: Bench) -> None:
    druid.fail_next(TASK, "json", status=400, body={"error": "No."})
    manifest = bench.manifest(1, ROWS, mode=WriteMode.REPLACE)
    outcome = bench.deliver(manifest)
    bench.settings["segment_granularity"] = "year"

    again = bench.retry(manifest, outcome)

    assert again.receipt == (12, 0, 0)
    assert bench.tasks()[-1]["id"] == "hg.samples.1.101.a2"
    assert bench.tasks()[-1]["spec"]["dataSchema"]["granularitySpec"]["segmentGranularity"] == "YEAR"


# tasks that fail


@ALL_MODES
def test_a_failed_task_is_made_again_under_another_id(druid: FakeDruid, bench: Bench, mode: WriteMode) -> None:
    druid.fail_next_task("java.lang.OutOfMemoryError: Java heap space")

    outcome = bench.publish(1, ROWS, mode=mode)

    assert outcome.receipt == (12, 0, 0)
    assert [task["id"] for task in bench.tasks()] == ["hg.samples.1.101.a1", "hg.samples.1.101.a2"]
    assert any("Java heap space" in note for note in outcome.notes)
    assert seen_once(bench)


@ALL_MODES
def test_a_task_that_failed_after_publishing_is_not_made_again(druid: FakeDruid, bench: Bench, mode: WriteMode) -> None:
    druid.fail_next_task("java.io.IOException: pushing the log failed", is_after_publishing=True)

    outcome = bench.publish(1, ROWS, mode=mode)

    assert outcome.receipt == (12, 0, 0)
    assert len(bench.tasks()) == 1
    assert seen_once(bench)


@ALL_MODES
@pytest.mark.parametrize("polls", [1, 4])
def test_nor_where_its_rows_are_loaded_and_seen_late(
    druid: FakeDruid, bench: Bench, mode: WriteMode, polls: int
) -> None:
    druid.load_after(polls)
    druid.lag_broker(2)
    druid.fail_next_task("java.io.IOException: pushing the log failed", is_after_publishing=True)

    outcome = bench.publish(1, ROWS, mode=mode)

    assert outcome.receipt == (12, 0, 0)
    assert len(bench.tasks()) == 1
    assert seen_once(bench)


def test_nor_where_they_are_never_loaded(druid: FakeDruid, bench: Bench) -> None:
    druid.load_after(None)
    druid.fail_next_task("java.io.IOException: pushing the log failed", is_after_publishing=True)
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)

    outcome = bench.deliver(manifest)
    druid.finish_loading()
    again = bench.retry(manifest, outcome)

    assert outcome.states[-1] is DeliveryState.PUBLISHED_NOT_LOADED
    assert again.receipt == (12, 0, 0)
    assert len(bench.tasks()) == 1
    assert seen_once(bench)


def test_a_task_that_fails_every_time_ends_the_delivery_with_its_message(druid: FakeDruid, bench: Bench) -> None:
    for _ in range(3):
        druid.fail_next_task("java.lang.IllegalStateException: no space left")

    outcome = bench.publish(1, ROWS, mode=WriteMode.APPEND)

    assert outcome.code == "sink.task_failed"
    assert "no space left" in str(outcome.error)
    assert "hg.samples.1.101.a3" in str(outcome.error)
    assert len(bench.tasks()) == 3


def test_a_task_that_blames_its_input_is_not_tried_again_by_itself(druid: FakeDruid, bench: Bench) -> None:
    druid.fail_next_task("org.apache.druid.java.util.common.RE: Max parse exceptions[0] exceeded")

    outcome = bench.publish(1, ROWS, mode=WriteMode.APPEND)

    assert outcome.code == "sink.task_failed"
    assert len(bench.tasks()) == 1


@ALL_MODES
def test_a_person_s_retry_makes_a_task_of_its_own(druid: FakeDruid, bench: Bench, mode: WriteMode) -> None:
    for _ in range(4):
        druid.fail_next_task("java.lang.IllegalStateException: no space left")
    manifest = bench.manifest(1, ROWS, mode=mode)
    outcome = bench.deliver(manifest)

    again = bench.retry(manifest, outcome)

    assert again.receipt == (12, 0, 0)
    assert [task["id"][-2:] for task in bench.tasks()] == ["a1", "a2", "a3", "a4", "a5"]
    assert seen_once(bench)


def test_a_task_that_was_lost_is_made_again_after_its_grace(druid: FakeDruid, bench: Bench) -> None:
    druid.forget_next_task()
    began = bench.now

    outcome = bench.publish(1, ROWS, mode=WriteMode.APPEND)

    assert outcome.receipt == (12, 0, 0)
    assert (bench.now - began).total_seconds() > UNKNOWN_GRACE_S
    assert [task["id"] for task in bench.tasks()] == ["hg.samples.1.101.a1", "hg.samples.1.101.a2"]
    assert seen_once(bench)


def test_the_id_of_a_lost_task_is_used_up_before_another_is_made(druid: FakeDruid, bench: Bench) -> None:
    druid.forget_next_task()

    bench.publish(1, ROWS, mode=WriteMode.APPEND)

    assert [task["id"] for task in bench.tasks("noop")] == ["hg.samples.1.101.a1"]
    kinds = [task["type"] for task in (*bench.tasks("noop"), *bench.tasks())]
    assert kinds.count("noop") == 1


def test_who_may_not_use_up_an_id_goes_by_druid_s_word(druid: FakeDruid, bench: Bench) -> None:
    druid.forget_next_task()
    druid.fail_next(TASK, "json", skip=1, status=403, body={"Access-Check-Result": "Unauthorized"})

    outcome = bench.publish(1, ROWS, mode=WriteMode.APPEND)

    assert outcome.receipt == (12, 0, 0)
    assert seen_once(bench)


def test_a_task_that_was_believed_lost_and_goes_on_is_not_made_again(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    bench.deliver(manifest, until=lambda view: bool(view.refs.get("submitted_at")))
    # A proxy in front that knows nothing, for longer than the grace: in Druid's own words, to be nasty.
    druid.fail_next(STATUS, "not_found", times=2)
    druid.fail_next("POST /druid/indexer/v1/taskStatus", "json", body={}, times=None)
    view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("submitted_at"))).delivery
    bench.wait(UNKNOWN_GRACE_S)

    step, view = bench.step(manifest, view)
    lost = step.note
    for _ in range(3):
        step, view = bench.step(manifest, view)
    druid.release()
    druid.clear_faults()
    druid.await_task("hg.samples.1.101.a1")
    outcome = bench.deliver(manifest, view, goes_on=True)

    assert "is lost" in lost
    assert outcome.receipt == (12, 0, 0)
    assert len(bench.tasks()) == 1
    assert seen_once(bench)


def test_a_proxy_s_404_is_no_lost_task(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("submitted_at"))).delivery
    druid.fail_next("*", "text", times=None, status=404, text="404 page not found")
    bench.wait(10 * UNKNOWN_GRACE_S)

    step, view = bench.step(manifest, view)

    assert step.state is DeliveryState.SUBMITTED
    assert not view.refs.get("failed_at")


def test_a_task_that_hangs_is_stopped_at_our_deadline(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    bench.settings["task_timeout_s"] = 60
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)

    outcome = bench.deliver(manifest)

    assert outcome.code == "sink.task_failed"
    assert "60 s" in str(outcome.error)
    assert druid.task_state("hg.samples.1.101.a1") == "FAILED"
    assert len(bench.tasks()) == 1


def test_a_task_that_was_stopped_as_it_published_has_published(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    bench.settings["task_timeout_s"] = 60
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    druid.fail_next("POST /druid/indexer/v1/task/*/shutdown", "json", body={"task": "x"})
    view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("failed_at"))).delivery
    druid.release()
    druid.await_task("hg.samples.1.101.a1")

    outcome = bench.deliver(manifest, view, goes_on=True)

    assert outcome.receipt == (12, 0, 0)
    assert seen_once(bench)


def test_a_worker_that_dies_and_comes_back_lets_the_task_be_made_again(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("submitted_at"))).delivery
    druid.stop_worker()
    for _ in range(5):
        bench.wait(30)
        _, view = bench.step(manifest, view)
    druid.start_worker()
    druid.release()

    outcome = bench.deliver(manifest, view, goes_on=True)

    assert outcome.receipt == (12, 0, 0)
    assert seen_once(bench)


# a Druid that does not answer


@pytest.mark.parametrize("services", [("overlord",), ("broker",), ("overlord", "coordinator", "broker")])
def test_an_outage_of_minutes_in_the_middle_is_waited_out(services: tuple[str, ...], tmp_path: Path) -> None:
    with FakeDruid(apart=True) as druid:
        bench = Bench(druid, tmp_path, broker_url=druid.broker_url, coordinator_url=druid.coordinator_url)
        manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
        view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("submitted_at"))).delivery
        druid.await_task(view.refs["task"])
        druid.stop(*services)
        for _ in range(12):
            step, view = bench.step(manifest, view)
            bench.wait(step.next_poll_s or 0)
        druid.start(*services)

        outcome = bench.deliver(manifest, view, goes_on=True)

        assert outcome.receipt == (12, 0, 0)
        assert seen_once(bench)
        assert len(bench.tasks()) == 1


@pytest.mark.parametrize("how", ["unavailable", "html", "reset", "broken_json", "empty"])
def test_no_outage_of_looks_uses_up_the_delivery(druid: FakeDruid, bench: Bench, how: str) -> None:
    druid.hold()
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("submitted_at"))).delivery
    druid.fail_next("*", how, times=None)

    for _ in range(8):
        step, view = bench.step(manifest, view)
        assert step.state is DeliveryState.SUBMITTED
        assert step.next_poll_s
        bench.wait(step.next_poll_s)

    druid.clear_faults()
    druid.release()
    assert bench.deliver(manifest, view, goes_on=True).receipt == (12, 0, 0)


def test_an_overlord_that_redirects_to_itself_has_no_leader_yet(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("submitted_at"))).delivery
    druid.lose_leader(leader_url=druid.url)

    step, view = bench.step(manifest, view)
    druid.gain_leader()
    druid.release()

    assert step.state is DeliveryState.SUBMITTED
    assert bench.deliver(manifest, view, goes_on=True).receipt == (12, 0, 0)


def test_a_druid_that_never_comes_back_ends_the_delivery(druid: FakeDruid, bench: Bench) -> None:
    bench.settings |= {"task_timeout_s": 60, "load_timeout_s": 60}
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("submitted_at"))).delivery
    druid.fail_next("*", "unavailable", times=None)

    outcome = bench.deliver(manifest, view, goes_on=True)

    assert outcome.code == "sink.unavailable"
    assert "druid.unreachable" in [kind for kind, _ in bench.events]


# what was seen of another moment


def test_what_was_seen_of_an_earlier_task_decides_nothing_about_the_next(druid: FakeDruid, bench: Bench) -> None:
    druid.fail_next_task("java.lang.IllegalStateException: first")
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    first = bench.deliver(manifest, until=lambda view: bool(view.refs.get("submitted_at"))).delivery
    druid.await_task("hg.samples.1.101.a1")
    old = bench.sink.poll([first], bench.ctx)[first.id]
    druid.hold()
    second = bench.deliver(
        manifest,
        first,
        goes_on=True,
        until=lambda view: view.refs["attempt"] == 2 and bool(view.refs.get("submitted_at")),
    ).delivery

    step = bench.sink.commit(manifest, replace(second, polled=old), bench.ctx)

    assert old["status"]["code"] == "FAILED"
    assert not step.refs.get("failed_at")
    assert len(bench.tasks()) == 2


# loading and counting


@ALL_MODES
def test_rows_that_readers_see_late_are_waited_for(druid: FakeDruid, bench: Bench, mode: WriteMode) -> None:
    druid.load_after(3)
    druid.lag_broker(2)
    druid.hide_load_status(1)

    outcome = bench.publish(1, ROWS, mode=mode)

    assert outcome.receipt == (12, 0, 0)
    assert outcome.states.count(DeliveryState.PUBLISHED) > 1


@ALL_MODES
def test_rows_that_nobody_loads_are_published_and_not_loaded(druid: FakeDruid, bench: Bench, mode: WriteMode) -> None:
    druid.load_after(None)
    manifest = bench.manifest(1, ROWS, mode=mode)
    began = bench.now

    outcome = bench.deliver(manifest)

    assert outcome.states[-1] is DeliveryState.PUBLISHED_NOT_LOADED
    assert (bench.now - began).total_seconds() > 600
    assert "druid.segmentCache.locations" in outcome.notes[-1]


@ALL_MODES
def test_a_retry_of_what_was_not_loaded_sends_nothing_twice(druid: FakeDruid, bench: Bench, mode: WriteMode) -> None:
    druid.load_after(None)
    manifest = bench.manifest(1, ROWS, mode=mode)
    outcome = bench.deliver(manifest)
    druid.finish_loading()

    again = bench.retry(manifest, outcome)

    assert again.receipt == (12, 0, 0)
    assert len(bench.tasks()) == 1
    assert seen_once(bench)


@ALL_MODES
def test_what_was_dropped_is_brought_again_at_once(druid: FakeDruid, bench: Bench, mode: WriteMode) -> None:
    manifest = bench.manifest(1, ROWS, mode=mode)
    outcome = bench.deliver(manifest)
    bench.sink.drop(PIPELINE, bench.ctx)
    began = bench.now

    again = bench.retry(manifest, outcome)

    assert again.receipt == (12, 0, 0)
    assert seen_once(bench)
    assert (bench.now - began).total_seconds() < 10


@ALL_MODES
def test_what_the_broker_shows_of_a_dropped_datasource_is_not_believed(
    druid: FakeDruid, bench: Bench, mode: WriteMode
) -> None:
    manifest = bench.manifest(1, ROWS, mode=mode)
    outcome = bench.deliver(manifest)
    druid.lag_broker(3)
    bench.sink.drop(PIPELINE, bench.ctx)

    assert bench.retry(manifest, outcome).receipt == (12, 0, 0)
    assert seen_once(bench)


@ALL_MODES
@pytest.mark.parametrize("count", [1, 12])
def test_rows_that_were_thrown_away_are_no_success_and_a_retry_brings_them(
    druid: FakeDruid, bench: Bench, mode: WriteMode, count: int
) -> None:
    druid.drop_rows_of_next_task(count)
    manifest = bench.manifest(1, ROWS, mode=mode)

    outcome = bench.deliver(manifest)
    again = bench.retry(manifest, outcome)

    assert outcome.code == "sink.rows_lost"
    assert outcome.error is not None
    assert outcome.error.values["short"] == count
    assert "ingestion" in str(outcome.error)
    assert again.receipt == (12, 0, 0)
    assert seen_once(bench)


@ALL_MODES
def test_success_without_a_row_is_no_success_and_a_retry_brings_them(
    druid: FakeDruid, bench: Bench, mode: WriteMode
) -> None:
    druid.empty_next_task()
    manifest = bench.manifest(1, ROWS, mode=mode)

    outcome = bench.deliver(manifest)
    again = bench.retry(manifest, outcome)

    assert outcome.code == "sink.rows_lost"
    assert "12 were never read" in str(outcome.error)
    assert again.receipt == (12, 0, 0)
    assert seen_once(bench)


@ALL_MODES
@pytest.mark.parametrize("count", [1, 11])
def test_rows_that_vanish_without_a_trace_are_found_missing_and_a_retry_brings_them(
    druid: FakeDruid, bench: Bench, mode: WriteMode, count: int
) -> None:
    druid.drop_rows_of_next_task(count, is_counted=False)
    manifest = bench.manifest(1, ROWS, mode=mode)
    began = bench.now

    outcome = bench.deliver(manifest)
    waited_s = (bench.now - began).total_seconds()
    again = bench.retry(manifest, outcome)

    assert outcome.code == "sink.count_mismatch"
    assert outcome.error is not None
    assert (outcome.error.values["stage"], outcome.error.values["short"]) == ("loading", count)
    assert waited_s > LAG_S
    assert again.receipt == (12, 0, 0)
    assert seen_once(bench)


def test_a_report_that_was_not_kept_leaves_the_count_to_decide(druid: FakeDruid, bench: Bench) -> None:
    druid.fail_next("GET /druid/indexer/v1/task/*/reports", "text", times=None, status=404, text="No task reports")

    assert bench.publish(1, ROWS, mode=WriteMode.APPEND).receipt == (12, 0, 0)


def test_a_report_that_cannot_be_had_now_is_asked_for_again(druid: FakeDruid, bench: Bench) -> None:
    druid.fail_next("GET /druid/indexer/v1/task/*/reports", "empty", times=3, status=500)

    assert bench.publish(1, ROWS, mode=WriteMode.APPEND).receipt == (12, 0, 0)


def test_a_value_that_became_null_on_its_way_is_found(bench: Bench) -> None:
    columns = (*KEYLESS.columns, Column(name="cell", type=ColumnType.OBJECT))
    contract = KEYLESS.model_copy(update={"columns": columns})
    rows = [{**row, "cell": text} for row, text in zip(ROWS, ['{"a":1}', None, "{broken"], strict=False)]

    outcome = bench.publish(1, rows, mode=WriteMode.REPLACE, contract=contract)

    assert outcome.code == "sink.nulls_differ"
    assert "column cell has 2 nulls instead of 1" in str(outcome.error)


# appends


def test_an_append_delivered_again_without_its_notes_does_not_double(bench: Bench) -> None:
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    bench.deliver(manifest)

    again = bench.deliver(manifest)

    assert again.receipt == (12, 0, 0)
    assert seen_once(bench)


def test_an_append_whose_rows_are_there_in_part_is_repaired_by_writing_its_chunks_anew(
    druid: FakeDruid, bench: Bench
) -> None:
    bench.publish(1, [{"id": 100, "at": day(1)}, {"id": 101, "at": day(9)}], mode=WriteMode.APPEND)
    druid.drop_rows_of_next_task(5, is_counted=False)
    manifest = bench.manifest(2, ROWS, mode=WriteMode.APPEND)
    outcome = bench.deliver(manifest)

    again = bench.retry(manifest, outcome)

    assert again.receipt == (12, 0, 0)
    assert bench.ids() == sorted([(1, 100), (1, 101), *((2, int(row["id"])) for row in ROWS)])
    last = bench.tasks()[-1]["spec"]
    assert last["ioConfig"]["dropExisting"] is True
    assert "2026-01-09" not in str(last["dataSchema"]["granularitySpec"]["intervals"])


def test_a_run_without_rows_adds_nothing_and_asks_for_no_task(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, ROWS, mode=WriteMode.APPEND)

    for mode in (WriteMode.APPEND, WriteMode.MERGE):
        assert bench.publish(2, mode=mode).receipt == (0, 0, 0)

    assert len(bench.tasks()) == 1
    assert seen_once(bench)


# an id that is another's


def test_an_id_that_another_task_has_is_waited_for_and_then_left(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, ROWS, mode=WriteMode.APPEND)
    foreign = {**bench.tasks()[0], "context": {"headgate": "of another life"}, "id": "hg.samples.2.102.a1"}
    druid.hold()
    bench.http.post(f"{druid.url}/druid/indexer/v1/task", json=foreign)
    manifest = bench.manifest(2, [{"id": 50, "at": day(20)}], mode=WriteMode.APPEND)

    view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("is_foreign"))).delivery
    for _ in range(3):
        _, view = bench.step(manifest, view)
    begun = len(bench.tasks())
    druid.release()
    druid.await_task("hg.samples.2.102.a1")
    outcome = bench.deliver(manifest, view, goes_on=True)

    assert begun == 2
    assert outcome.error is None, outcome.error
    assert outcome.receipt == (1, 0, 0)
    assert bench.tasks()[-1]["id"] == "hg.samples.2.102.a2"
    assert druid.task_state("hg.samples.2.102.a1") == "SUCCESS"
