"""Our share of a cluster's task slots."""

from typing import Any

import pytest

from ingestion.ports.errors import SinkUnavailable
from sinks.druid.client import DruidClient
from sinks.druid.config import DruidConfig
from sinks.druid.tasks import budget_of, capacity_of, is_ours, wait_for_slot
from tests.fakes.druid import FakeDruid
from tests.sinks.druid.support import Bench, WriteMode, day, http_client


@pytest.mark.parametrize(
    ("workers", "found"),
    [
        ([], (0, 0)),
        ([{"worker": {"capacity": 4}, "currCapacityUsed": 1}], (4, 1)),
        ([{"worker": {"capacity": 4}}, {"worker": {"capacity": 2}, "currCapacityUsed": 2}], (6, 2)),
        ([{"worker": None}, {"currCapacityUsed": None}, {"worker": {}}], (0, 0)),
    ],
)
def test_slots_are_counted_over_all_workers(workers: list[dict[str, Any]], found: tuple[int, int]) -> None:
    assert capacity_of(workers) == found


@pytest.mark.parametrize(("total", "most", "budget"), [(1, None, 1), (2, None, 1), (4, None, 3), (4, 2, 2), (4, 9, 9)])
def test_one_slot_is_left_to_others(total: int, most: int | None, budget: int) -> None:
    assert budget_of(DruidConfig(url="http://druid:8888", max_tasks=most), total) == budget


@pytest.mark.parametrize(
    ("task_id", "ours"),
    [("hg.x.1.1.a1", True), ("query-hg.x.1.1.a1", True), ("index_parallel_x", False), ("query-x", False), ("", False)],
)
def test_our_tasks_are_known_by_their_names(task_id: str, ours: bool) -> None:
    assert is_ours(task_id) is ours


def load(bench: Bench, run_id: int, *, until_submitted: bool = True) -> Any:
    manifest = bench.manifest(run_id, [{"id": run_id, "at": day(run_id)}], mode=WriteMode.APPEND)
    return bench.deliver(manifest, until=lambda view: bool(view.refs.get("submitted_at")) and until_submitted)


def test_a_load_beyond_our_share_waits_and_uses_no_attempt(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    bench.settings["max_tasks"] = 2
    for run_id in (1, 2):
        load(bench, run_id)
    manifest = bench.manifest(3, [{"id": 3, "at": day(3)}], mode=WriteMode.APPEND)
    view = bench.deliver(manifest, until=lambda found: "task" in found.refs).delivery

    with pytest.raises(SinkUnavailable) as raised:
        bench.step(manifest, view)

    assert raised.value.code == "sink.busy"
    assert raised.value.retry_after_s
    assert len(bench.tasks()) == 2


def test_it_goes_on_once_a_task_of_ours_is_over(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    bench.settings["max_tasks"] = 1
    load(bench, 1)
    druid.release()
    druid.await_task("hg.samples.1.101.a1")

    assert load(bench, 2).delivery.refs["submitted_at"]


def test_tasks_of_others_and_the_finished_do_not_count(druid: FakeDruid, bench: Bench) -> None:
    for run_id in range(1, 6):
        load(bench, run_id, until_submitted=False)
    client = DruidClient(DruidConfig(**bench.settings), http_client(), destination="druid")
    druid.hold()
    task = {**bench.tasks()[0], "id": "somebody_else"}
    client.submit(task)

    wait_for_slot(DruidConfig(**bench.settings, max_tasks=1), client, destination="druid")


def test_a_cluster_without_a_worker_is_unavailable_and_says_what_to_start(druid: FakeDruid, bench: Bench) -> None:
    druid.stop_worker()
    client = DruidClient(DruidConfig(**bench.settings), http_client(), destination="druid")

    with pytest.raises(SinkUnavailable) as raised:
        wait_for_slot(DruidConfig(**bench.settings), client, destination="druid")

    assert raised.value.code == "sink.unavailable"
    assert "MiddleManager or an Indexer" in str(raised.value)


def test_a_task_of_ours_that_was_already_taken_does_not_wait_for_its_own_slot(druid: FakeDruid, bench: Bench) -> None:
    druid.hold()
    bench.settings["max_tasks"] = 1
    druid.fail_next("POST /druid/indexer/v1/task", "lost")
    druid.fail_next("GET /druid/indexer/v1/task/*", "unavailable", skip=1)

    outcome = load(bench, 1)

    assert outcome.delivery.refs["submitted_at"]
    assert len(bench.tasks()) == 1
