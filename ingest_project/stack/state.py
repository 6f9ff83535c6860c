"""State of a running stack, told to the other processes of its data directory: `<data>/run/stack.json`.

The supervisor holds a lock beside the file for as long as it lives, whatever ends it; the file counts only then.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

LOCK_PATIENCE_S = 1.0


class StackState(BaseModel):
    """Services of a running stack, and where they are found."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    services: tuple[str, ...] = ()
    is_ready: bool = False
    broker_url: str | None = None
    web_url: str | None = None
    flower_url: str | None = None
    demo_port: int | None = None
    druid_ports: dict[str, int] = {}
    pids: dict[str, int] = {}


class StackRunningError(Exception):
    """Another supervisor already works in this data directory."""


def state_path(data: Path) -> Path:
    """Return where a data directory's stack describes itself."""
    return data / "run" / "stack.json"


def is_running(data: Path) -> bool:
    """Return whether a supervisor works in a data directory now."""
    try:
        with (data / "run" / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def read_state(data: Path) -> StackState | None:
    """Return what the running stack of a data directory tells, or None where none runs."""
    if not is_running(data):
        return None
    try:
        return StackState.model_validate_json(state_path(data).read_text())
    except (FileNotFoundError, ValidationError):
        return None  # it has only just begun


def write_state(data: Path, state: StackState) -> None:
    """Replace what the stack of a data directory tells; readers see the old or the new text, never half."""
    path = state_path(data)
    own = path.with_name(f".{path.name}.{os.getpid()}")
    # The broker's password stands in it.
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(state.model_dump(mode="json"), indent=1) + "\n")
    own.replace(path)


@contextlib.contextmanager
def hold_stack(data: Path) -> Iterator[None]:
    """Be the one supervisor of a data directory; StackRunningError where there is one."""
    folder = data / "run"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as file:
        _lock(file)
        state_path(data).unlink(missing_ok=True)
        try:
            yield
        finally:
            state_path(data).unlink(missing_ok=True)


def _lock(file: Any) -> None:
    # A process that only looks holds a shared lock for an instant, so one refusal means little.
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise StackRunningError from error
            time.sleep(0.05)
        else:
            return
