"""One process of a stack: how it is started, when it is ready, how it is stopped, when it is started again."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingest_project.stack.logs import LogFile
from ingest_project.stack.parents import follower

READY_LINE = "[ready]"
"""Line that workers and beat print when they are ready."""

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 30.0
STEADY_AFTER_S = 60.0


@dataclass(frozen=True)
class Program:
    """A program to run, and the sign that it is ready.

    `is_ready` asks from outside; `ready_line` is a text in its output that says so; a program with neither is ready
    at once. Lines that hold one of `hides` are not shown; with a `log`, none is: they go to that file. `folder` is where
    it runs. `death_signal` is what the kernel sends where the supervisor was killed.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    says: str = ""
    is_ready: Callable[[], bool] | None = None
    ready_line: str = ""
    hides: Sequence[str] = ()
    log: Path | None = None
    folder: Path | None = None
    grace_s: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL


@dataclass
class Child:
    """A program and its process, over all its restarts."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    is_ready: bool = False
    started_at: float = 0.0
    start_again_at: float | None = None
    backoff_s: float = FIRST_BACKOFF_S
    unfinished_line: bytes = field(default=b"", repr=False)
    log: LogFile | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Open the log of a program that has one."""
        self.log = LogFile(self.program.log) if self.program.log else None

    @property
    def name(self) -> str:
        """Return the name before each line of its output."""
        return self.program.name

    def start(self, *, now: float) -> int:
        """Start the process in a session of its own and return the descriptor its output is read from.

        The terminal's Ctrl-C then reaches the supervisor alone, which stops the services in order.
        """
        self.process = subprocess.Popen(  # noqa: S603 - the program is one of ours
            list(self.program.argv),
            env=dict(self.program.environment),
            cwd=self.program.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Safe here: the supervisor has one thread, and the kernel's promise is bound to the thread that forks.
            preexec_fn=follower(self.program.death_signal),  # noqa: PLW1509
        )
        self.started_at = now
        self.start_again_at = None
        self.unfinished_line = b""
        assert self.process.stdout is not None  # noqa: S101 - it was asked for as a pipe
        os.set_blocking(self.process.stdout.fileno(), False)
        return self.process.stdout.fileno()

    def read_lines(self) -> list[str]:
        """Return the lines of output that have come since the last call."""
        if self.process is None or self.process.stdout is None:
            return []
        data = self.unfinished_line + (self.process.stdout.read() or b"")
        *lines, self.unfinished_line = data.split(b"\n")
        return [line.decode(errors="replace").rstrip() for line in lines]

    def exit_code(self) -> int | None:
        """Return how the process ended, or None while it runs."""
        return None if self.process is None else self.process.poll()

    def is_alive(self) -> bool:
        """Return whether there is a running process."""
        return self.process is not None and self.process.poll() is None

    def notice_ready(self, lines: Sequence[str]) -> bool:
        """Return whether the process has become ready just now."""
        if self.is_ready or not self.is_alive():
            return False
        if self.program.ready_line:
            self.is_ready = any(self.program.ready_line in line for line in lines)
        else:
            self.is_ready = self.program.is_ready is None or self.program.is_ready()
        return self.is_ready

    def plan_restart(self, *, now: float) -> float:
        """Note when the ended process is started again, later each time, and return the seconds until then."""
        if now - self.started_at > STEADY_AFTER_S:
            self.backoff_s = FIRST_BACKOFF_S
        wait_s = self.backoff_s
        self.start_again_at = now + wait_s
        self.backoff_s = min(self.backoff_s * 2, LONGEST_BACKOFF_S)
        self.is_ready = False
        return wait_s

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone; its own children are told by it."""
        if self.is_alive() and self.process is not None:
            self.process.send_signal(number)

    def kill_all(self) -> None:
        """Kill the process and everything in its session, also what it left behind."""
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def resident_bytes(pid: int) -> int | None:
    """Return the memory a process has in use, or None where it has ended or the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    sizes = [line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:")]
    return int(sizes[0]) * 1024 if sizes else None
