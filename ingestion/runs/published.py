"""What a pipeline has published: the runs whose manifests together are its state."""

from ingestion.models import PUBLISHED_RUN_STATES, Pipeline, Run
from ingestion.ports.sink import Manifest, WriteMode
from ingestion.runs.manifests import manifest_of, write_mode


def published_runs(pipeline: Pipeline, *, until: Run | None = None) -> list[Run]:
    """Return the runs of the published state in their order: the last full refresh, and what came after it.

    With `until`, the state that this run's publication left behind. Empty where nothing was published.
    """
    runs = Run.objects.filter(pipeline=pipeline, state__in=PUBLISHED_RUN_STATES).select_related("pipeline", "contract")
    if until is not None:
        runs = runs.filter(pk__lte=until.pk)
    found: list[Run] = []
    for run in runs.order_by("-pk").iterator():
        found.append(run)
        if write_mode(run) == WriteMode.REPLACE:
            break
    return found[::-1]


def published_state(pipeline: Pipeline, *, until: Run | None = None) -> list[Manifest]:
    """Return the manifests of the published state in their order.

    Where they merge by key, a reader takes of each key the row of the latest run.
    """
    return [manifest_of(run) for run in published_runs(pipeline, until=until)]
