"""The messages that start a piece of work: one constructor for each task that takes an id."""

from ingestion.dispatch import Call
from ingestion.models import Partition, Run


def plan_call(run_id: int, *, priority: int = 5, step: int = 0) -> Call:
    """Return the nudge that plans the run."""
    return Call("ingestion.plan_run", {"run_id": run_id}, priority, step)


def fetch_call(partition: Partition, *, step: int = 0) -> Call:
    """Return the nudge that fetches the partition."""
    return Call("ingestion.fetch", {"partition_id": partition.pk}, partition.run.priority, step)


def validate_call(partition: Partition, *, step: int = 0) -> Call:
    """Return the nudge that validates the partition."""
    return Call("ingestion.validate", {"partition_id": partition.pk}, partition.run.priority, step)


def complete_call(run_id: int, *, priority: int = 5, step: int = 0) -> Call:
    """Return the nudge that completes the run."""
    return Call("ingestion.complete_run", {"run_id": run_id}, priority, step)


def deliver_call(delivery_part_id: int, *, priority: int = 5, step: int = 0) -> Call:
    """Return the nudge that delivers the part."""
    return Call("ingestion.deliver", {"delivery_part_id": delivery_part_id}, priority, step)


def load_call(delivery_id: int, *, priority: int = 5, step: int = 0) -> Call:
    """Return the nudge that loads the delivery."""
    return Call("ingestion.load", {"delivery_id": delivery_id}, priority, step)


def publish_call(run: Run, *, step: int = 0) -> Call:
    """Return the nudge that publishes the run."""
    return Call("ingestion.publish_run", {"run_id": run.pk}, run.priority, step)


def abort_call(delivery_id: int, *, step: int = 0) -> Call:
    """Return the nudge that removes what the delivery staged."""
    return Call("ingestion.abort_delivery", {"delivery_id": delivery_id}, 5, step)
