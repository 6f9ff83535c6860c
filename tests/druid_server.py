"""A real Druid for tests: the one that `manage.py druid up` starts, in a folder of its own."""

import atexit
import functools
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from ingest_project.stack.druid.classpath import resolve_classpath
from ingest_project.stack.druid.place import druid_home, read_druid
from ingest_project.stack.druid.tools import find_java
from ingest_project.stack.state import StackState
from ingestion.ports.errors import ConfigError
from tests.servers import PATIENCE_S, ROOT, Server, accepts, missing, product_environment, wait_until
from tests.stacks import processes_of

TASK_PATIENCE_S = 60.0


class Druid(Server):
    """Five services under one supervisor, which can be stopped, killed and started again on the same ports and data."""

    name = "druid"
    patience_s = 2 * PATIENCE_S

    def __init__(self) -> None:
        """Choose a folder; a skip where the machine lacks Java, Maven or the jars."""
        kept = resolved_classpath()
        super().__init__()
        self.data = self.folder / "data"
        self.home = druid_home(self.data)
        self.home.mkdir(parents=True)
        shutil.copy(kept, self.home)

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [sys.executable, str(ROOT / "manage.py"), "druid", "up"]

    def environment(self) -> Mapping[str, str]:
        """Return the process's variables."""
        return product_environment(self.data)

    def is_ready(self) -> bool:
        """Return whether every service takes work."""
        state = read_druid(self.data)
        return state is not None and state.is_ready

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End all services and wait for them."""
        super().stop(number)
        self._wait_gone()

    def kill(self) -> None:
        """Kill the supervisor, and with it all services."""
        super().kill()
        self._wait_gone()

    def restart(self) -> None:
        """Stop all services and start them again."""
        self.stop()
        self.start()

    def kill_service(self, service: str) -> None:
        """Kill one service; its supervisor starts it again after a second."""
        os.kill(self.state.pids[service], signal.SIGKILL)

    @property
    def state(self) -> StackState:
        """Return what the running Druid tells."""
        state = read_druid(self.data)
        assert state is not None, (self.folder / "log").read_text()[-3000:]
        return state

    @property
    def overlord_url(self) -> str:
        """Return the address of the Overlord, which is also the Coordinator's."""
        return f"http://127.0.0.1:{self.state.druid_ports['coordinator']}"

    coordinator_url = overlord_url

    @property
    def broker_url(self) -> str:
        """Return the address that answers queries."""
        return f"http://127.0.0.1:{self.state.druid_ports['broker']}"

    def config(self) -> dict[str, Any]:
        """Return the configuration of a destination that is this Druid."""
        return {"url": self.overlord_url, "broker_url": self.broker_url, "shares_disk": True}

    def submit(self, task: Mapping[str, Any]) -> str:
        """Return the id of a task, accepted now."""
        answer = httpx.post(f"{self.overlord_url}/druid/indexer/v1/task", json=dict(task), timeout=30)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["task"])

    def wait_for(self, task_id: str) -> str:
        """Return how a task ended."""
        ended = ""

        def has_ended() -> bool:
            nonlocal ended
            answer = httpx.get(f"{self.overlord_url}/druid/indexer/v1/task/{task_id}/status", timeout=30)
            ended = answer.json()["status"]["statusCode"] if answer.status_code == 200 else ""
            return ended in {"SUCCESS", "FAILED"}

        wait_until(has_ended, what=f"the end of task {task_id}", patience_s=TASK_PATIENCE_S)
        return ended

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        answer = httpx.post(f"{self.broker_url}/druid/v2/sql", json={"query": sql}, timeout=30)
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()
        return rows

    def count(self, datasource: str) -> int:
        """Return how many rows a reader finds; none where the datasource is not known."""
        sql = f'SELECT COUNT(*) AS n FROM "{datasource}"'  # noqa: S608 - the test's own name
        answer = httpx.post(f"{self.broker_url}/druid/v2/sql", json={"query": sql}, timeout=30)
        return int(answer.json()[0]["n"]) if answer.status_code == 200 else 0

    def _wait_gone(self) -> None:
        # A killed process is not seen any more a moment before its ports are free; a start in between would fail.
        wait_until(lambda: self.traces() == [], what="the end of every service")

    def traces(self) -> list[str]:
        """Return the processes and listening ports there are, by name."""
        path = self.home / "ports.json"
        ports = json.loads(path.read_text()) if path.exists() else {}
        processes = [f"process {pid}" for pid in processes_of(self.data)]
        return processes + [f"port of {name}" for name, port in ports.items() if accepts(port)]

    def ensure_running(self) -> None:
        """Start what a test before has stopped or broken."""
        if not self.is_ready():
            self.kill()
            self.start()


@functools.cache
def resolved_classpath() -> Path:
    """Return the file with the class path, resolved once in a session; a skip where that cannot be done here."""
    folder = Path(tempfile.mkdtemp(prefix="headgate-druid-classpath-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        resolve_classpath(folder, java=find_java(), version="", extensions=False, say=lambda _text: None)
    except ConfigError as error:
        missing(str(error))
    return folder / "classpath.json"
