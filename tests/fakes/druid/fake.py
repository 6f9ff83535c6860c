"""A fake Druid 33.0.0 on loopback: Overlord, Coordinator and Broker that really load rows and really answer SQL.

    with FakeDruid() as druid:
        druid.fail_next("POST /druid/indexer/v1/task", "lost")
        ...
        assert druid.count("POST /druid/indexer/v1/task") == 2
        assert druid.rows("demo") == [...]

It answers as the recordings in tests/data/druid do; test_druid_recorded.py compares, call by call.
"""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any, Self

from tests.fakes.druid.coordinator import Coordinator
from tests.fakes.druid.http import Reply, Routes, json_reply
from tests.fakes.druid.native import Interference
from tests.fakes.druid.overlord import Overlord
from tests.fakes.druid.queries import Queries
from tests.fakes.druid.segments import SegmentStore, visible_rows
from tests.fakes.druid.server import FAULTS, Door, Fault, FrontDoor
from tests.fakes.druid.state import State, TaskFault
from tests.fakes.druid.tasks import TaskRunner
from tests.fakes.requests import Request

_SERVICES = ("coordinator", "historical", "broker", "overlord", "indexer")
_PLAIN = (
    ("org.apache.druid.common.aws.AWSModule", "druid-aws-common"),
    ("org.apache.druid.common.gcp.GcpModule", "druid-gcp-common"),
)
_MODULES = {
    "s3": (("org.apache.druid.storage.s3.S3StorageDruidModule", "druid-s3-extensions"),),
    "parquet": (("org.apache.druid.data.input.parquet.ParquetExtensionsModule", "druid-parquet-extensions"),),
}


