"""F01-F03, F05: the worker is killed once at every boundary of every stage; the control shows that the checker sees."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ingestion.models import Run, RunState
from ingestion.runs.deliver.cancellation import cancel_run
from ingestion.runs.record.lake import manifest_key, open_lake
from tests.fakes.paged_provider import PagedProvider
from tests.faults.harness import (
    Load,
    boundaries,
    check,
    note,
    orphans,
    resume,
    stopped_processes,
    used,
    used_points,
)
from tests.faults.share import Share
from tests.worker.cluster import Cluster
from tests.worker.material import csv_bytes, upload

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

STAGES = {
    "F01 kill at every boundary of fetch": ("plan.", "fetch."),
    "F02 kill at every boundary of validate": ("validate.",),
    "F03 kill at every boundary of deliver": ("deliver.", "lake.", "objects.", "catalog.", "load."),
    "F05 kill at every boundary of finalize": ("complete.", "deduplicate.", "publish.", "dispatch."),
}


def boundary_class(at: str) -> str:
    """Return the first word of a boundary: the stage, or what it goes through."""
    return at.partition(".")[0]


@pytest.fixture(scope="module")
def recorded() -> dict[str, list[str]]:
    """The boundaries that the load crosses when nothing goes wrong, once recorded."""
    return {}


def dry_run(make_load: Callable[..., Load], folder: Path, recorded: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the boundaries of every stage, from one run under which nothing is killed."""
    if not recorded:
        load = make_load(failpoints={"dir": str(folder), "record": True})
        load.cluster.start_worker(beat=True)
        load.start()
        load.wait()
        check(load.cluster, load.runs, load.expected)
        load.cluster.kill_workers()
        recorded.update({fault: boundaries(folder, of=points) for fault, points in STAGES.items()})
    return recorded


@pytest.mark.parametrize("fault", STAGES)
def test_a_kill_at_every_boundary_loses_and_doubles_nothing(  # noqa: PLR0917 (fixtures)
    fault: str,
    make_load: Callable[..., Load],
    provider: PagedProvider,
    tmp_path: Path,
    recorded: dict[str, list[str]],
    share: Share,
) -> None:
    crossed = dry_run(make_load, tmp_path / "dry", recorded)[fault]
    found = share.choose(fault, crossed, kind=boundary_class)
    assert found
    assert {boundary_class(at) for at in found} == {boundary_class(at) for at in crossed}
    points = {at.partition("#")[0] for at in found}
    killed: set[str] = set()
    # A kill behind the last commit of a stage takes the boundaries after it away; they get a load of their own.
    for number in range(3):
        folder = tmp_path / f"kills{number}"
        rules = [{"at": at, "do": "kill"} for at in found if at.partition("#")[0] not in killed]
        kills = _kill_at(rules, make_load, provider, folder, fault=fault)
        killed |= used_points(folder)
        if killed == points:
            return
        assert kills, f"never reached: {points - killed}"
    pytest.fail(f"never reached: {points - killed}")


def _kill_at(
    rules: list[dict[str, str]], make_load: Callable[..., Load], provider: PagedProvider, folder: Path, *, fault: str
) -> int:
    """Run the load with a kill at each of these boundaries, check the outcome, and return how many there were."""
    provider.reset()
    started = time.monotonic()
    load = make_load(failpoints={"dir": str(folder), "rules": rules})
    load.cluster.start_worker(beat=True)
    load.cluster.start_worker()
    load.start()
    load.wait(patience_s=400)
    rows = check(load.cluster, load.runs, load.expected)
    kills = used(folder)
    note(fault, load.cluster, injections=kills, rows=rows, started=started)
    load.cluster.kill_workers()
    assert sum(provider.requests.values()) <= provider.pages + kills
    if fault.startswith(("F02", "F05")):
        assert sum(provider.requests.values()) == provider.pages, "raw data were fetched again"
    return kills


def test_the_checker_sees_what_happens_without_fixed_keys(make_load: Callable[..., Load], tmp_path: Path) -> None:
    """The control: work that is done twice under random keys leaves two objects, and the bar is missed."""
    rules = [{"at": f"validate.after_put_clean#{n}", "do": "kill"} for n in (1, 2)]
    load = make_load(failpoints={"dir": str(tmp_path / "f"), "rules": rules, "switches": ["random_keys"]})
    load.cluster.start_worker(beat=True)
    started = time.monotonic()
    load.start()
    load.wait()

    with pytest.raises(AssertionError, match="two names"):
        check(load.cluster, load.runs, load.expected)

    doubled = sum(len(orphans(run)) for run in load.runs)
    note(
        "control: random keys (objects, must double)", load.cluster, injections=2, rows=(0, 0, doubled), started=started
    )


def test_the_checker_sees_what_happens_without_fences(make_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """The control: without fences a worker that was asleep publishes a run that was cancelled meanwhile."""
    points = {
        "dir": str(tmp_path / "f"),
        "rules": [{"at": "complete.deduplicated#1", "do": "stop"}],
        "switches": ["unfenced"],
    }
    cluster = make_cluster(HEADGATE_FAILPOINTS=json.dumps(points))
    worker = cluster.start_worker(beat=True)
    started = time.monotonic()
    run = upload(csv_bytes(20))
    cluster.wait(lambda: bool(stopped_processes(worker.pid)), what="the sleep of the worker")

    cancel_run(run.pk)
    resume(stopped_processes(worker.pid))

    cluster.wait(lambda: Run.objects.get(pk=run.pk).state == RunState.SUCCEEDED, what="the wrong publication")
    assert open_lake().head(manifest_key(run)) is not None
    note("control: no fence (a cancelled run, must publish)", cluster, injections=1, rows=(0, 20, 0), started=started)
