"""Deliveries made after a run was published: again, to a repaired destination, or to one that was added later.

They come from the lake; the source is not asked and the run itself stays as it is.
"""

from collections.abc import Iterable

from django.db import transaction
from django.db.models import Exists, OuterRef

from ingestion.models import (
    PUBLISHED_RUN_STATES,
    UNDELIVERED_STATES,
    Delivery,
    Destination,
    Pipeline,
    Run,
)
from ingestion.ports.errors import Refused
from ingestion.ports.publication import WriteMode
from ingestion.runs.deliver.deliveries import (
    newer_run_at,
    plan_delivery,
    record_event,
    reopen_deliveries,
    send_delivery,
)
from ingestion.runs.record.manifests import published_runs, write_mode


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
        return _begin(run, destination, by=by)


def redeliver_everything(pipeline: Pipeline, destination: Destination, *, by: str = "") -> list[Delivery]:
    """Return the deliveries that bring the pipeline's published state into a destination, begun now, oldest run first.

    What the destination has already is left out, and so is what is under way.
    """
    with transaction.atomic():
        return [_begin(run, destination, by=by) for run in runs_to_redeliver(pipeline, destination)]


def runs_to_redeliver(pipeline: Pipeline, destination: Destination) -> list[Run]:
    """Return the runs that the destination lacks, oldest first; empty where it has all of them."""
    return missing_runs(published_runs(pipeline), destination)


def missing_runs(runs: Iterable[Run], destination: Destination) -> list[Run]:
    """Return those of the runs whose rows the destination neither has nor is about to get."""
    runs = list(runs)
    there = Delivery.objects.filter(destination=destination, run__in=[run.pk for run in runs])
    known = set(there.exclude(state__in=UNDELIVERED_STATES).values_list("run_id", flat=True))
    return [run for run in runs if run.pk not in known]


def deliver_to_new_destinations(run: Run) -> None:
    """Begin the deliveries of what those of the run's destinations lack that know nothing of its pipeline.

    A run that only adds to what was published before would leave such a destination with a part of the state. In the
    caller's transaction.
    """
    if write_mode(run) == WriteMode.REPLACE:
        return
    known = Delivery.objects.filter(destination=OuterRef("pk"), run__pipeline=run.pipeline_id).exclude(run=run)
    new = list(run.pipeline.destinations.filter(~Exists(known)).order_by("pk"))
    earlier = [found for found in published_runs(run.pipeline) if found.pk < run.pk] if new else []
    for destination in new:
        for found in earlier:
            _begin(found, destination)


def _begin(run: Run, destination: Destination, *, by: str = "") -> Delivery:
    reopen_deliveries(Delivery.objects.filter(run=run, destination=destination), is_redelivery=True)
    delivery = plan_delivery(run, destination, is_redelivery=True)
    record_event(delivery, "delivery.again", by=by)
    transaction.on_commit(lambda: send_delivery(delivery.pk, priority=run.priority), robust=True)
    delivery.refresh_from_db()
    return delivery
