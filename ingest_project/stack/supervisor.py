"""The supervisor: starts the services in order, says when each is ready, restarts what ends, stops all in order.

One thread and one loop. Whatever ends it, nothing is left: the kernel tells its children (`parents.py`).
"""

import selectors
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from ingest_project.stack.processes import Child, Program

TICK_S = 0.1


class ServiceFailedError(Exception):
    """A service ended or did not become ready while the stack was starting."""


class StopRequested(Exception):  # noqa: N818 - a signal, not an error
    """The person or the system asked the stack to stop while it was starting."""


class Supervisor:
    """Programs that are kept running until it is told to stop."""

    def __init__(self, *, show: Callable[[str, str], None], on_change: Callable[[dict[str, int]], None]) -> None:
        """Take where lines go (name, text) and who is told the process ids when they change."""
        self._show = show
        self._on_change = on_change
        self._children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._hurried = False
        self._told: dict[str, int] = {}

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Take SIGTERM, SIGINT and SIGHUP as the request to stop; a second one means at once."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._hurried = self._stopping
            self._stopping = True

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, programs: Sequence[Program], *, patience_s: float) -> None:
        """Start programs together and return when all of them are ready."""
        self.begin(programs)
        self.wait_ready(programs, patience_s=patience_s)

    def begin(self, programs: Sequence[Program]) -> None:
        """Start programs together and return at once."""
        children = [Child(program) for program in programs]
        self._children.extend(children)
        for child in children:
            self._start(child)

    def wait_ready(self, programs: Sequence[Program], *, patience_s: float) -> None:
        """Return when programs that were begun are all ready; ServiceFailedError where one ends, or is not in time."""
        children = [child for child in self._children if child.program in programs]
        deadline = time.monotonic() + patience_s
        while not all(child.is_ready for child in children):
            self._turn()
            for child in children:
                if not child.is_alive():
                    self._read(child)
                    raise self._failed(child, f"ended with code {child.exit_code()} while it was starting")
                if time.monotonic() > deadline and not child.is_ready:
                    raise self._failed(child, f"was not ready after {patience_s:.0f} s")

    def run_once(self, program: Program) -> None:
        """Run a program to its end; ServiceFailedError where that is not code 0."""
        child = Child(program, is_ready=True)
        self._children.append(child)
        self._start(child)
        while child.is_alive():
            self._turn()
        self._read(child)
        self._forget(child)
        if child.exit_code() != 0:
            raise self._failed(child, f"ended with code {child.exit_code()}")
        if program.says:
            self._show(program.name, program.says)

    def watch(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Keep everything running until a signal comes or `until` says so."""
        while not self._stopping and not until():
            self._turn(raise_on_stop=False)
            now = time.monotonic()
            for child in self._children:
                if child.is_alive():
                    continue
                if child.start_again_at is None:
                    self._read(child)
                    self._forget_output(child)
                    code = child.exit_code()
                    child.kill_all()
                    wait_s = child.plan_restart(now=now)
                    log = f"; its log is {child.log.path}" if child.log else ""
                    self._show(child.name, f"ended with code {code}; it is started again in {wait_s:.0f} s{log}")
                elif child.start_again_at <= now:
                    self._start(child)

    def stop(self, order: Sequence[Sequence[str]]) -> None:
        """Stop the services, one group after another; what does not end in its time is killed before the next group."""
        for names in order:
            group = [child for child in self._children if child.name in names]
            for child in group:
                child.send(signal.SIGTERM)
            deadline = time.monotonic() + max((child.program.grace_s for child in group), default=0)
            while any(child.is_alive() for child in group) and time.monotonic() < deadline and not self._hurried:
                self._turn(raise_on_stop=False)
            self._kill(group)
        named = {name for names in order for name in names}
        self._kill([child for child in self._children if child.name not in named])
        self._selector.close()

    def _kill(self, children: Sequence[Child]) -> None:
        for child in children:
            if child.is_alive():
                self._show(child.name, f"did not stop within {child.program.grace_s:.0f} s and is killed")
            child.kill_all()
            self._read(child)
            self._close_log(child)

    def _failed(self, child: Child, what: str) -> ServiceFailedError:
        """Return the error that ends a start, after showing what a quiet service said last."""
        if child.log is None:
            return ServiceFailedError(f"{child.name} {what}; see its lines above")
        for line in child.log.last_lines():
            self._show(child.name, line)
        return ServiceFailedError(f"{child.name} {what}; see its last lines above, and all of them in {child.log.path}")

    def _start(self, child: Child) -> None:
        descriptor = child.start(now=time.monotonic())
        self._selector.register(descriptor, selectors.EVENT_READ, child)
        self._tell()

    def _turn(self, *, raise_on_stop: bool = True) -> None:
        if self._stopping and raise_on_stop:
            raise StopRequested
        for key, _ in self._selector.select(TICK_S):
            self._read(key.data)
        for child in self._children:
            if not child.program.ready_line and child.notice_ready([]):
                self._say_ready(child)

    def _read(self, child: Child) -> None:
        lines = child.read_lines()
        became_ready = child.notice_ready(lines)
        if child.log is not None:
            child.log.write(lines)
        for line in lines if child.log is None else ():
            hidden = (*child.program.hides, *filter(None, (child.program.ready_line,)))
            if line and not any(text in line for text in hidden):
                self._show(child.name, line)
        if became_ready:
            self._say_ready(child)
        if not lines and not child.is_alive():
            self._forget_output(child)

    def _say_ready(self, child: Child) -> None:
        self._show(child.name, f"ready{': ' + child.program.says if child.program.says else ''}")

    def _forget_output(self, child: Child) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data is child:
                self._selector.unregister(key.fileobj)

    def _forget(self, child: Child) -> None:
        self._forget_output(child)
        self._children.remove(child)
        self._close_log(child)

    def _close_log(self, child: Child) -> None:
        if child.log is not None:
            child.log.close()

    def _tell(self) -> None:
        pids = {child.name: child.process.pid for child in self._children if child.process is not None}
        if pids != self._told:
            self._told = pids
            self._on_change(pids)
