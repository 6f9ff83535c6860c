"""Our tasks on the cluster: the share of its slots that they may take, and their shutdown.

A burst of runs must not keep other people's tasks out; and of a delivery that is said to be over nothing may be begun,
done or published any more.
"""

import time
from typing import Any

from ingestion.ports.context import Context
from ingestion.ports.errors import AuthError, SinkRejected, SinkUnavailable
from ingestion.ports.publication import DeliveryView
from sinks.druid.client import DruidClient
from sinks.druid.config import DruidConfig
from sinks.druid.datasource_state import unloaded_of
from sinks.druid.state import LoadState

PREFIXES = ("hg.", "query-hg.")
"""Names of our tasks; those of SQL ingestion, which has left, begin with the second."""
_RETRY_S = 5.0
_POLLS, _PAUSE_S = 20, 0.25
"""A task that is shut down is over within a second (measured)."""
_NEXT_POLL_S = 1.0


def is_ours(task_id: str) -> bool:
    """Return whether a task has a name as Headgate gives them."""
    return task_id.startswith(PREFIXES)


def capacity_of(workers: list[dict[str, Any]]) -> tuple[int, int]:
    """Return how many slots the cluster has, and how many of them are used."""
    total = used = 0
    for worker in workers:
        about = worker.get("worker")
        total += int(about.get("capacity") or 0) if isinstance(about, dict) else 0
        found = worker.get("currCapacityUsed")
        used += found if isinstance(found, int) else 0
    return total, used


def budget_of(config: DruidConfig, total: int) -> int:
    """Return how many of our tasks may run or wait at one time: all slots but one, unless the settings say otherwise."""
    return config.max_tasks or max(1, total - 1)


def wait_for_slot(config: DruidConfig, client: DruidClient, *, destination: str) -> None:
    """Return where one more task of ours is within our share; else SinkUnavailable, which uses up no attempt."""
    total, _ = capacity_of(client.workers())
    if not total:
        detail = "it has no worker that could run a task; start a MiddleManager or an Indexer"
        raise SinkUnavailable("sink.unavailable", destination=destination, detail=detail)
    ours = [
        task
        for task in client.tasks(completed=1)
        if is_ours(str(task.get("id"))) and str(task.get("statusCode")) not in ("SUCCESS", "FAILED")
    ]
    if len(ours) >= budget_of(config, total):
        raise SinkUnavailable("sink.busy", destination=destination, retry_after_s=_RETRY_S)


def end_delivery(client: DruidClient, config: DruidConfig, delivery: DeliveryView, ctx: Context) -> None:
    """Return when the delivery's task is over, and what it had published by then is served.

    SinkUnavailable (`sink.busy`) until then. Where its task was perhaps never handed over, the id is used up: a worker
    that wakes up late must not begin what was cancelled.
    """
    state = LoadState.parse(delivery.refs)
    load, submitted_at = state.load, state.submitted_at
    if load is None or not load.task or state.published_at is not None:
        return
    if not client.shutdown(load.task) and submitted_at is None and not use_up(client, load.task):
        client.shutdown(load.task)
    status = client.task_status(load.task)
    if status is not None and not status.is_over:
        _raise_busy(delivery)
    # It may have published at the last moment: who counts now must see that, and the next run must, too.
    has_time = submitted_at is not None and (ctx.clock() - submitted_at).total_seconds() < config.patience_s
    if has_time and unloaded_of(client, load):
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
    for _ in range(_POLLS):
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


def _raise_busy(delivery: DeliveryView) -> None:
    raise SinkUnavailable("sink.busy", destination=delivery.destination, retry_after_s=_NEXT_POLL_S)
