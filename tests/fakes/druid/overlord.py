"""The Overlord's calls: tasks, their reports, workers, removal."""

import random
import string
from collections import Counter
from collections.abc import Callable
from re import Match
from typing import Any

from tests.fakes.druid import reports
from tests.fakes.druid.http import (
    HangError,
    Reply,
    Request,
    Routes,
    druid_error,
    json_reply,
    nothing,
    page,
    parsed,
    refused,
    text_reply,
)
from tests.fakes.druid.inputs import UnreachableError
from tests.fakes.druid.native import Ingestion, Noop
from tests.fakes.druid.sampler import sample
from tests.fakes.druid.segments import Segment
from tests.fakes.druid.state import State
from tests.fakes.druid.tasks import Task
from tests.fakes.druid.times import Interval, iso, now_ms
from tests.fakes.druid.validation import RefusedError, check_sampler, check_task

_STATES = ("pending", "waiting", "running", "complete")
_NO_LOG = "No log was found for this task. The task may not exist, or it may not have begun running yet."
_NOT_PERSISTED = (
    "Segment IDs committed by a task action are not persisted anymore. Use the metric 'segment/added/bytes' to identify"
    " the segments created by a task."
)
_NO_TASK = (
    'java.lang.NullPointerException: Cannot invoke "org.apache.druid.indexing.common.task.Task.getDestinationResource()"'
    ' because "task" is null'
)
_WHAT_IS_UNUSED = (
    "Invalid request payload. Specify either 'interval' or 'segmentIds', but not both. Optionally, include 'versions'"
    " only when 'interval' is provided."
)


