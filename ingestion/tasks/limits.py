"""A queue's own rate, kept before any work is claimed."""

from typing import Any

from celery import Task

from ingestion import dispatch
from ingestion.dispatch import TaskMessage
from ingestion.ports.errors import Retryable
from ingestion.runs.work.contexts import queue_key, queue_limiter


def is_granted(task: Task[Any, Any], queue: str) -> bool:
    """Return whether the queue's rate allows this task now; where it does not, the same message is sent again later.

    Nothing was claimed, so nothing is held while it waits; without the limiter nothing is granted.
    """
    limiter = queue_limiter(queue)
    if limiter is None:
        return True
    try:
        limiter.acquire(queue_key(queue))
    except Retryable as limited:
        kwargs = {name: value for name, value in (task.request.kwargs or {}).items() if isinstance(value, int)}
        call = TaskMessage(str(task.name), kwargs)
        dispatch.send_as_is(
            call, priority=task.request.delivery_info.get("priority"), countdown_s=limited.retry_after_s or 5.0
        )
        return False
    return True
