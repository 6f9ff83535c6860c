"""What a pipeline has published: the runs whose manifests together are its state."""

from django.db.models import Q, Subquery

from ingestion.models import PUBLISHED_RUN_STATES, Pipeline, Run
from ingestion.ports.errors import Refused
from ingestion.ports.publication import Manifest, WriteMode
from ingestion.runs.record.manifests import manifest_of, write_mode

_PUBLISHED = Q(published_at__isnull=False)
"""Not by the run's state alone: a partial run that a retry has reopened was published, and readers go on seeing it."""


def published_runs(pipeline: Pipeline, *, until: Run | None = None) -> list[Run]:
    """Return the runs of the published state in their order: the last full refresh, and what came after it.

    With `until`, the state that this run's publication left behind. It never changes: a run that was created before
    and published after is no part of it. Empty where nothing was published.
    """
    runs = Run.objects.filter(_PUBLISHED, pipeline=pipeline).select_related("pipeline", "contract")
    if until is not None:
        # Compared in the database: SQLite compares text, and would not find 12:00:05.000 to be Python's 12:00:05.
        at = Subquery(Run.objects.filter(pk=until.pk).values("published_at"))
        runs = runs.filter(Q(published_at__lt=at) | Q(published_at=at, pk__lte=until.pk))
    found: list[Run] = []
    for run in runs.order_by("-pk").iterator(chunk_size=100):
        found.append(run)
        if write_mode(run) == WriteMode.REPLACE:
            break
    return found[::-1]


def published_state(pipeline: Pipeline, *, until: Run | None = None) -> list[Manifest]:
    """Return the manifests of the published state in their order.

    Where they merge by key, a reader takes of each key the row of the latest run.
    """
    return [manifest_of(run) for run in published_runs(pipeline, until=until)]


def latest_publication(pipeline: Pipeline) -> Run | None:
    """Return the run whose publication made the state what it is now, or None where nothing was published."""
    published = Run.objects.filter(_PUBLISHED, pipeline=pipeline).select_related("pipeline", "contract")
    return published.order_by("-published_at", "-pk").first()


def ensure_published(run: Run) -> None:
    """Raise Refused unless the run was published."""
    if run.published_at is None and run.state not in PUBLISHED_RUN_STATES:
        raise Refused("run.not_published", run=run.pk)