class Overlord:
    """Answers below /druid/indexer/v1."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._runner = state.runner

    def routes(self) -> Routes:
        """Return the calls."""
        base, task = "/druid/indexer/v1", "/druid/indexer/v1/task/(?P<task>[^/]+)"
        removal = f"{base}/datasources/(?P<datasource>[^/]+)"
        return {
            ("POST", f"{base}/task"): self.submit,
            ("GET", task): self.payload,
            ("GET", f"{task}/status"): self.status,
            ("GET", f"{task}/reports"): self.report,
            ("GET", f"{task}/log"): self.log,
            ("GET", f"{task}/segments"): lambda *_: json_reply({"error": _NOT_PERSISTED}, status=404),
            ("POST", f"{task}/shutdown"): self.shut_down,
            ("POST", f"{base}/taskStatus"): self.statuses,
            ("GET", f"{base}/tasks"): self.list_tasks,
            ("GET", f"{base}/workers"): self.workers,
            ("GET", f"{base}/totalWorkerCapacity"): self.capacity,
            ("POST", f"{base}/sampler"): self.sample,
            ("POST", f"{removal}/markUnused"): self.mark_unused,
            # measured: in 33.0.0 another resource hides this call, and it is never found
            ("POST", f"{removal}/shutdownAllTasks"): lambda *_: nothing(404),
            ("DELETE", removal): lambda _, match: self._unused(match["datasource"], lambda _: True),
        }

    def submit(self, request: Request, _: Match[str]) -> Reply:
        """Take a task on."""
        if not request.body:
            return page(500, _NO_TASK, path=request.path)
        body = parsed(request)
        if isinstance(body, Reply):
            return body
        try:
            check_task(body, extensions=self._state.extensions)
        except RefusedError as error:
            return refused(str(error))
        if body["type"] == "noop":
            work: Any = Noop(self._state.store)
            task_id = body.get("id") or f"noop_{iso(now_ms())}"
        else:
            work = Ingestion(body, self._state.store, s3=self._state.s3)
            task_id = body.get("id") or _made_up_id(body)
        task = Task(task_id, body["type"], work.datasource, body, work, self._state.ports()["indexer"])
        if not self._state.accept(task):
            return druid_error(f"Task[{task_id}] already exists", code="entryAlreadyExists")
        return json_reply({"task": task_id})

    def status(self, _: Request, match: Match[str]) -> Reply:
        """Say how a task is."""
        task = self._find(match["task"])
        if task is None:
            return _unknown(match["task"])
        if task.is_wedged:
            raise HangError
        return json_reply({"task": task.task_id, "status": task.status()})

    def report(self, _: Request, match: Match[str]) -> Reply:
        """Give a task's report, or say that there is none."""
        task = self._find(match["task"])
        if task is None:
            return _unknown(match["task"])
        if task.report is not None:
            return json_reply(task.report)
        if task.is_running and task.has_place:
            if not self._runner.is_worker_up:
                return nothing(500, content_type="application/json")
            return json_reply(reports.running(task.task_id, task.work))
        return text_reply(reports.NO_REPORT, status=404, content_type="application/json")

    def payload(self, _: Request, match: Match[str]) -> Reply:
        """Give what was submitted."""
        task = self._find(match["task"])
        if task is None:
            return _unknown(match["task"])
        resource = {"availabilityGroup": task.task_id, "requiredCapacity": 1}
        named = {"type": task.kind, "id": task.task_id, "groupId": task.task_id, "resource": resource}
        context = {"forceTimeChunkLock": True, "useLineageBasedSegmentAllocation": True}
        rest = {name: value for name, value in task.payload.items() if name not in named}
        rest |= {"context": {**context, **rest.get("context", {})}, "dataSource": task.datasource}
        return json_reply({"task": task.task_id, "payload": {**named, **rest}})

    def log(self, request: Request, match: Match[str]) -> Reply:
        """Give a log that a test wrote, or say that there is none: an Indexer keeps none (measured)."""
        if self._find(match["task"]) is None:
            return _unknown(match["task"])
        text = self._state.logs.get(match["task"])
        if text is None:
            return text_reply(_NO_LOG, status=404, content_type="text/plain;charset=utf-8")
        return text_reply(
            text[int(request.query.get("offset", 0)) :], status=200, content_type="text/plain;charset=utf-8"
        )

    def shut_down(self, _: Request, match: Match[str]) -> Reply:
        """End a task."""
        task = self._find(match["task"])
        if task is None:
            return _unknown(match["task"])
        self._runner.shut_down(task)
        return json_reply({"task": task.task_id})

    def statuses(self, request: Request, _: Match[str]) -> Reply:
        """Say how several tasks are; unknown ones are left out."""
        ids = parsed(request)
        if isinstance(ids, Reply):
            return ids
        if isinstance(ids, dict):
            return refused(
                "Cannot deserialize value of type `java.util.HashSet<java.lang.String>` from Object value"
                " (token `JsonToken.START_OBJECT`)"
            )
        if not ids:
            return text_reply("No Task IDs provided.", status=400, content_type="application/json")
        found = {task_id: self._find(task_id) for task_id in ids}
        return json_reply(
            {
                task_id: {
                    "id": task_id,
                    "status": task.state,
                    "duration": task.duration,
                    "errorMsg": task.error,
                    "location": task.location(),
                }
                for task_id, task in found.items()
                if task is not None
            }
        )

    def list_tasks(self, request: Request, _: Match[str]) -> Reply:
        """List tasks, the newest first."""
        wanted, datasource = request.query.get("state"), request.query.get("datasource")
        if wanted is not None and wanted not in _STATES:
            text = f"Invalid task state[{wanted}]. Must be one of [{', '.join(_STATES)}]."
            return text_reply(text, status=400)
        found = [
            task.status(is_listed=True)
            for task in self._runner.snapshot()
            if datasource in (None, task.datasource) and wanted in (None, _list_state(task))
        ]
        most = request.query.get("max")
        if most:
            # measured: only those at their end are counted
            over = [each for each in found if each["statusCode"] != "RUNNING"][int(most) :]
            found = [each for each in found if each not in over]
        return json_reply(found)

    def workers(self, *_: Any) -> Reply:
        """List the workers."""
        if not self._runner.is_worker_up:
            return json_reply([])
        busy = self._runner.running()
        kinds = Counter(task.kind for task in busy)
        worker = {
            "worker": {
                "scheme": "http",
                "host": f"127.0.0.1:{self._state.ports()['indexer']}",
                "ip": "localhost",
                "capacity": self._runner.capacity,
                "version": "0",
                "category": "_default_worker_category",
            },
            "currCapacityUsed": len(busy),
            "currParallelIndexCapacityUsed": kinds["index_parallel"],
            **({"currCapacityUsedByTaskType": dict(kinds)} if kinds else {}),
            "availabilityGroups": [task.task_id for task in busy],
            "runningTasks": [task.task_id for task in busy],
            "lastCompletedTaskTime": self._runner.last_completed,
        }
        return json_reply([worker])

    def capacity(self, *_: Any) -> Reply:
        """Say how many slots there are and how many are taken."""
        capacity = self._runner.capacity if self._runner.is_worker_up else 0
        return json_reply(
            {
                "currentClusterCapacity": capacity,
                "maximumCapacityWithAutoScale": -1,
                "usedClusterCapacity": len(self._runner.running()),
            }
        )

    def sample(self, request: Request, _: Match[str]) -> Reply:
        """Sample an input."""
        body = parsed(request)
        if isinstance(body, Reply):
            return body
        try:
            check_sampler(body, extensions=self._state.extensions)
            return json_reply(sample(body, s3=self._state.s3))
        except RefusedError as error:
            return refused(str(error))
        except UnreachableError as error:
            raise HangError from error  # measured: no answer within a minute, whatever timeoutMs says

    def mark_unused(self, request: Request, match: Match[str]) -> Reply:
        """Take an interval out of use."""
        body = parsed(request)
        if isinstance(body, Reply):
            return body
        if bool(body.get("interval")) == bool(body.get("segmentIds")):
            return text_reply(_WHAT_IS_UNUSED, status=400, content_type="application/json")
        if body.get("segmentIds"):
            ids = frozenset(body["segmentIds"])
            return self._unused(match["datasource"], lambda segment: segment.segment_id in ids)
        interval = Interval.parse(body["interval"])
        return self._unused(match["datasource"], lambda segment: interval.contains(segment.interval))

    def _unused(self, datasource: str, which: Callable[[Segment], bool]) -> Reply:
        count = self._state.store.mark_unused(datasource, which)
        return json_reply({"numChangedSegments": count, "segmentStateChanged": count > 0})

    def _find(self, task_id: str) -> Task | None:
        task = self._runner.tasks.get(task_id)
        if task is not None and task.hidden_looks > 0:
            task.hidden_looks -= 1
            return None
        return task


def _unknown(task_id: str) -> Reply:
    return text_reply(f"Cannot find any task with id: [{task_id}]", status=404)


def _list_state(task: Task) -> str:
    return task.runner_state.lower() if task.is_running else "complete"


def _made_up_id(body: dict[str, Any]) -> str:
    letters = "".join(random.choices(string.ascii_lowercase[:16], k=8))
    return f"{body['type']}_{body['spec']['dataSchema']['dataSource']}_{letters}_{iso(now_ms())}"
