"""State that the services share: segments, tasks, and the faults that a test has asked for."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.druid.native import Interference
from tests.fakes.druid.segments import SegmentStore
from tests.fakes.druid.tasks import Task, TaskRunner, stop_check


@dataclass(frozen=True)
class TaskFault:
    """Fault of one task that is submitted."""

    in_task: Interference = field(default_factory=Interference)
    loses_task: bool = False
    hidden_looks: int = 0


@dataclass
class State:
    """Everything that outlives a stop of the services."""

    runner: TaskRunner
    store: SegmentStore
    extensions: frozenset[str]
    ports: Callable[[], dict[str, int]]
    s3: Any = None
    task_faults: list[TaskFault] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def accept(self, task: Task) -> bool:
        """Take a task on, with the fault that is its share; False where its id is known."""
        with self.lock:
            if task.task_id in self.runner.tasks:
                return False
            is_struck = task.kind != "noop" and bool(self.task_faults)
            fault = self.task_faults.pop(0) if is_struck else TaskFault()
            if fault.loses_task:
                return True
            task.work.interference = fault.in_task
            task.work.check_running = stop_check(task)
            task.work.lock = lambda intervals: self.runner.lock(task, intervals)
            task.hidden_looks = fault.hidden_looks
            return self.runner.add(task)
