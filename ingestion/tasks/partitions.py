"""The stages of a partition."""

from typing import Any

from celery import Task, shared_task

from ingestion.runs.ingest import fetching, validation
from ingestion.tasks.limits import is_granted


def is_chained(task: Task[Any, Any]) -> bool:
    """Return whether this message is a link of a chain, whose successor the worker sends."""
    return bool(task.request.chain or task.request.callbacks)


@shared_task(name="ingestion.fetch", bind=True, ignore_result=False)
def fetch(self: Task[Any, Any], *, partition_id: int, **_: Any) -> dict[str, Any]:
    """Fetch the partition's remaining pages."""
    if not is_granted(self, "fetch"):
        return {"partition": partition_id, "outcome": "limited"}
    outcome = fetching.fetch_partition(partition_id, is_chained=is_chained(self))
    return {"partition": partition_id, "outcome": outcome.value}


@shared_task(name="ingestion.validate", bind=True, ignore_result=False)
def validate(self: Task[Any, Any], *, partition_id: int, **_: Any) -> dict[str, Any]:
    """Check the partition's raw parts against the contract."""
    if not is_granted(self, "validate"):
        return {"partition": partition_id, "outcome": "limited"}
    outcome = validation.validate_partition(partition_id)
    return {"partition": partition_id, "outcome": outcome.value}
