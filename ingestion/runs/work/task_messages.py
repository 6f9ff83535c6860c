"""The messages that start a piece of work: one constructor for each task, from the id of the row it works on."""

from ingestion.dispatch import TaskMessage


def plan_message(run_id: int, *, priority: int = 5, step: int = 0) -> TaskMessage:
    """Return the message that plans the run."""
    return TaskMessage("ingestion.plan_run", {"run_id": run_id}, priority, step)


def fetch_message(partition_id: int, *, priority: int = 5, step: int = 0) -> TaskMessage:
    """Return the message that fetches the partition."""
    return TaskMessage("ingestion.fetch", {"partition_id": partition_id}, priority, step)


def validate_message(partition_id: int, *, priority: int = 5, step: int = 0) -> TaskMessage:
    """Return the message that validates the partition."""
    return TaskMessage("ingestion.validate", {"partition_id": partition_id}, priority, step)


def complete_message(run_id: int, *, priority: int = 5, step: int = 0) -> TaskMessage:
    """Return the message that completes the run."""
    return TaskMessage("ingestion.complete_run", {"run_id": run_id}, priority, step)


def deliver_message(delivery_part_id: int, *, priority: int = 5, step: int = 0) -> TaskMessage:
    """Return the message that delivers the part."""
    return TaskMessage("ingestion.deliver", {"delivery_part_id": delivery_part_id}, priority, step)


def load_message(delivery_id: int, *, priority: int = 5, step: int = 0) -> TaskMessage:
    """Return the message that loads the delivery."""
    return TaskMessage("ingestion.load", {"delivery_id": delivery_id}, priority, step)


def publish_message(run_id: int, *, priority: int = 5, step: int = 0) -> TaskMessage:
    """Return the message that publishes the run."""
    return TaskMessage("ingestion.publish_run", {"run_id": run_id}, priority, step)


def abort_message(delivery_id: int, *, priority: int = 5, step: int = 0) -> TaskMessage:
    """Return the message that removes what the delivery staged."""
    return TaskMessage("ingestion.abort_delivery", {"delivery_id": delivery_id}, priority, step)
