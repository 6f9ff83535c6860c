"""Our share of a cluster's task slots: a burst of runs must not keep other people's tasks out."""

from typing import Any

from ingestion.ports.errors import SinkUnavailable
from sinks.druid.client import DruidClient
from sinks.druid.config import DruidConfig

PREFIXES = ("hg.", "query-hg.")
_RETRY_S = 5.0


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