class FakeDruid:
    """The cluster; start and stop it by `with`. What it knows outlives a stop.

    `extensions`: any of "s3" (give a boto3 client as `s3`), "parquet". `users`: names and passwords that may
    ask, those in `powerless` get 403. `apart`: each service on a port of its own instead of one for all.
    """

    def __init__(
        self,
        *,
        version: str = "33.0.0",
        capacity: int = 4,
        extensions: Iterable[str] = (),
        s3: Any = None,
        users: Mapping[str, str] | None = None,
        powerless: Iterable[str] = (),
        apart: bool = False,
    ) -> None:
        self.version = version
        self.extensions = frozenset(extensions)
        self._front = FrontDoor(users or {}, frozenset(powerless))
        self._runner = TaskRunner(capacity=capacity)
        self._store = SegmentStore()
        state = State(self._runner, self._store, self.extensions, self._ports, s3=s3)
        self._state = state
        services: dict[str, Routes] = {
            "overlord": {**Overlord(state).routes(), **self._leading("/druid/indexer/v1", "overlord")},
            "coordinator": {**Coordinator(state).routes(), **self._leading("/druid/coordinator/v1", "coordinator")},
            "broker": Queries(state).routes(),
        }
        common: Routes = {
            ("GET", "/status"): self._status,
            ("GET", "/status/health"): lambda *_: json_reply(True),
        }
        if apart:
            self._doors = {name: Door(self._front, {**common, **routes}) for name, routes in services.items()}
        else:
            together = {key: handler for routes in services.values() for key, handler in routes.items()}
            door = Door(self._front, {**common, **together})
            self._doors = dict.fromkeys(services, door)

    @property
    def overlord_url(self) -> str:
        """Return the Overlord's base address."""
        return self._doors["overlord"].url

    @property
    def coordinator_url(self) -> str:
        """Return the Coordinator's base address."""
        return self._doors["coordinator"].url

    @property
    def broker_url(self) -> str:
        """Return the Broker's base address."""
        return self._doors["broker"].url

    @property
    def url(self) -> str:
        """Return the address of all services, as a Router has it; only where they are not apart."""
        return self.overlord_url

    @property
    def requests(self) -> list[Request]:
        """Return all requests in order of arrival."""
        return list(self._front.requests)

    def count(self, pattern: str) -> int:
        """Return how many requests came whose "METHOD path" matches a pattern with "*"."""
        return sum(1 for each in self.requests if fnmatch.fnmatchcase(f"{each.method} {each.path}", pattern))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for task in self._runner.snapshot():
            task.stopping.set()
        self.stop()

    def start(self, *services: str) -> None:
        """Open the ports of services, of all without names; on the ports they had."""
        for door in self._chosen(services):
            door.start()

    def stop(self, *services: str) -> None:
        """Close the ports of services, of all without names; tasks go on, nothing is forgotten."""
        for door in self._chosen(services):
            door.stop()

    def _chosen(self, services: Iterable[str]) -> set[Door]:
        return {self._doors[name] for name in services} or set(self._doors.values())

    # --- what goes wrong with requests

    def fail_next(self, call: str, how: str, *, times: int | None = 1, skip: int = 0, **values: Any) -> None:
        """Let the next calls "METHOD /path" fail, after the first `skip`; "*" stands for anything, None for ever.

        How: unavailable (503, empty), html (`status`, `message`), text (`status`, `text`), json (`status`, `body`),
        empty (`status`, 200), broken_json, not_found (as of an unknown task), redirect (`location`), reset (before it
        is read), lost (done, but the answer is not sent), slow (`seconds`), hang (`seconds`, or until the stop).
        """
        if how not in FAULTS:
            msg = f"no fault {how!r}; there are: {', '.join(sorted(FAULTS))}"
            raise ValueError(msg)
        self._front.faults.append(Fault(call, how, times, skip, values))

    def clear_faults(self) -> None:
        """Let requests and submissions go right again."""
        self._front.faults.clear()
        self._state.task_faults.clear()

    def lose_leader(self, *, leader_url: str | None = None) -> None:
        """Stop leading: 307 to another address (measured after a crash: to itself), an empty 503 without one."""
        self._front.leader_url = leader_url
        self._front.leader_is_lost = True

    def gain_leader(self) -> None:
        """Lead again."""
        self._front.leader_is_lost = False

    # --- what goes wrong with tasks

    def hold(self) -> None:
        """Let tasks stay RUNNING without doing anything until `release`."""
        self._runner.hold()

    def release(self) -> None:
        """Let held tasks work."""
        self._runner.release()

    def fail_next_task(self, message: str, *, is_after_publishing: bool = False) -> None:
        """Let the next task end FAILED, before anything is published or after its rows were."""
        self._add_task_fault(TaskFault(Interference(error=message, is_after_publishing=is_after_publishing)))

    def empty_next_task(self) -> None:
        """Let the next task end in SUCCESS having read nothing."""
        self._add_task_fault(TaskFault(Interference(reads_nothing=True)))

    def drop_rows_of_next_task(self, count: int, *, is_counted: bool = True) -> None:
        """Let the next task lose rows: counted as thrownAway, or without a trace in its report."""
        self._add_task_fault(TaskFault(Interference(dropped_rows=count, is_drop_counted=is_counted)))

    def forget_next_task(self) -> None:
        """Let the next task be accepted and then be unknown."""
        self._add_task_fault(TaskFault(loses_task=True))

    def hide_next_task(self, looks: int = 1) -> None:
        """Let the next task be unknown for that many questions after it was accepted."""
        self._add_task_fault(TaskFault(hidden_looks=looks))

    def write_log(self, task_id: str, text: str) -> None:
        """Let a task have a log; without one the answer is 404, as recorded."""
        self._state.logs[task_id] = text

    def _add_task_fault(self, fault: TaskFault) -> None:
        self._state.task_faults.append(fault)

    def stop_worker(self) -> None:
        """Let the Indexer die: its tasks stay RUNNING and make no progress, new ones are PENDING."""
        self._runner.stop_worker()

    def start_worker(self) -> None:
        """Bring the Indexer back: what it ran is FAILED now, as measured; what was pending runs."""
        self._runner.start_worker()

    # --- what a reader sees, and when

    def load_after(self, looks: int | None) -> None:
        """Let segments published from now on be loaded after that many looks at the load status; None: never."""
        self._store.looks_to_load = looks

    def finish_loading(self) -> None:
        """Load now what was held back."""
        self._store.finish_loading()

    def hide_load_status(self, looks: int) -> None:
        """Answer the next looks at the load status by 204."""
        self._store.hidden_looks = looks

    def lag_broker(self, queries: int) -> None:
        """Let queries see the rows of before, that many times after each publication once it is loaded."""
        self._store.looks_to_see = queries

    def keep_segment_list(self) -> None:
        """Let `sys.segments` stay as it is now: the real Broker reads it anew once a minute."""
        self._store.keep_list()

    def set_clock(self, offset_s: float) -> None:
        """Let the machine's clock be so many seconds ahead."""
        self._front.clock_offset_s = offset_s

    def rows(self, datasource: str) -> list[dict[str, Any]]:
        """Return the published rows as they are stored, `__time` in milliseconds."""
        return [dict(row) for _, rows in visible_rows(self._store.used(datasource)) for row in rows]

    def task_state(self, task_id: str) -> str | None:
        """Return a task's state, None for an unknown one."""
        task = self._runner.tasks.get(task_id)
        return None if task is None else task.state

    def can_end(self, task_id: str) -> bool:
        """Return whether a task is known, and neither held, nor without a worker, nor reading for ever."""
        task = self._runner.tasks.get(task_id)
        return task is not None and not self._runner.is_held and self._runner.is_worker_up and not task.is_wedged

    def await_task(self, task_id: str, *, patience_s: float = 10.0) -> str:
        """Wait until a task is at its end and return its state."""
        task = self._runner.tasks[task_id]
        if not task.ended.wait(patience_s):
            msg = f"{task_id} is still {task.runner_state} after {patience_s:.0f} s"
            raise TimeoutError(msg)
        return task.state

    # --- what all services answer

    def _ports(self) -> dict[str, int]:
        ours = {name: door.port for name, door in self._doors.items()}
        others = {"historical": 8083, "indexer": 8091}
        return {name: {**ours, **others}[name] for name in _SERVICES}

    def _status(self, *_: Any) -> Reply:
        chosen = [*_PLAIN, *(each for name in sorted(self.extensions) for each in _MODULES[name])]
        modules = [{"name": name, "artifact": artifact, "version": self.version} for name, artifact in chosen]
        sizes = ("maxMemory", "totalMemory", "freeMemory", "usedMemory", "directMemory")
        return json_reply({"version": self.version, "modules": modules, "memory": dict.fromkeys(sizes, 1 << 28)})

    def _leading(self, base: str, service: str) -> Routes:
        return {
            ("GET", f"{base}/isLeader"): lambda *_: json_reply({"leader": True}),
            ("GET", f"{base}/leader"): lambda *_: Reply(self._doors[service].url.encode()),
        }
