"""Ending what Druid does for us: so that nothing is begun, done or published any more when it is said to be over."""

import time
from datetime import datetime

from ingestion.ports.context import Context
from ingestion.ports.errors import AuthError, SinkRejected, SinkUnavailable
from ingestion.ports.publication import DeliveryView
from sinks.druid.client import DruidClient
from sinks.druid.config import DruidConfig
from sinks.druid.questions import unloaded_of
from sinks.druid.slots import is_ours

_LOOKS, _PAUSE_S = 20, 0.25
"""A task that is shut down is over within a second (measured)."""
_LOOK_AGAIN_S = 1.0


def end_delivery(client: DruidClient, config: DruidConfig, delivery: DeliveryView, ctx: Context) -> None:
    """Return when the delivery's task is over, and what it had published by then is served.

    SinkUnavailable (`sink.busy`) until then. Where its task was perhaps never handed over, the id is used up: a worker
    that wakes up late must not begin what was cancelled.
    """
    task_id = str(delivery.refs.get("task") or "")
    if not task_id or delivery.refs.get("published_at"):
        return
    if not client.shutdown(task_id) and not delivery.refs.get("submitted_at") and not use_up(client, task_id):
        client.shutdown(task_id)
    status = client.task_status(task_id)
    if status is not None and not status.is_over:
        _raise_busy(delivery)
    # It may have published at the last moment: who counts now must see that, and the next run must, too.
    is_recent = delivery.refs.get("submitted_at") and _has_time(config, delivery, ctx)
    if is_recent and unloaded_of(client, delivery.refs):
        _raise_busy(delivery)


def end_tasks(client: DruidClient, datasource: str, *, destination: str) -> None:
    """Stop all tasks of ours for the datasource, and return when they are over; SinkUnavailable where they are not."""
    ids = [
        str(task["id"])
        for task in client.tasks(completed=1)
        if task.get("dataSource") == datasource and is_ours(str(task.get("id"))) and task.get("statusCode") == "RUNNING"
    ]
    for task_id in ids:
        client.shutdown(task_id)
    for _ in range(_LOOKS):
        if all(status.is_over for status in client.task_statuses(ids).values()):
            return
        time.sleep(_PAUSE_S)
    detail = f"a task for {datasource} does not end; try again in a moment"
    raise SinkUnavailable("sink.unavailable", destination=destination, detail=detail)


def use_up(client: DruidClient, task_id: str) -> bool:
    """Make sure that nothing can be begun any more under an id that Druid does not know; False where something was."""
    try:
        return client.use_up(task_id)
    except (AuthError, SinkRejected):
        # Not allowed to: then Druid's word that it knows no such task has to be enough.
        return True


def _has_time(config: DruidConfig, delivery: DeliveryView, ctx: Context) -> bool:
    waited = ctx.clock() - datetime.fromisoformat(delivery.refs["submitted_at"])
    return waited.total_seconds() < config.task_timeout_s + config.load_timeout_s


def _raise_busy(delivery: DeliveryView) -> None:
    raise SinkUnavailable("sink.busy", destination=delivery.destination, retry_after_s=_LOOK_AGAIN_S)
