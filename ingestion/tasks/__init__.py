"""The tasks of the workers: ids in, one use case called. Names are fixed for ever."""

from ingestion.tasks.deliveries import abort_delivery, deliver, load, publish_run
from ingestion.tasks.partitions import fetch, validate
from ingestion.tasks.runs import complete_run, plan_run
from ingestion.tasks.system import clean_up, create_due_runs, reconcile

__all__ = [
    "abort_delivery",
    "clean_up",
    "complete_run",
    "create_due_runs",
    "deliver",
    "fetch",
    "load",
    "plan_run",
    "publish_run",
    "reconcile",
    "validate",
]
