"""Real prefork workers as subprocesses, on a real database and a real broker, driven from the test's process.

The test's own Django connection points at the cluster's database, so that rows can be read and use cases called here
while the workers do the work there.
"""

import atexit
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import dj_database_url
import pytest
import redis
from django.conf import settings
from django.db import connections

from ingest_project.celery import app as celery_app
from ingest_project.stack.parents import follower
from ingestion import registry
from tests.servers import PATIENCE_S, ROOT, Postgres, Valkey, product_environment, wait_until

ENGINE = {
    "HEADGATE_LEASE_S": "1",
    "HEADGATE_WATCH_S": "0.25",
    "HEADGATE_RESEND_AFTER_S": "2",
    "HEADGATE_RECONCILE_S": "0.5",
    "HEADGATE_SCHEDULE_S": "1",
    "HEADGATE_MAX_ATTEMPTS": "200",
}
"""Times and limits that make faults heal in a second or two."""
READY = "ready"
DATABASE = "headgate.sqlite3"
TEMPLATE = "headgate_migrated"
ALL_QUEUES = "system,load,plan,notify,deliver,validate,fetch"
"""Later stages first: one worker for all of them takes from its first queue that has a message."""


@functools.cache
def migrated(postgres: Postgres | None) -> Path:
    """Return a data directory with its secrets and tables, migrated once; on PostgreSQL the tables are `TEMPLATE`'s."""
    folder = Path(tempfile.mkdtemp(prefix="headgate-migrated-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    url = postgres.create_database(TEMPLATE) if postgres else f"sqlite:///{folder / DATABASE}"
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
        cwd=ROOT,
        env=product_environment(folder, DATABASE_URL=url),
        check=True,
        timeout=2 * PATIENCE_S,
    )
    return folder


class Cluster:
    """A database, a broker, a lake and any number of workers; everything is gone after the block."""

    def __init__(self, *, valkey: Valkey, postgres: Postgres | None, blocker: Any, **changes: str) -> None:
        """Lay the cluster out; `changes` are variables of all its processes."""
        self.folder = Path(tempfile.mkdtemp(prefix="headgate-cluster-"))
        self._valkey, self._postgres, self._blocker = valkey, postgres, blocker
        self._workers: list[subprocess.Popen[bytes]] = []
        if postgres is None:
            self.database_url = f"sqlite:///{self.folder / DATABASE}"
        else:
            migrated(postgres)
            self.database_url = postgres.create_database(self.folder.name.replace("-", "_"), template=TEMPLATE)
        self.changes = {
            "DATABASE_URL": self.database_url,
            "BROKER_URL": valkey.url(0),
            "HEADGATE_EGRESS_ALLOW": "127.0.0.0/8",
            **ENGINE,
            **changes,
        }
        self.log = self.folder / "log"

    def __enter__(self) -> Self:
        self._valkey_client().flushall()
        if (self.folder / DATABASE).exists():  # a test has put it there
            self.manage("migrate", "--verbosity", "0")
        else:
            shutil.copytree(migrated(self._postgres), self.folder, dirs_exist_ok=True)
        self._stack = _connected(self)
        self._stack.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill_workers()
        self._stack.__exit__(None, None, None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the variables of one of the cluster's processes."""
        return product_environment(self.folder, **{**self.changes, **changes})

    def manage(self, *words: str, **changes: str) -> str:
        """Return what a management command prints."""
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=self.environment(**changes),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start_worker(
        self,
        *,
        queues: str = ALL_QUEUES,
        concurrency: int = 2,
        beat: bool = False,
        waits: bool = True,
        app: str = "ingest_project.celery",
        **changes: str,
    ) -> subprocess.Popen[bytes]:
        """Return a prefork worker, consuming; with `beat`, one that ticks as well."""
        name = f"w{len(self._workers)}"
        log = self.folder / f"{name}.log"
        words = [
            *(sys.executable, "-m", "celery", "-A", app, "worker"),
            *("-Q", queues, "-c", str(concurrency), "-n", f"{name}@cluster", "-l", "INFO"),
            *("--without-gossip", "--without-mingle"),
            *(("-B", "-s", str(self.folder / f"{name}-beat")) if beat else ()),
        ]
        process = self._spawn(words, log, **changes)
        self._workers.append(process)
        if waits:
            wait_until(lambda: READY in _text(log), what=f"the start of {name}: {_text(log)[-1500:]}")
        return process

    def start_beat(self, **changes: str) -> subprocess.Popen[bytes]:
        """Return a beat."""
        log = self.folder / f"beat{len(self._workers)}.log"
        words = [sys.executable, "-m", "celery", "-A", "ingest_project.celery", "beat", "-l", "INFO"]
        process = self._spawn(words, log, **changes)
        self._workers.append(process)
        return process

    def _spawn(self, words: Sequence[str], log: Path, **changes: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                list(words),
                cwd=ROOT,
                env=self.environment(**changes),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=follower(),  # noqa: PLW1509 - nothing may outlive the tests
            )

    def kill_worker(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a worker with all its pool processes, at once."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait(PATIENCE_S)

    def kill_workers(self) -> None:
        """Kill every process of the cluster that still runs."""
        for process in self._workers:
            self.kill_worker(process)

    def _valkey_client(self) -> "redis.Redis[bytes]":
        return redis.Redis.from_url(self._valkey.url(0))

    def flush_redis(self, database: int | None = None) -> None:
        """Empty the broker, results and limits, or one of these (0, 1, 2)."""
        if database is None:
            self._valkey_client().flushall()
        else:
            redis.Redis.from_url(self._valkey.url(database)).flushdb()

    def queued(self) -> int:
        """Return how many messages wait in the broker."""
        client = self._valkey_client()
        return sum(client.llen(key) for key in client.keys("headgate:*") if client.type(key) == b"list")

    def reconcile(self) -> str:
        """Return what the command `reconcile --once` prints."""
        return self.manage("reconcile", "--once")

    def logs(self) -> str:
        """Return what all the processes wrote."""
        return "\n".join(f"== {log.name}\n{_text(log)}" for log in sorted(self.folder.glob("*.log")))

    def wait(self, condition: Callable[[], bool], *, what: str, patience_s: float = PATIENCE_S) -> None:
        """Return when the condition holds; fail with the end of the logs when it does not in time."""
        deadline = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"{what} did not happen within {patience_s:.0f} s\n{self.logs()[-6000:]}")
            time.sleep(0.05)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    """Point this process at the cluster: database, broker, lake, limiter."""
    kept = {
        name: getattr(settings, name)
        for name in ("DATABASES", "HEADGATE_LAKE_URL", "HEADGATE_REDIS_URL", "HEADGATE_SECRET_KEYS")
    }
    kept_connections = connections.settings
    chosen: dict[str, Any] = dict(dj_database_url.parse(cluster.database_url))
    if cluster.database_url.startswith("sqlite"):
        chosen["OPTIONS"] = dict(kept["DATABASES"]["default"].get("OPTIONS") or {})
    with cluster._blocker.unblock():
        connections.close_all()
        settings.DATABASES = {"default": chosen}
        connections.settings = connections.configure_settings({"default": chosen})
        _forget_connection()
        settings.HEADGATE_LAKE_URL = cluster.changes.get("HEADGATE_LAKE_URL", str(cluster.folder / "lake"))
        settings.HEADGATE_REDIS_URL = cluster._valkey.url(2)
        keys = (cluster.folder / "secrets" / "secret_keys").read_text().strip().split(",")
        settings.HEADGATE_SECRET_KEYS = keys
        registry._table.cache_clear()
        with broker_of(cluster._valkey):
            try:
                yield
            finally:
                connections.close_all()
                for name, value in kept.items():
                    setattr(settings, name, value)
                connections.settings = kept_connections
                _forget_connection()


def _forget_connection() -> None:
    """Let the next query of this thread connect by the settings of now."""
    with suppress(AttributeError):
        del connections["default"]


@contextmanager
def broker_of(valkey: Valkey) -> Iterator[None]:
    """Let this process publish to the cluster's broker, chords included."""
    app = celery_app
    kept = app.conf.broker_url, app.conf.result_backend
    _use_broker(app, valkey.url(0), valkey.url(1))
    try:
        yield
    finally:
        _use_broker(app, *kept)


def _use_broker(app: Any, broker_url: str, result_url: str | None) -> None:
    app.conf.broker_url, app.conf.result_backend = broker_url, result_url
    app._pool = app.amqp._producer_pool = app._backend_cache = None
    vars(app._local).pop("backend", None)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
