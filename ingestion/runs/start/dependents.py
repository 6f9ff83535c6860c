"""Starting the pipelines that waited for a publication."""

import logging

from ingestion.models import TERMINAL_RUN_STATES, PipelineDependency, Run
from ingestion.ports.errors import IngestError
from ingestion.runs.start.creation import create_run
from ingestion.runs.start.dependencies import unmet_dependency

logger = logging.getLogger(__name__)


def start_dependents(upstream_run: Run) -> list[Run]:
    """Create a run of every pipeline that only waited for this publication; a second call creates none."""
    created = []
    for link in PipelineDependency.objects.filter(upstream_id=upstream_run.pipeline_id).select_related("pipeline"):
        pipeline = link.pipeline
        has_open_run = Run.objects.filter(pipeline=pipeline).exclude(state__in=TERMINAL_RUN_STATES).exists()
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
