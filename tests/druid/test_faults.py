"""F04 and its kin: what is killed, stopped or delivered twice on the way into a real Druid leaves one task's worth of rows."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ingestion.models import Delivery, Destination, Pipeline, Run, RunState
from ingestion.runs.deliver.cancellation import cancel_run
from ingestion.runs.start import contracts, pipelines
from tests.druid_server import Druid
from tests.faults.harness import boundaries, note, used, used_points
from tests.servers import wait_until
from tests.worker.cluster import Cluster
from tests.worker.material import csv_bytes, upload

pytestmark = [pytest.mark.druid, pytest.mark.timeout(600)]

Make = Callable[..., Cluster]
POINTS = ("deliver.", "load.", "druid.")
COLUMNS = [{"name": "id", "type": "integer", "nullable": False}, {"name": "energy", "type": "number"}]
LOADS: Sequence[tuple[str, str, list[str], int, int]] = (
    # pipeline, mode, key, first id, rows
    ("added", Pipeline.Mode.INCREMENTAL, [], 0, 60),
    ("added", Pipeline.Mode.INCREMENTAL, [], 60, 60),
    ("merged", Pipeline.Mode.INCREMENTAL, ["id"], 0, 60),
    ("merged", Pipeline.Mode.INCREMENTAL, ["id"], 30, 60),
    ("refreshed", Pipeline.Mode.FULL_REFRESH, [], 0, 60),
)
EXPECTED = {"added": list(range(120)), "merged": list(range(90)), "refreshed": list(range(60))}


@pytest.fixture
def make_druid_cluster(make_cluster: Make, druid: Druid) -> Make:
    """Return a maker of clusters whose one destination is the running Druid."""
    druid.ensure_running()

    def make(*, failpoints: dict[str, object] | None = None, **changes: str) -> Cluster:
        armed = {"HEADGATE_FAILPOINTS": json.dumps(failpoints)} if failpoints else {}
        ports = ",".join(str(port) for port in druid.state.druid_ports.values())
        return make_cluster(HEADGATE_PARTITION_BYTES="700", HEADGATE_EGRESS_PORTS=ports, **armed, **changes)

    return make


def target(druid: Druid, *, prefix: str) -> Destination:
    """Return the destination; `prefix` gives this test's datasources names of their own."""
    config = {**druid.config(), "datasource": f"{prefix}_{{pipeline}}"}
    destination, _ = Destination.objects.get_or_create(name="druid", defaults={"kind": "druid", "config": config})
    return destination


def start(destination: Destination, load: tuple[str, str, list[str], int, int]) -> Run:
    name, mode, key, first, rows = load
    body = {"name": name, "key": key, "columns": COLUMNS}
    pipeline = Pipeline.objects.filter(name=name).first()
    if pipeline is None:
        pipeline = Pipeline.objects.create(
            name=name,
            source=pipelines.upload_source(),
            stream="rows",
            mode=mode,
            contract=contracts.save_contract(body),
        )
        pipeline.destinations.set([destination])
    run: Run = upload(csv_bytes(rows, first=first), contract=body, datasource_name=name)
    Run.objects.filter(pk=run.pk).update(mode=mode)
    return run


def wait_for(cluster: Cluster, run: Run, *, patience_s: float = 240) -> None:
    def ended() -> bool:
        run.refresh_from_db()
        return run.is_terminal

    cluster.wait(ended, what=f"the end of {run}", patience_s=patience_s)


def carry(cluster: Cluster, destination: Destination) -> list[Run]:
    """Run every load to its end, one after the other, and return the runs."""
    runs = []
    for load in LOADS:
        run = start(destination, load)
        wait_for(cluster, run)
        runs.append(run)
    return runs


def ids(druid: Druid, datasource: str) -> list[int]:
    return [int(row["id"]) for row in druid.query(f'SELECT "id", __time FROM "{datasource}"')]  # noqa: S608


def check(cluster: Cluster, druid: Druid, runs: Sequence[Run], *, prefix: str) -> tuple[int, int, int]:
    """Assert that each datasource shows what was accepted, every row once; return rows expected, found and doubled."""
    for run in runs:
        delivery = Delivery.objects.get(run=run)
        assert (run.state, delivery.state) == (RunState.SUCCEEDED, "verified"), (
            f"{delivery.message}\n{cluster.logs()[-6000:]}"
        )
    found = {name: Counter(ids(druid, f"{prefix}_{name}")) for name in EXPECTED}
    for name, expected in EXPECTED.items():
        assert sorted(found[name]) == expected, name
    doubled = sum(count - 1 for counts in found.values() for count in counts.values())
    assert doubled == 0
    return sum(map(len, EXPECTED.values())), sum(map(len, found.values())), doubled


def tasks_of(druid: Druid, prefix: str) -> list[dict[str, Any]]:
    import httpx

    found: list[dict[str, Any]] = httpx.get(f"{druid.overlord_url}/druid/indexer/v1/tasks?max=500", timeout=30).json()
    return [task for task in found if str(task["dataSource"]).startswith(f"{prefix}_")]


