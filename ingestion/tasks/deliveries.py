"""The stages of a delivery, and the publication they end in."""

from typing import Any

from celery import Task, shared_task

from ingestion.runs.deliver import cancellation, loading, publishing, staging
from ingestion.tasks.limits import is_granted


@shared_task(name="ingestion.deliver", bind=True, ignore_result=False)
def deliver(self: Task[Any, Any], *, delivery_part_id: int, **_: Any) -> dict[str, Any]:
    """Stage one clean part at its destination."""
    if not is_granted(self, "deliver"):
        return {"delivery_part": delivery_part_id, "outcome": "limited"}
    outcome = staging.deliver_part(delivery_part_id, is_in_chord=bool(self.request.chord))
    return {"delivery_part": delivery_part_id, "outcome": outcome.value}


@shared_task(name="ingestion.load", bind=True)
def load(self: Task[Any, Any], *, delivery_id: int, **_: Any) -> None:
    """Take the delivery one step further."""
    if is_granted(self, "load"):
        loading.load_delivery(delivery_id)


@shared_task(name="ingestion.publish_run")
def publish_run(*, run_id: int, **_: Any) -> None:
    """Publish the run."""
    publishing.publish_run(run_id)


@shared_task(name="ingestion.abort_delivery")
def abort_delivery(*, delivery_id: int, **_: Any) -> None:
    """Remove what a cancelled delivery had staged."""
    cancellation.abort_delivery(delivery_id)
