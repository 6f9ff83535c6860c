"""F01-F03, F05: the worker is killed once at every boundary of every stage; the control shows that the checker sees."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ingestion.models import Run
from tests.fakes.paged_provider import PagedProvider
from tests.faults.harness import (
    Load,
    boundaries,
    check,
    every,
    note,
    resume,
    stopped_processes,
    used,
    used_points,
    wait_for_end,
)
from tests.worker.material import published_ids

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

STAGES = {
    "F01 kill at every boundary of fetch": ("plan.", "fetch."),
    "F02 kill at every boundary of validate": ("validate.",),
    "F03 kill at every boundary of deliver": ("deliver.", "lake.", "objects.", "catalog.", "load."),
    "F05 kill at every boundary of finalize": ("complete.", "settle.", "publish.", "dispatch."),
}


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
def test_a_kill_at_every_boundary_loses_and_doubles_nothing(
    fault: str,
    make_load: Callable[..., Load],
    provider: PagedProvider,
    tmp_path: Path,
    recorded: dict[str, list[str]],
) -> None:
    found = dry_run(make_load, tmp_path / "dry", recorded)[fault]
    assert found
    provider.reset()
    started = time.monotonic()
    rules = [{"at": at, "do": "kill"} for at in found]
    load = make_load(failpoints={"dir": str(tmp_path / "kills"), "rules": rules})
    load.cluster.start_worker(beat=True)
    load.cluster.start_worker()

    load.start()
    load.wait(patience_s=400)

    rows = check(load.cluster, load.runs, load.expected)
    kills = used(tmp_path / "kills")
    note(fault, load.cluster, injections=kills, rows=rows, started=started)
    # A kill behind the last commit of a stage takes the boundaries after it away, so not every number comes again.
    assert used_points(tmp_path / "kills") == {at.partition("#")[0] for at in found}
    assert sum(provider.requests.values()) <= provider.pages + kills
    if "fetch" not in fault and "plan" not in fault:
        assert sum(provider.requests.values()) == provider.pages, "raw data were fetched again"


def test_the_checker_sees_what_happens_without_fencing_and_fixed_keys(
    make_load: Callable[..., Load], tmp_path: Path
) -> None:
    """The control: zombies that write without a fence, under random keys; the bar must be missed."""
    rules = [
        {"at": f"{point}#{n}", "do": "stop"} for point in ("validate.before_commit", "fetch.after_put") for n in (1, 2)
    ]
    points = {"dir": str(tmp_path / "zombies"), "rules": rules, "switches": ["unfenced", "random_keys"]}
    load = make_load(failpoints=points)
    first, second = load.cluster.start_worker(beat=True), load.cluster.start_worker()
    started = time.monotonic()
    load.start()

    seen: set[int] = set()

    def wake_late() -> bool:
        for parent in (first.pid, second.pid):
            held = stopped_processes(parent)
            if held and time.monotonic() - started > 6:
                seen.update(held)
                resume(held)
        for run in load.runs:
            run.refresh_from_db()
        return all(run.is_terminal for run in load.runs) and time.monotonic() - started > 8

    every(wake_late, patience_s=90)
    try:
        wait_for_end(load.cluster, load.runs, patience_s=10)
        rows = check(load.cluster, load.runs, load.expected)
    except (AssertionError, pytest.fail.Exception):
        broken = True
        rows = _count(load.runs, load.expected)
    else:
        broken = False
    note("control: no fence, random keys (must miss)", load.cluster, injections=len(seen), rows=rows, started=started)
    assert broken, json.dumps(rules)


def _count(runs: list[Run], expected: list[list[object]]) -> tuple[int, int, int]:
    found: list[object] = []
    for run in runs:
        run.refresh_from_db()
        if run.manifest_key:
            found += published_ids(run)
    return sum(map(len, expected)), len(set(found)), len(found) - len(set(found))