def test_f04_a_kill_at_every_boundary_of_the_delivery_leaves_one_tasks_worth_of_rows(
    make_druid_cluster: Make, druid: Druid, tmp_path: Path
) -> None:
    dry = make_druid_cluster(failpoints={"dir": str(tmp_path / "dry"), "record": True})
    dry.start_worker(beat=True)
    check(dry, druid, carry(dry, target(druid, prefix="dry")), prefix="dry")
    dry.kill_workers()
    found = boundaries(tmp_path / "dry", of=POINTS)
    assert found
    points = {at.partition("#")[0] for at in found}
    killed: set[str] = set()
    # A kill behind a last commit takes the boundaries after it away; they get a load of their own.
    for number in range(3):
        folder, prefix = tmp_path / f"kills{number}", f"kills{number}"
        rules = [{"at": at, "do": "kill"} for at in found if at.partition("#")[0] not in killed]
        started = time.monotonic()
        cluster = make_druid_cluster(failpoints={"dir": str(folder), "rules": rules})
        cluster.start_worker(beat=True)
        cluster.start_worker()
        rows = check(cluster, druid, carry(cluster, target(druid, prefix=prefix)), prefix=prefix)
        cluster.kill_workers()
        note(
            "F04 kill at every boundary of the Druid delivery",
            cluster,
            injections=used(folder),
            rows=rows,
            started=started,
        )
        killed |= used_points(folder)
        if killed == points:
            return
    pytest.fail(f"never reached: {points - killed}")


def test_a_druid_that_was_away_in_the_middle_ends_verified(make_druid_cluster: Make, druid: Druid) -> None:
    cluster = make_druid_cluster(HEADGATE_MAX_ATTEMPTS="200")
    cluster.start_worker(beat=True)
    destination = target(druid, prefix="away")
    started = time.monotonic()
    runs = [start(destination, load) for load in LOADS[:1]]
    cluster.wait(lambda: bool(Delivery.objects.filter(state="submitted")), what="a submitted task")

    druid.stop()
    druid.start()
    for run in runs:
        wait_for(cluster, run)

    (delivery,) = Delivery.objects.all()
    assert (delivery.state, delivery.counted) == ("verified", 60), delivery.message
    assert sorted(ids(druid, "away_added")) == list(range(60))
    note("Druid stopped and started in the middle", cluster, injections=1, rows=(60, 60, 0), started=started)


def test_a_cancel_stops_the_task_and_gives_the_turn_back(make_druid_cluster: Make, druid: Druid) -> None:
    cluster = make_druid_cluster()
    cluster.start_worker(beat=True)
    destination = target(druid, prefix="cancelled")
    blocker = _hold_the_datasource(druid, "cancelled_added")
    run = start(destination, LOADS[0])
    cluster.wait(lambda: bool(Delivery.objects.filter(state="submitted")), what="a submitted task")
    task_id = Delivery.objects.get().refs["task"]

    cancel_run(run.pk)

    def is_stopped() -> bool:
        return any(task["id"] == task_id and task["statusCode"] == "FAILED" for task in tasks_of(druid, "cancelled"))

    wait_until(is_stopped, what="the end of the task")
    cluster.wait(lambda: Delivery.objects.get().lock is None, what="the lock to be given back")
    assert Delivery.objects.get().needs_abort is False
    _stop(druid, blocker)
    again = start(destination, ("added", Pipeline.Mode.INCREMENTAL, [], 100, 20))
    wait_for(cluster, again)
    assert sorted(ids(druid, "cancelled_added")) == list(range(100, 120))


def _hold_the_datasource(druid: Druid, datasource: str) -> str:
    """Return a task that holds the datasource's chunks as long as it waits for an address that never answers."""
    return druid.submit(
        {
            "type": "index_parallel",
            "id": f"holding-{datasource}",
            "context": {"forceTimeChunkLock": True, "priority": 90},
            "spec": {
                "dataSchema": {
                    "dataSource": datasource,
                    "timestampSpec": {"column": "t", "format": "iso"},
                    "dimensionsSpec": {"dimensions": ["x"]},
                    "granularitySpec": {
                        "segmentGranularity": "YEAR", "rollup": False, "intervals": ["2020-01-01/2040-01-01"],
                    },
                },
                "ioConfig": {
                    "type": "index_parallel",
                    "inputSource": {"type": "http", "uris": ["http://127.0.0.1:1/never.json"]},
                    "inputFormat": {"type": "json"},
                },
                "tuningConfig": {"type": "index_parallel"},
            },
        }
    )  # fmt: skip


def _stop(druid: Druid, task_id: str) -> None:
    import httpx

    httpx.post(f"{druid.overlord_url}/druid/indexer/v1/task/{task_id}/shutdown", timeout=30)
    druid.wait_for(task_id)
