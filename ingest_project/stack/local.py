"""`--local`: a command that works though nothing runs, with a broker and a worker of its own for as long as it takes."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from ingest_project.env import BASE_DIR
from ingest_project.stack.background import INTERRUPTED
from ingest_project.stack.parents import follower
from ingest_project.stack.state import is_running, read_state
from ingestion.ports.errors import Retryable

LOCAL = "--local"
COMMAND = "ingest"
NEEDS_STACK = frozenset(
    {"upload", "run", "fetch", "retry", "rollback", "show", "check", "redeliver", "fill", "deliveries"}
)
SERVICES = "broker,worker"
PATIENCE_S = 120.0
GRACE_S = 60.0
LOOK_S = 0.1


def take_local_option(argv: Sequence[str]) -> tuple[list[str], bool]:
    """Return a command line of `ingest` without `--local`, and whether it was there."""
    if len(argv) < 3 or argv[1] != COMMAND:  # noqa: PLR2004 - program, command, and something more
        return list(argv), False
    end = list(argv).index("--") if "--" in argv else len(argv)
    rest = [word for place, word in enumerate(argv) if word != LOCAL or place > end]
    return rest, len(rest) < len(argv)


def run_locally(argv: Sequence[str], *, data: Path) -> int:
    """Return how the command ended, carried out on the data directory's stack, or on a short-lived one of its own.

    Retryable where that does not start.
    """
    words = [sys.executable, str(BASE_DIR / "manage.py"), COMMAND, "--reconcile", *argv[2:]]
    try:
        stack = _start(data) if NEEDS_STACK.intersection(argv[2:3]) and not _is_ready(data) else None
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted before the command began.\n")
        return INTERRUPTED
    # Ctrl-C reaches the command too: it says what becomes of the run, and this process stops the stack afterwards.
    before = signal.signal(signal.SIGINT, _ignore)
    try:
        return subprocess.run(words, check=False, preexec_fn=follower(signal.SIGTERM)).returncode  # noqa: S603, PLW1509
    finally:
        if stack is not None:
            _stop(stack)
        signal.signal(signal.SIGINT, before)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing; unlike SIG_IGN this is not handed on to the command."""


def _is_ready(data: Path) -> bool:
    state = read_state(data)
    return state is not None and state.is_ready


def _start(data: Path) -> "subprocess.Popen[bytes] | None":
    """Return the short-lived stack once it is ready; None where somebody else's came up meanwhile."""
    log = data / "run" / "local.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if not is_running(data):
            with log.open("wb") as file:
                stack = subprocess.Popen(  # noqa: S603 - this program again
                    [sys.executable, str(BASE_DIR / "manage.py"), "up", "--services", SERVICES],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=follower(),  # noqa: PLW1509 - this process has one thread
                )
            try:
                while stack.poll() is None and time.monotonic() < deadline:
                    if _is_ready(data):
                        return stack
                    time.sleep(LOOK_S)
            except KeyboardInterrupt:
                _stop(stack)
                raise
            _stop(stack)
            if not is_running(data):
                break
        elif _is_ready(data):
            return None
        time.sleep(LOOK_S)
    raise Retryable("stack.not_started", log=str(log))


def _stop(stack: "subprocess.Popen[bytes]") -> None:
    stack.terminate()
    try:
        stack.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        stack.kill()
        stack.wait()
