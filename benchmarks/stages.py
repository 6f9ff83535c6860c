"""Costs of our stages around no work, against a bare Celery chord of the same chains that says the same SQL."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measuring import Cost, cpu_of_tree, interleave
from benchmarks.places import Place, Process, wait_until
from benchmarks.table import Row
from ingest_project.queues import SINGLE_WORKER
from ingest_project.stack.processes import READY_LINE

CONCURRENCY = 2
RUN_PATIENCE_S = 300
WARM_UP = 8
GOAL_CPU = 1.25
GOAL_WALL = 1.5


def measure_stages(*, quick: bool, database: str) -> Iterator[Row]:
    """Yield the CPU of the workers and of the sender for a run of empty partitions."""
    size, rounds = (20, 1) if quick else (250, 2)
    with _arena(database, size=size) as arena:
        bare, like_ours = arena.start_bare(), arena.start_bare(like_ours=True)
        ours, same, settings = interleave(
            rounds, arena.run_ours, lambda: arena.run_bare(bare), lambda: arena.run_bare(like_ours)
        )
    name = f"stages around no work, {database}, CPU"
    note = f"workers and sender, {size} partitions, median of {rounds}; bare: the same chains and SQL"
    yield Row(name, ours.cpu_s, yardstick=same.cpu_s, goal=GOAL_CPU, note=note)
    yield Row(f"{name}, bare with our Celery settings", ours.cpu_s, yardstick=settings.cpu_s)


def measure_chord(*, quick: bool, database: str) -> Iterator[Row]:
    """Yield the wall time of one large chord, against one that says the same SQL and against one of no-ops."""
    size, rounds = (40, 1) if quick else (1000, 2)
    with _arena(database, size=size) as arena:
        bare = arena.start_bare()
        ours, same, noop = interleave(
            rounds, arena.run_ours, lambda: arena.run_bare(bare), lambda: arena.run_bare(bare, says=False)
        )
    name = f"chord of {size:,}, {database}, wall"
    note = f"from asking for the run to its end, median of {rounds}"
    yield Row(f"{name}, bare with the same SQL", ours.wall_s, yardstick=same.wall_s, goal=GOAL_WALL, note=note)
    yield Row(f"{name}, bare chains of no-ops", ours.wall_s, yardstick=noop.wall_s, goal=GOAL_WALL)


@contextmanager
def _arena(database: str, *, size: int) -> Iterator["_Arena"]:
    with Place() as place:
        server = place.start_postgres() if database == "PostgreSQL" else None
        yield _Arena(place, server=server, size=size)


class _Arena:
    """A database with one pipeline, its copies, the recorded SQL, and a worker for each side."""

    def __init__(self, place: Place, *, server: str | None, size: int) -> None:
        self._place, self._server, self._size = place, server, size
        self._broker = f"redis://127.0.0.1:{place.start_valkey()}"
        self._url = f"{server}/postgres" if server else f"sqlite:///{place.folder / 'headgate.sqlite3'}"
        self._copies = 0
        self._recorded = place.folder / "recorded"
        variables = {"DATABASE_URL": self._url, "BROKER_URL": f"{self._broker}/0"}
        place.run("manage.py", "migrate", "--verbosity", "0", **variables)
        place.enter_django(**variables)
        self._prepare()
        queues = ("--queues", ",".join(SINGLE_WORKER), "--concurrency", str(CONCURRENCY))
        self._ours = place.start(
            [*_celery("ingest_project"), *queues], name="ours", variables=place.environment(**variables)
        )
        self._ours.wait_for(READY_LINE)
        self._run(self._warm_up)

    def _prepare(self) -> None:
        """Make the pipelines, keep a copy of the tables before the first run, and record a run."""
        from django.db import connection

        from benchmarks.recording import record_run
        from ingestion.models import Pipeline, Source
        from ingestion.runs.start import contracts

        contract = contracts.save_contract({"name": "nothing", "columns": [{"name": "id", "type": "integer"}]})
        pipelines = []
        for name, partitions in (("measured", self._size), ("warm", WARM_UP)):
            source = Source.objects.create(name=name, kind="noop", config={"partitions": partitions})
            pipelines.append(Pipeline.objects.create(name=name, source=source, stream="nothing", contract=contract))
        self._pipeline, self._warm_up = pipelines
        connection.close()
        self._snapshot = self._copy(self._url.removeprefix("sqlite:///"))
        record_run(lambda: self._create(self._pipeline), into=self._recorded)
        connection.close()

    def start_bare(self, *, like_ours: bool = False) -> "_Bare":
        """Return a worker of the bare application that has said everything once."""
        database = 3 if like_ours else 6
        variables = {
            "BARE_BROKER": f"{self._broker}/{database}",
            "BARE_RESULTS": f"{self._broker}/{database + 1}",
            "BARE_RECORDED": str(self._recorded),
            "BARE_LIKE_OURS": "1" if like_ours else "0",
        }
        words = [*_celery("benchmarks.bare"), "--concurrency", str(CONCURRENCY)]
        name = f"bare-{database}"
        everything = self._place.environment(**variables)
        del everything["DJANGO_SETTINGS_MODULE"]  # else Celery would set Django up, which a bare worker has not
        process = self._place.start(words, name=name, variables=everything)
        bare = _Bare(process, variables)
        bare.wait()
        self.run_bare(bare, size=WARM_UP)
        return bare

    def run_ours(self) -> Cost:
        """Return what a run by our stages costs."""
        return self._run(self._pipeline)

    def run_bare(self, bare: "_Bare", *, says: bool = True, size: int | None = None) -> Cost:
        """Return what the same chord costs the bare application."""
        copy = self._copy(self._snapshot) if says else ""
        try:
            cost = bare.run(copy, size=size or self._size)
            if copy:
                self._check(copy, done=size or self._size)
            return cost
        finally:
            if copy and not self._server:
                for path in Path(copy).parent.glob(f"{Path(copy).name}*"):
                    path.unlink()

    def _check(self, copy: str, *, done: int) -> None:
        """Fail unless what the bare application said had its effect: statements that meet no row are cheap."""
        import sqlite3

        import psycopg

        connect = psycopg.connect if self._server else sqlite3.connect
        with closing(connect(copy)) as connection:
            counted: Any = connection.execute("SELECT count(*) FROM ingestion_partition WHERE state = 'done'")
            found = counted.fetchone()[0]
        assert found == done, f"{found} partitions of the copy are done instead of {done}"

    def _create(self, pipeline: Any) -> Any:
        from ingestion.models import Run
        from ingestion.runs.start.creation import create_run

        run, _ = create_run(pipeline, trigger=Run.Trigger.CLI)
        return run

    def _run(self, pipeline: Any) -> Cost:
        from ingestion.models import RunState

        before = cpu_of_tree(self._ours.pid)
        began, own_began = time.perf_counter(), time.process_time()
        run = self._create(pipeline)
        own_s = time.process_time() - own_began

        def has_ended() -> bool:
            run.refresh_from_db(fields=["state"])
            return bool(run.is_terminal)

        wait_until(has_ended, what="the end of the run", of=self._ours, patience_s=RUN_PATIENCE_S)
        wall_s = time.perf_counter() - began
        assert run.state == RunState.SUCCEEDED, self._ours.output[-3000:]
        return Cost(wall_s, cpu_of_tree(self._ours.pid) - before + own_s)

    def _copy(self, original: str) -> str:
        """Return the address of a copy of a database nobody is connected to."""
        self._copies += 1
        if self._server:
            import psycopg

            name, source = f"copy{self._copies}", original.rpartition("/")[2]
            with psycopg.connect(f"{self._server}/template1", autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')
            return f"{self._server}/{name}"
        import sqlite3

        target = str(self._place.folder / f"copy{self._copies}.sqlite3")
        with sqlite3.connect(original) as source_file, sqlite3.connect(target) as target_file:
            source_file.backup(target_file)
        return target


class _Bare:
    """A worker of the bare application, and this process as its sender."""

    def __init__(self, process: Process, variables: dict[str, str]) -> None:
        self._process, self._variables = process, variables

    def wait(self) -> None:
        """Return when a message was worked on."""
        self._send("ping")
        wait_until(lambda: bool(self._counter().get("pings")), what="the bare worker", of=self._process)

    def run(self, copy: str, *, size: int) -> Cost:
        """Return what a chord costs, from the request for it to the end of its last task."""
        counter = self._counter()
        counter.delete("done")
        before = cpu_of_tree(self._process.pid)
        began, own_began = time.perf_counter(), time.process_time()
        self._send("plan", copy, size)
        own_s = time.process_time() - own_began
        wait_until(
            lambda: counter.get("done") is not None, what="the bare chord", of=self._process, patience_s=RUN_PATIENCE_S
        )
        wall_s = time.perf_counter() - began
        assert "Traceback" not in self._process.output, self._process.output[-3000:]
        return Cost(wall_s, cpu_of_tree(self._process.pid) - before + own_s)

    def _send(self, task: str, *arguments: Any) -> None:
        from celery import Celery

        app = Celery("sender", broker=self._variables["BARE_BROKER"], set_as_current=False)
        app.conf.task_ignore_result = True
        app.send_task(f"bare.{task}", args=arguments)

    def _counter(self) -> Any:
        import redis

        return redis.Redis.from_url(self._variables["BARE_RESULTS"])


def _celery(app: str) -> Sequence[str]:
    words = ("--without-gossip", "--without-mingle", "--hostname", f"{app}@%h", "--loglevel", "WARNING")
    return (sys.executable, "-m", "celery", "--quiet", "--app", app, "worker", *words)
