"""Tasks: their states, the locks and slots they wait for, and the threads they run in."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.fakes.druid import reports
from tests.fakes.druid.inputs import UnreachableError
from tests.fakes.druid.rows import TaskFailedError
from tests.fakes.druid.times import Interval, TooManyChunksError, iso, now_ms

DISAPPEARED = "This task disappeared on the worker where it was assigned. See overlord logs for more details."
SHUT_DOWN = "Shutdown request from user"
NOT_QUEUED = "1970-01-01T00:00:00.000Z"


class Work(Protocol):
    """Work of a task once it has its locks and its slot."""

    store: Any

    def intervals(self) -> list[Interval] | None:
        """Return what to lock beforehand, None where that is known only later."""

    def run(self) -> None:
        """Do it; raises TaskFailedError."""


class _StoppedError(Exception):
    """The task was shut down while it worked."""


@dataclass(eq=False)
class Task:
    """One task as the Overlord knows it."""

    task_id: str
    kind: str
    datasource: str
    payload: Mapping[str, Any]
    work: Any
    worker_port: int
    created: str = field(default_factory=lambda: iso(now_ms()))
    queued: str = NOT_QUEUED
    state: str = "RUNNING"
    runner_state: str = "WAITING"
    has_place: bool = False
    error: str | None = None
    duration: int = -1
    locks: list[Interval] = field(default_factory=list)
    report: dict[str, Any] | None = None
    hidden_looks: int = 0
    is_wedged: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def is_running(self) -> bool:
        """Return whether it has not come to its end."""
        return self.state == "RUNNING"

    def location(self) -> dict[str, Any]:
        """Return where it runs or ran."""
        if not self.has_place:
            return {"host": None, "port": -1, "tlsPort": -1}
        return {"host": "127.0.0.1", "port": self.worker_port, "tlsPort": -1}

    def status(self, *, is_listed: bool = False) -> dict[str, Any]:
        """Return its status as of a single question, or as in a list."""
        runner_state = "NONE" if is_listed and not self.is_running else self.runner_state
        return {
            "id": self.task_id,
            "groupId": self.task_id,
            "type": self.kind,
            "createdTime": self.created,
            "queueInsertionTime": self.queued if is_listed and self.is_running else NOT_QUEUED,
            "statusCode": self.state,
            "status": self.state,
            "runnerStatusCode": runner_state,
            "duration": self.duration,
            "location": self.location(),
            "dataSource": self.datasource,
            "errorMsg": self.error,
        }


class TaskRunner:
    """Runs tasks in threads, in order of submission where they wait for the same chunks or for a slot."""

    def __init__(self, *, capacity: int) -> None:
        self.capacity = capacity
        self.tasks: dict[str, Task] = {}
        self.is_worker_up = True
        self.last_completed = iso(now_ms())
        self.is_held = False
        self._changed = threading.Condition(threading.RLock())

    def hold(self) -> None:
        """Let tasks get their slot and then do nothing until they are released."""
        with self._changed:
            self.is_held = True

    def release(self) -> None:
        """Let held tasks work."""
        with self._changed:
            self.is_held = False
            self._changed.notify_all()

    def add(self, task: Task) -> bool:
        """Take a task on and start its thread; False where the id is known."""
        with self._changed:
            if task.task_id in self.tasks:
                return False
            self.tasks[task.task_id] = task
        threading.Thread(target=self._run, args=(task,), daemon=True, name=task.task_id).start()
        return True

    def snapshot(self) -> list[Task]:
        """Return all tasks, the newest first."""
        with self._changed:
            return list(reversed(self.tasks.values()))

    def running(self) -> list[Task]:
        """Return the tasks that hold a slot."""
        return [task for task in self.snapshot() if task.is_running and task.runner_state == "RUNNING"]

    def shut_down(self, task: Task) -> None:
        """End a task that is not at its end; others stay as they are."""
        task.stopping.set()
        self._end(task, "FAILED", error=SHUT_DOWN)

    def stop_worker(self) -> None:
        """Let the worker die: what it runs makes no progress, and nothing new starts."""
        with self._changed:
            self.is_worker_up = False
            for task in self.running():
                task.stopping.set()

    def start_worker(self) -> None:
        """Bring the worker back; what it ran before is gone, and the Overlord notices that now."""
        lost = [task for task in self.running() if task.stopping.is_set()]
        with self._changed:
            self.is_worker_up = True
            self._changed.notify_all()
        for task in lost:
            self._end(task, "FAILED", error=DISAPPEARED)

    def lock(self, task: Task, intervals: Sequence[Interval]) -> None:
        """Lock chunks for a task that works already; fails it where another one has them."""
        with self._changed:
            if self._is_taken(task, intervals, by=[each for each in self.tasks.values() if each is not task]):
                listed = ", ".join(str(each) for each in intervals)
                msg = f"org.apache.druid.java.util.common.ISE: Failed to get locks for intervals[[{listed}]]"
                raise TaskFailedError(msg)
            task.locks = list(intervals)

    def _is_taken(self, task: Task, intervals: Sequence[Interval], *, by: Iterable[Task]) -> bool:
        others = [each for each in by if each.is_running and each.datasource == task.datasource]
        return any(mine.overlaps(theirs) for each in others for theirs in each.locks for mine in intervals)

    def _before(self, task: Task) -> Iterator[Task]:
        for other in self.tasks.values():
            if other is task:
                return
            yield other

    def _run(self, task: Task) -> None:
        started = time.monotonic()
        try:
            self._await_turn(task)
            task.work.run()
        except _StoppedError:
            return
        except TooManyChunksError:
            task.is_wedged = True
        except UnreachableError:
            task.stopping.wait()  # the real one tries again for minutes, holding its slot
        except TaskFailedError as failure:
            self._end(task, "FAILED", error=reports.with_trace(str(failure)), since=started)
        except Exception as failure:  # noqa: BLE001 - a fault of the fake must be seen in the task, not hang it
            self._end(task, "FAILED", error=f"fake: {type(failure).__name__}: {failure}", since=started)
            raise
        else:
            self._end(task, "SUCCESS", since=started)

    def _await_turn(self, task: Task) -> None:
        intervals = task.work.intervals() or []
        with self._changed:
            task.locks = list(intervals)
            self._wait(task, lambda: not self._is_taken(task, intervals, by=self._before(task)))
            task.runner_state, task.queued = "PENDING", iso(now_ms())
            self._wait(task, lambda: self.is_worker_up and len(self.running()) < self.capacity)
            task.runner_state, task.has_place = "RUNNING", True
            self._wait(task, lambda: not self.is_held)

    def _wait(self, task: Task, condition: Callable[[], bool]) -> None:
        while not condition():
            if task.stopping.is_set():
                raise _StoppedError
            self._changed.wait(0.05)
        if task.stopping.is_set():
            raise _StoppedError

    def _end(self, task: Task, state: str, *, error: str | None = None, since: float | None = None) -> None:
        with self._changed:
            if not task.is_running or (since is not None and task.stopping.is_set()):
                return
            if since is not None:
                task.duration = max(1, int((time.monotonic() - since) * 1000))
                task.report = reports.finished(task.task_id, task.work, state=state, error=error)
                task.runner_state = "WAITING"
            elif task.has_place:
                task.runner_state = "WAITING"
            task.error = error
            task.state = state
            task.locks = []
            self.last_completed = iso(now_ms())
            task.ended.set()
            self._changed.notify_all()


def stop_check(task: Task) -> Callable[[], None]:
    """Return what a task's work calls now and then: it ends the work when the task was shut down."""

    def check() -> None:
        if task.stopping.is_set():
            raise _StoppedError

    return check
