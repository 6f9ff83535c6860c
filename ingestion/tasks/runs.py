"""The steps of a run as a whole."""

from typing import Any

from celery import Task, shared_task

from ingestion.runs.ingest import completion, planning
from ingestion.tasks.limits import is_granted


@shared_task(name="ingestion.plan_run", bind=True)
def plan_run(self: Task[Any, Any], *, run_id: int, **_: Any) -> None:
    """Plan the run, if it may begin."""
    if is_granted(self, "plan"):
        planning.plan_run(run_id)


@shared_task(name="ingestion.complete_run")
def complete_run(*, run_id: int, **_: Any) -> None:
    """Complete the run, if its partitions are finished."""
    completion.complete_run(run_id)
