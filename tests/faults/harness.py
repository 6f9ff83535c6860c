"""Ground of every fault test: a load with known books, the boundaries it crosses, and the checker of the outcome."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingestion.models import Part, Pipeline, Run, RunState, Source
from ingestion.runs.operate import reconcile
from ingestion.runs.read.progress import is_balanced
from ingestion.runs.record.lake import open_lake
from ingestion.runs.start import contracts, pipelines
from ingestion.runs.start.creation import create_run
from tests.fakes.paged_provider import PagedProvider
from tests.worker.cluster import Cluster
from tests.worker.material import catalog_ids, csv_bytes, delivered_ids, published_ids, upload

FILE_ROWS = 60
BAD_EVERY = 20
FILE_IDS = [number for number in range(FILE_ROWS) if number % BAD_EVERY]
API_CONTRACT = {"name": "structures", "key": ["id"], "columns": [{"name": "id", "type": "string", "nullable": False}]}


@dataclass
class Line:
    """One line of the printed table."""

    fault: str
    database: str
    injections: int
    expected: int
    found: int
    doubled: int
    seconds: float


TABLE: list[Line] = []


@dataclass
class Load:
    """One file of two partitions and one API pull of three pages, started together."""

    cluster: Cluster
    provider: PagedProvider
    runs: list[Run] = field(default_factory=list)

    def start(self) -> None:
        """Create both runs."""
        self.runs = [upload(csv_bytes(FILE_ROWS, bad_every=BAD_EVERY)), pull(self.provider)]

    def wait(self, *, patience_s: float = 120) -> None:
        """Return when both runs have ended."""
        wait_for_end(self.cluster, self.runs, patience_s=patience_s)

    @property
    def expected(self) -> list[list[object]]:
        """Return the ids that each run must publish, in order."""
        return [list(FILE_IDS), list(self.provider.ids)]


def pull(provider: PagedProvider, *, name: str = "structures", priority: int | None = None) -> Run:
    """Return a new run that pulls all of the provider."""
    pipeline = Pipeline.objects.filter(name=name).first()
    if pipeline is None:
        source = Source.objects.create(
            name=name, kind="optimade", config={"base_url": provider.url, "page_limit": provider.per_page}
        )
        pipeline = Pipeline.objects.create(
            name=name, source=source, stream="structures", contract=contracts.save_contract(API_CONTRACT)
        )
        pipeline.destinations.set(pipelines.default_destinations())
    run, _ = create_run(pipeline, trigger=Run.Trigger.API, priority=priority)
    return run


def wait_for_end(cluster: Cluster, runs: Sequence[Run], *, patience_s: float = 120) -> None:
    """Return when all the runs have ended."""

    def ended() -> bool:
        for run in runs:
            run.refresh_from_db()
        return all(run.is_terminal for run in runs)

    cluster.wait(ended, what="the end of the runs", patience_s=patience_s)


def boundaries(folder: Path, *, of: Iterable[str] = ()) -> list[str]:
    """Return the boundaries that a dry run crossed, as `<point>#<n>`, of points that begin with one of `of`."""
    prefixes = tuple(of)
    counts: Counter[str] = Counter()
    found = []
    for name in (folder / "hits").read_text().split():
        counts[name] += 1
        if name.startswith(prefixes):
            found.append(f"{name}#{counts[name]}")
    return found


def used(folder: Path) -> int:
    """Return how many rules have acted."""
    return len(list(folder.glob("used-*"))) if folder.is_dir() else 0


def used_points(folder: Path) -> set[str]:
    """Return the points at which a rule has acted."""
    return {path.name.removeprefix("used-").partition("#")[0] for path in folder.glob("used-*")}


def check(cluster: Cluster, runs: Sequence[Run], expected: Sequence[Sequence[object]]) -> tuple[int, int, int]:
    """Assert the common bar of all faults and return rows expected, found and doubled.

    (1) the published set is the one served, (2) no id twice, (3) a terminal state, (4) balanced books, (5) every
    object that a row names is there, (6) the destinations show the same, (7) a second reconciliation finds nothing,
    (8) work done twice left one object: no clean or rejected object without a row.
    """
    rows = found = doubled = 0
    for run, ids in zip(runs, expected, strict=True):
        run.refresh_from_db()
        assert run.state == RunState.SUCCEEDED, f"{run}: {run.state} {run.code} {run.message}\n{cluster.logs()[-4000:]}"
        assert is_balanced(run)
        published = published_ids(run)
        seen = Counter(published)
        rows, found = rows + len(ids), found + len(seen)
        doubled += sum(count - 1 for count in seen.values())
        assert published == list(ids)
        assert delivered_ids(cluster.folder / "lake", run) == list(ids)
        assert sorted(catalog_ids(run.pipeline)) == sorted(ids)  # type: ignore[type-var]
        for key in Part.objects.filter(run=run).values_list("key", flat=True):
            assert open_lake().head(key) is not None
        assert orphans(run) == set(), "the same work was stored under two names"
    reconcile.reconcile()
    assert reconcile.reconcile() == []
    return rows, found, doubled


def orphans(run: Run) -> set[str]:
    """Return the clean and rejected objects of the run that no row names."""
    rows = Part.objects.filter(run=run).values_list("key", "hashes_key")
    named = {key for pair in rows for key in pair}
    zones = (Part.Zone.CLEAN, Part.Zone.REJECTED)
    return {info.key for zone in zones for info in open_lake().list(f"{zone}/{run.pipeline.name}/{run.pk}/")} - named


def note(fault: str, cluster: Cluster, *, injections: int, rows: tuple[int, int, int], started: float) -> None:
    """Put a line into the table that is printed at the end."""
    database = "sqlite" if cluster.database_url.startswith("sqlite") else "postgresql"
    TABLE.append(Line(fault, database, injections, *rows, time.monotonic() - started))


def stopped_processes(parent: int) -> list[int]:
    """Return the pool processes of a worker that a SIGSTOP holds."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if words[0] == "T" and int(words[1]) == parent:
                found.append(int(entry.name))
    return found


def resume(pids: Iterable[int]) -> None:
    """Let stopped processes go on."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue


def every(condition: Callable[[], bool], *, patience_s: float) -> bool:
    """Return whether the condition came to hold in time."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
