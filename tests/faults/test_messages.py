"""F37-F39, F44: messages twice, late and in any order; two beats; a cancel at every boundary."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import OperationalError, connection

from ingestion.models import CatalogRecord, Delivery, Run, RunState, Schedule
from ingestion.ports.errors import Refused
from ingestion.runs.deliver.cancellation import cancel_run
from ingestion.runs.record.lake import manifest_key, open_lake
from tests.faults.harness import (
    Load,
    boundaries,
    check,
    every,
    note,
    resume,
    stopped_processes,
    used,
    wait_for_end,
)
from tests.faults.share import Share
from tests.worker.cluster import Cluster
from tests.worker.material import catalog_ids, csv_bytes, fingerprint, upload

pytestmark = [pytest.mark.faults, pytest.mark.timeout(500)]


@pytest.mark.parametrize("habit", ["twice", "late"])
def test_f37_f38_messages_twice_late_and_out_of_order_change_nothing(
    habit: str, make_load: Callable[..., Load]
) -> None:
    calm = make_load()
    calm.cluster.start_worker(beat=True)
    calm.start()
    calm.wait()
    expected = [fingerprint(run) for run in calm.runs]
    calm.cluster.kill_workers()
    started = time.monotonic()
    load = make_load()
    for _ in range(2):
        load.cluster.start_worker(beat=True, app="tests.faults.doubling", DOUBLING=habit)

    load.start()
    load.wait()
    every(lambda: load.cluster.queued() == 0, patience_s=60)

    rows = check(load.cluster, load.runs, load.expected)
    name = "F37 every task delivered twice" if habit == "twice" else "F38 every task late and out of order"
    note(name, load.cluster, injections=load.cluster.logs().count("doubled "), rows=rows, started=started)
    assert [fingerprint(run) for run in load.runs] == expected, "the published parts hold other bytes"


def test_f39_two_beats_make_one_run_per_slot(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    first = upload(csv_bytes(20))
    cluster.start_worker(concurrency=2)
    schedule = Schedule.objects.create(pipeline=first.pipeline, interval_s=10, missed_policy="run_all")
    started = time.monotonic()

    for _ in range(2):
        cluster.start_beat()
    cluster.wait(lambda: Run.objects.exclude(slot=None).count() >= 2, what="two slots")
    time.sleep(max(0.0, 20 - (time.monotonic() - started)))  # the twenty seconds that the fault lasts

    slots = list(Run.objects.exclude(slot=None).order_by("slot").values_list("slot", flat=True))
    schedule.refresh_from_db()
    note("F39 two beats for 20 s", cluster, injections=2, rows=(len(slots), len(set(slots)), 0), started=started)
    assert len(set(slots)) == len(slots) == schedule.runs_created
    assert all((b - a).total_seconds() == 10 for a, b in zip(slots, slots[1:], strict=False))


def test_f44_a_cancel_at_every_boundary_publishes_nothing(
    make_cluster: Callable[..., Cluster], tmp_path: Path, share: Share
) -> None:
    found = list(dict.fromkeys(at.partition("#")[0] for at in _boundaries_of_an_upload(make_cluster, tmp_path / "dry")))
    points = share.choose("F44", found, kind=lambda at: at.partition(".")[0])
    # The n-th run is stopped at the n-th point.
    rules = [{"at": f"{at}#{number}", "do": "stop"} for number, at in enumerate(points, start=1)]
    armed = {"dir": str(tmp_path / "f"), "rules": rules}
    # A lease that outlasts the stop: who is paused past it in the middle of an outside write is F08's matter.
    cluster = make_cluster(HEADGATE_FAILPOINTS=json.dumps(armed), HEADGATE_STALL_S="30", HEADGATE_LEASE_S="4")
    worker = cluster.start_worker(beat=True, concurrency=3)
    started = time.monotonic()
    cancelled = 0
    for number in range(len(rules)):
        if used(tmp_path / "f") == len(rules):
            break
        before = used(tmp_path / "f")
        run = upload(csv_bytes(20), name=f"c{number}.csv", datasource_name=f"c{number}", contract=None)
        cluster.wait(
            lambda before=before, run=run: used(tmp_path / "f") > before or _ended(run),  # type: ignore[misc]
            what="a boundary",
        )
        cancelled += _cancel_while_stopped(worker.pid, run)
        wait_for_end(cluster, [run], patience_s=60)
        _assert_published_or_nothing(cluster, run)

    note("F44 cancel at every boundary", cluster, injections=used(tmp_path / "f"), rows=(0, 0, 0), started=started)
    assert cancelled > len(rules) // 2


def _boundaries_of_an_upload(make_cluster: Callable[..., Cluster], folder: Path) -> list[str]:
    cluster = make_cluster(HEADGATE_FAILPOINTS=json.dumps({"dir": str(folder), "record": True}))
    cluster.start_worker(beat=True)
    run = upload(csv_bytes(20))
    wait_for_end(cluster, [run])
    check(cluster, [run], [list(range(20))])
    cluster.kill_workers()
    return boundaries(
        folder,
        of=("plan.", "fetch.", "validate.", "complete.", "deliver.", "load.", "publish.", "objects.", "catalog."),
    )


def _ended(run: Run) -> bool:
    run.refresh_from_db()
    return run.is_terminal


def _cancel_while_stopped(worker_pid: int, run: Run) -> bool:
    """Cancel the run while its worker stands still at the boundary; return whether the cancel was taken."""
    result: list[bool] = []

    def cancel() -> None:
        try:
            for _ in range(100):
                try:
                    cancel_run(run.pk)
                except OperationalError:  # SQLite: the stopped process holds the write lock
                    continue
                else:
                    result.append(True)
                    return
        except Refused:
            result.append(False)
        finally:
            connection.close()

    thread = threading.Thread(target=cancel)
    thread.start()
    thread.join(1.0)
    every(lambda: bool(stopped_processes(worker_pid)) or run.is_terminal, patience_s=1)
    resume(stopped_processes(worker_pid))
    thread.join(30)
    return bool(result and result[0])


def _assert_published_or_nothing(cluster: Cluster, run: Run) -> None:
    run.refresh_from_db()
    if run.state == RunState.SUCCEEDED:
        check(cluster, [run], [list(range(20))])
        return
    assert run.state == RunState.CANCELLED, (run.state, run.code, run.message)
    cluster.wait(lambda: not Delivery.objects.filter(run=run, needs_abort=True).exists(), what="the abort")
    run.refresh_from_db()
    assert open_lake().head(manifest_key(run)) is None
    committed = "had taken its rows" in run.message and "catalog" in run.message
    if not committed:
        assert catalog_ids(run.pipeline) == []
        assert not CatalogRecord.objects.filter(run_id=run.pk).exists()
    manifest = Path(f"{cluster.folder / 'lake'}-published") / run.pipeline.name / "manifests" / f"{run.pk:08d}.json"
    if "lake" not in run.message:
        assert not manifest.exists()
