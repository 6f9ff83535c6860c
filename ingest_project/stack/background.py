"""Starting a stack in the background, and stopping one that runs there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ingest_project.env import BASE_DIR, child_environment
from ingest_project.stack.state import is_running, read_state
from ingest_project.stack.supervisor import ServiceFailedError

START_PATIENCE_S = 180.0
STOP_PATIENCE_S = 90.0
LOOK_S = 0.1
INTERRUPTED = 130
"""The exit code of what a person stopped with Ctrl-C."""


def start_in_background(
    words: Sequence[str], *, name: str, data: Path, home: Path, echo: Callable[[str], None]
) -> None:
    """Start `manage.py` with these words in a session of its own and return when its stack is ready.

    Its lines are echoed until then; they stand in `<home>/run/up.log`, `home` being where the stack describes itself.
    ServiceFailedError where it does not become ready.
    """
    log = home / "run" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - this program again
            [sys.executable, str(BASE_DIR / "manage.py"), *words],
            env=child_environment({"HEADGATE_DATA": str(data), "PYTHONUNBUFFERED": "1"}),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_PATIENCE_S
    with log.open() as lines:
        while True:
            state = read_state(home)
            echo(lines.read())
            if state and state.is_ready:
                return
            if process.poll() is not None:
                echo(lines.read())
                raise ServiceFailedError(f"{name} did not start; its lines stand above.")
            if time.monotonic() > deadline:
                process.terminate()
                raise ServiceFailedError(
                    f"{name} was not ready after {START_PATIENCE_S:.0f} s; its lines stand in {log}."
                )
            time.sleep(LOOK_S)


def stop_supervisor(pid: int, *, home: Path) -> bool:
    """Ask the supervisor of a stack to stop; return whether it has ended in time."""
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_PATIENCE_S
    while is_running(home) or _exists(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that ended but was not waited for still has its number.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
