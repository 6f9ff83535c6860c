"""The reports of tasks, running and finished, native and SQL."""

from typing import Any

TRACE = (
    "org.apache.druid.indexing.common.task.IndexTask.generateAndPublishSegments(IndexTask.java:890)",
    "org.apache.druid.indexing.common.task.IndexTask.runTask(IndexTask.java:509)",
    "org.apache.druid.indexing.common.task.AbstractTask.run(AbstractTask.java:179)",
    "org.apache.druid.indexing.overlord.ThreadingTaskRunner$1.call(ThreadingTaskRunner.java:230)",
    "java.base/java.lang.Thread.run(Thread.java:840)",
)
NO_REPORT = "No task reports were found for this task. The task may not exist, or it may not have completed yet."
_RATES = ("processed", "processedBytes", "unparseable", "thrownAway", "processedWithError")


def with_trace(message: str) -> str:
    """Return an error of Java's with lines of a stack trace below it; others as they are."""
    is_java = message.startswith(("org.apache.", "java."))
    return "".join([message, *(f"\n\tat {line}" for line in TRACE), "\n"]) if is_java else message


def running(task_id: str, work: Any) -> dict[str, Any]:
    """Return the report of a task at work."""
    if hasattr(work, "live_report"):
        found: dict[str, Any] = work.live_report(task_id)
        return found
    still = dict.fromkeys(_RATES, 0.0)
    payload = {
        "ingestionState": "BUILD_SEGMENTS",
        "unparseableEvents": {"buildSegments": None},
        "rowStats": {
            "movingAverages": {"buildSegments": {span: still for span in ("5m", "15m", "1m")}},
            "totals": {"buildSegments": work.tally.build.as_json()},
        },
        "errorMsg": None,
        "segmentAvailabilityConfirmed": False,
        "segmentAvailabilityWaitTimeMs": 0,
        "recordsProcessed": None,
    }
    return {"ingestionStatsAndErrors": _report("ingestionStatsAndErrors", task_id, payload)}


def finished(task_id: str, work: Any, *, state: str, error: str | None) -> dict[str, Any]:
    """Return the report of a task at its end."""
    if hasattr(work, "final_report"):
        found: dict[str, Any] = work.final_report(task_id, state=state, error=error)
        return found
    tally = work.tally
    payload = {
        "ingestionState": "COMPLETED" if state == "SUCCESS" else "BUILD_SEGMENTS",
        "unparseableEvents": {"determinePartitions": [], "buildSegments": tally.saved} if tally.max_saved else {},
        "rowStats": {"determinePartitions": tally.determine.as_json(), "buildSegments": tally.build.as_json()},
        "errorMsg": error,
        "segmentAvailabilityConfirmed": False,
        "segmentAvailabilityWaitTimeMs": 0,
        "recordsProcessed": {},
    }
    if state == "SUCCESS":
        payload["segmentsPublished"] = work.published_count
    context = {"forceTimeChunkLock": True, "useLineageBasedSegmentAllocation": True}
    return {
        "ingestionStatsAndErrors": _report("ingestionStatsAndErrors", task_id, payload),
        "taskContext": _report("taskContext", task_id, context),
    }


def _report(kind: str, task_id: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "taskId": task_id, "payload": payload}
