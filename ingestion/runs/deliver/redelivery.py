"""Deliveries made after a run was published: again, to a repaired destination, or to one that was added later.

They come from the lake; the source is not asked and the run itself stays as it is.
"""

from django.db import transaction

from ingestion.models import (
    PUBLISHED_RUN_STATES,
    UNDELIVERED_STATES,
    Delivery,
    Destination,
    Pipeline,
    Run,
)
from ingestion.ports.errors import Refused
from ingestion.runs.deliver.deliveries import begin_again, missing_runs, newer_run_at
from ingestion.runs.record.views import published_runs


def redeliver(run_id: int, destination: Destination, *, by: str = "") -> Delivery:
    """Return the delivery of a published run into a destination, begun now.

    Refused for a run that was not published, for a delivery that is under way or verified, and where the destination
    shows newer rows that these would undo (`delivery.superseded`).
    """
    with transaction.atomic():
        runs = Run.objects.select_for_update(of=("self",)).select_related("pipeline", "contract")
        run = runs.filter(pk=run_id).first()
        if run is None:
            raise Refused("run.not_found", run=run_id)
        if run.state not in PUBLISHED_RUN_STATES:
            raise Refused("run.not_published", run=run_id)
        found = Delivery.objects.filter(run=run, destination=destination).first()
        if found is not None and found.state not in UNDELIVERED_STATES:
            raise Refused("delivery.exists", run=run_id, destination=destination.name, state=found.state)
        later = newer_run_at(run, destination.pk)
        if later is not None:
            raise Refused("delivery.superseded", destination=destination.name, later=later)
        return begin_again(run, destination, by=by)


def redeliver_everything(pipeline: Pipeline, destination: Destination, *, by: str = "") -> list[Delivery]:
    """Return the deliveries that bring the pipeline's published state into a destination, begun now, oldest run first.

    What the destination has already is left out, and so is what is under way.
    """
    with transaction.atomic():
        return [begin_again(run, destination, by=by) for run in runs_to_redeliver(pipeline, destination)]


def runs_to_redeliver(pipeline: Pipeline, destination: Destination) -> list[Run]:
    """Return the runs that the destination lacks, oldest first; empty where it has all of them."""
    return missing_runs(published_runs(pipeline), destination)
