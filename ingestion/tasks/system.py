"""The ticks of beat."""

from typing import Any

from celery import shared_task
from django.conf import settings

from ingestion.runs.operate import garbage
from ingestion.runs.operate import reconcile as reconciler
from ingestion.runs.start import schedules


@shared_task(name="ingestion.reconcile")
def reconcile(**_: Any) -> None:
    """Repair what was lost."""
    if "reconciler" not in settings.HEADGATE_SWITCH_OFF:
        reconciler.reconcile()


@shared_task(name="ingestion.create_due_runs")
def create_due_runs(**_: Any) -> None:
    """Create the runs of the schedules' due slots."""
    schedules.create_due_runs()


@shared_task(name="ingestion.clean_up")
def clean_up(**_: Any) -> None:
    """Remove what nothing refers to any more."""
    garbage.clean_up()
