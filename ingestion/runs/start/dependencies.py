"""Pipelines that run after others: their waiting, and the runs that a publication starts."""

import logging
from datetime import datetime, timedelta

from ingestion.models import (
    ACTIVE_RUN_STATES,
    PUBLISHED_RUN_STATES,
    Pipeline,
    PipelineDependency,
    Run,
    RunEvent,
    RunState,
)
from ingestion.ports.errors import ConfigError, IngestError
from ingestion.runs.start.creation import create_run

_OPEN_RUN_STATES = ACTIVE_RUN_STATES | {RunState.PENDING}


def check_dependency(pipeline: Pipeline, upstream: Pipeline) -> None:
    """Raise ConfigError if `pipeline` running after `upstream` would close a circle."""
    if pipeline.pk is not None and pipeline.pk == upstream.pk:
        raise ConfigError("pipeline.self_dependency", pipeline=pipeline.name)
    path, frontier = {upstream.pk: [upstream.name]}, [upstream.pk]
    while frontier:
        found = PipelineDependency.objects.filter(pipeline_id__in=frontier).select_related("upstream")
        frontier = []
        for link in found:
            trail = [*path[link.pipeline_id], link.upstream.name]
            if link.upstream_id == pipeline.pk:
                raise ConfigError("pipeline.dependency_cycle", path=" -> ".join([pipeline.name, *trail]))
            if link.upstream_id not in path:
                path[link.upstream_id] = trail
                frontier.append(link.upstream_id)


def last_publication_at(pipeline_id: int) -> datetime | None:
    """Return when the pipeline last published, or None."""
    published = Run.objects.filter(pipeline_id=pipeline_id, state__in=PUBLISHED_RUN_STATES, published_at__isnull=False)
    return published.order_by("-published_at").values_list("published_at", flat=True).first()


def unmet_dependency(pipeline_id: int, *, run_id: int | None = None) -> PipelineDependency | None:
    """Return the first dependency without a publication newer than the pipeline's own last run, or None.

    The own last run is the newest that was started, other than `run_id`; a run that is still pending has used
    no publication up.
    """
    own = Run.objects.filter(pipeline_id=pipeline_id, started_at__isnull=False).exclude(pk=run_id or 0).order_by("-pk")
    own_at = own.values_list("started_at", flat=True).first()
    for dependency in PipelineDependency.objects.filter(pipeline_id=pipeline_id).select_related("upstream"):
        published_at = last_publication_at(dependency.upstream_id)
        if published_at is None or (own_at is not None and published_at <= own_at):
            return dependency
    return None


def wait_ends_at(run: Run, dependency: PipelineDependency) -> datetime:
    """Return when the run gives up waiting for the dependency; a retry begins the wait anew."""
    retried = RunEvent.objects.filter(run=run, kind="run.retried").order_by("-pk").values_list("created_at", flat=True)
    return (retried.first() or run.created_at) + timedelta(seconds=dependency.timeout_s)


logger = logging.getLogger(__name__)


def start_dependents(upstream_run: Run) -> list[Run]:
    """Create a run of every pipeline that only waited for this publication; a second call creates none."""
    created = []
    for link in PipelineDependency.objects.filter(upstream_id=upstream_run.pipeline_id).select_related("pipeline"):
        pipeline = link.pipeline
        has_open_run = Run.objects.filter(pipeline=pipeline, state__in=_OPEN_RUN_STATES).exists()
        if pipeline.is_paused or has_open_run or unmet_dependency(pipeline.pk) is not None:
            continue
        try:
            run, is_new = create_run(
                pipeline,
                trigger=Run.Trigger.DEPENDENCY,
                idempotency_key=f"dependency:{pipeline.pk}:{upstream_run.pk}",
            )
        except IngestError as error:
            # Its settings do not hold any more; that is no reason to keep the other pipelines from theirs.
            logger.warning("Pipeline %s cannot run after its upstream: %s", pipeline.name, error)
            continue
        if is_new:
            created.append(run)
    return created
