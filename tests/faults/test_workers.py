"""F06-F09, F12, F14, F41: workers, broker and database go away and come back."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ingestion.models import Partition, Run, RunEvent, RunState
from tests.faults.harness import (
    FILE_IDS,
    Load,
    check,
    every,
    note,
    resume,
    stopped_processes,
    used,
    wait_for_end,
)
from tests.faults.share import Share
from tests.servers import ROOT, Postgres, Valkey
from tests.worker.cluster import Cluster
from tests.worker.material import csv_bytes, upload

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


def rule(folder: Path, **points: str) -> dict[str, object]:
    """Return failpoints that act at the first hit of each point (dots written as two underscores)."""
    rules = [{"at": f"{point.replace('__', '.')}#1", "do": action} for point, action in points.items()]
    return {"dir": str(folder), "rules": rules}


def test_f06_a_killed_worker_host_is_replaced_within_the_lease(make_load: Callable[..., Load], tmp_path: Path) -> None:
    load = make_load(failpoints=rule(tmp_path / "f", validate__before_put="sleep:60"))
    first = load.cluster.start_worker(beat=True)
    load.start()
    load.cluster.wait(lambda: used(tmp_path / "f") == 1, what="the first validation")
    load.cluster.start_worker(beat=True)
    started = time.monotonic()

    load.cluster.kill_worker(first)
    load.wait(patience_s=60)

    rows = check(load.cluster, load.runs, load.expected)
    note("F06 kill -9 of a worker with its children", load.cluster, injections=1, rows=rows, started=started)
    assert time.monotonic() - started < 31 + 30, "the visibility timeout was waited for"


def test_f07_a_deploy_loses_nothing_and_fails_nothing(make_load: Callable[..., Load], tmp_path: Path) -> None:
    load = make_load(failpoints=rule(tmp_path / "f", fetch__after_put="sleep:10"))
    first = load.cluster.start_worker(beat=True)
    load.start()
    load.cluster.wait(lambda: used(tmp_path / "f") == 1, what="the slow step")
    started = time.monotonic()

    first.send_signal(signal.SIGTERM)
    code = first.wait(60)
    load.cluster.start_worker(beat=True)
    load.wait()

    rows = check(load.cluster, load.runs, load.expected)
    note("F07 SIGTERM while a step of 10 s runs", load.cluster, injections=1, rows=rows, started=started)
    assert code == 0
    assert not RunEvent.objects.filter(level="error").exists()


def test_f08_an_owner_that_was_paused_past_its_lease_writes_nothing(
    make_load: Callable[..., Load], tmp_path: Path
) -> None:
    points = {"validate__before_put": "stop", "fetch__after_put": "stop", "deliver__staged": "stop"}
    load = make_load(failpoints=rule(tmp_path / "f", **points))
    workers = [load.cluster.start_worker(beat=True), load.cluster.start_worker(), load.cluster.start_worker()]
    started = time.monotonic()
    load.start()
    load.wait()
    before = list(Partition.objects.order_by("pk").values())

    paused = [pid for worker in workers for pid in stopped_processes(worker.pid)]
    resume(paused)
    refused = every(lambda: load.cluster.logs().count("was stopped") >= len(paused), patience_s=30)

    rows = check(load.cluster, load.runs, load.expected)
    note(
        "F08 paused for more than the lease, then awake",
        load.cluster,
        injections=len(paused),
        rows=rows,
        started=started,
    )
    assert len(paused) == 3
    assert refused, load.cluster.logs()[-3000:]
    assert list(Partition.objects.order_by("pk").values()) == before


def test_f09_a_flushed_broker_loses_no_queued_run(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(HEADGATE_MAX_ACTIVE_RUNS="5")
    cluster.start_worker(beat=True, concurrency=3)
    started = time.monotonic()
    runs = [upload(csv_bytes(60, bad_every=20), name=f"s{n}.csv", datasource_name=f"s{n}") for n in range(20)]
    cluster.wait(lambda: Run.objects.filter(state=RunState.SUCCEEDED).count() >= 2, what="the first runs")

    cluster.flush_redis()
    wait_for_end(cluster, runs, patience_s=180)

    rows = check(cluster, runs, [FILE_IDS] * 20)
    note("F09 FLUSHALL with 20 runs queued", cluster, injections=1, rows=rows, started=started)


@pytest.mark.postgres
def test_f12_an_immediate_restart_of_postgresql_fails_no_run(
    request: pytest.FixtureRequest, make_cluster: Callable[..., Cluster], share: Share
) -> None:
    if request.config.getoption("--database") != "postgres":
        pytest.skip("it is the PostgreSQL server that restarts")
    server: Postgres = request.getfixturevalue("postgres")
    cluster = make_cluster(HEADGATE_MAX_ACTIVE_RUNS="10", HEADGATE_RESEND_AFTER_S="10", HEADGATE_RECONCILE_S="1")
    runs = [
        upload(csv_bytes(60, bad_every=20), name=f"s{n}.csv", datasource_name=f"s{n}")
        for n in range(share.times(150, least=40))
    ]
    # As in the product, so that planning many runs does not keep the data waiting.
    cluster.start_worker(queues="system,load,plan,notify", beat=True, concurrency=2)
    cluster.start_worker(queues="deliver,validate,fetch", concurrency=3)
    started = time.monotonic()
    restarts = share.times(8, least=3)
    for _ in range(restarts):
        time.sleep(2)  # the schedule of the fault itself
        server.stop(signal.SIGQUIT)
        server.start()
    from django.db import connections

    connections.close_all()

    wait_for_end(cluster, runs, patience_s=300)

    rows = check(cluster, runs, [FILE_IDS] * len(runs))
    note(
        f"F12 immediate restart of PostgreSQL, {len(runs)} runs",
        cluster,
        injections=restarts,
        rows=rows,
        started=started,
    )


def test_f14_two_finalizers_and_two_reconcilers_end_one_run_once(
    make_load: Callable[..., Load], tmp_path: Path
) -> None:
    load = make_load(HEADGATE_SWITCH_OFF="reconciler")
    worker = load.cluster.start_worker(queues="plan,fetch,validate")
    load.start()
    load.cluster.wait(
        lambda: Run.objects.exclude(state__in=(RunState.DELIVERING, RunState.PUBLISHING)).count() == 0,
        what="the partitions",
    )
    load.cluster.kill_worker(worker)
    Run.objects.update(state=RunState.RUNNING, lease_until=None, attempt=0)
    started = time.monotonic()
    script = (
        "import django; django.setup()\n"
        "from ingestion.runs.ingest import completion\n"
        "from ingestion.runs.operate import reconcile\n"
        "from ingestion.models import Run\n"
        "for _ in range(5):\n"
        "    for pk in Run.objects.values_list('pk', flat=True): completion.complete_run(pk)\n"
        "    reconcile.reconcile()\n"
    )
    contenders = [
        subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=load.cluster.environment()) for _ in range(4)
    ]
    codes = [contender.wait(90) for contender in contenders]
    load.cluster.start_worker(beat=True, HEADGATE_SWITCH_OFF="")
    load.wait()

    rows = check(load.cluster, load.runs, load.expected)
    note("F14 two finalizers, two reconcilers", load.cluster, injections=4, rows=rows, started=started)
    assert codes == [0, 0, 0, 0]
    assert RunEvent.objects.filter(kind="run.published").count() == 2


def test_f41_flushed_results_of_a_chord_are_made_good(make_load: Callable[..., Load], tmp_path: Path) -> None:
    load = make_load(
        failpoints=rule(tmp_path / "f", validate__before_put="sleep:2"), HEADGATE_SWITCH_OFF="last_partition_check"
    )
    load.cluster.start_worker(beat=True)
    started = time.monotonic()
    load.start()
    load.cluster.wait(lambda: used(tmp_path / "f") == 1, what="the header")

    load.cluster.flush_redis(1)
    load.wait(patience_s=60)

    rows = check(load.cluster, load.runs, load.expected)
    note("F41 results flushed while headers run", load.cluster, injections=1, rows=rows, started=started)
    assert RunEvent.objects.filter(kind="run.completed").count() == 2


def test_the_broker_may_be_away_for_a_while(make_load: Callable[..., Load], own_valkey: Valkey) -> None:
    load = make_load()
    load.cluster.start_worker(beat=True)
    started = time.monotonic()
    own_valkey.stop()

    load.start()
    time.sleep(5)  # the five seconds that the fault lasts
    own_valkey.start()
    load.wait()

    rows = check(load.cluster, load.runs, load.expected)
    note("the broker is away for 5 s", load.cluster, injections=1, rows=rows, started=started)
