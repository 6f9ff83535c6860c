"""Whole stacks as subprocesses: `manage.py up` in a data directory of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from ingest_project.stack.state import StackState, read_state
from tests.servers import PATIENCE_S, ROOT, free_port, product_environment, wait_until


class Stack:
    """A supervisor and its services."""

    def __init__(self, data: Path, *, services: str = "", **variables: str) -> None:
        """Take where it lives, which services it has, and variables such as HEADGATE_LEASE_S="2"."""
        self.data = data
        self.port = int(variables.pop("HEADGATE_PORT", "0")) or free_port()
        self.environment = product_environment(data, HEADGATE_PORT=str(self.port), **variables)
        self._services = ["--services", services] if services else []
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it and wait until it is ready."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, and kill what would not."""
        self.stop()

    @property
    def log(self) -> str:
        """Return what it has printed."""
        path = self.data / "test-up.log"
        return path.read_text() if path.exists() else ""

    @property
    def state(self) -> StackState:
        """Return what it tells other processes."""
        state = read_state(self.data)
        assert state is not None, self.log[-3000:]
        return state

    def start(self) -> None:
        """Start the supervisor and return when every service is ready."""
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data / "test-up.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "up", *self._services],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = self.process

        def is_ready() -> bool:
            if process.poll() is not None:
                pytest.fail(f"the stack ended at its start:\n{self.log[-3000:]}")
            state = read_state(self.data)
            return state is not None and state.is_ready

        wait_until(is_ready, what="the start of the stack", patience_s=2 * PATIENCE_S)

    def manage(self, *words: str, patience_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Return how another command of the same data directory ended."""
        return subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=patience_s,
            check=False,
        )

    def stop(self) -> None:
        """Stop the supervisor as a person would, and kill what is left."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(2 * PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for pid in processes_of(self.data):
            os.kill(pid, signal.SIGKILL)


def processes_of(data: Path) -> list[int]:
    """Return the processes that were started for a data directory and still live."""
    wanted = f"HEADGATE_DATA={data}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue  # it ended while we looked, or is another user's
        if wanted in variables and state != "Z":
            found.append(int(folder.name))
    return found


def is_alive(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
