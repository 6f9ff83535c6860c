"""Pipelines that run after others: what satisfies them, and how long they wait."""

from datetime import datetime, timedelta

from ingestion.models import (
    PUBLISHED_RUN_STATES,
    Pipeline,
    PipelineDependency,
    Run,
    RunEvent,
)
from ingestion.ports.errors import ConfigError


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
