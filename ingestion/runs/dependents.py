"""Starting the pipelines that waited for a publication."""

from ingestion.models import TERMINAL_RUN_STATES, PipelineDependency, Run
from ingestion.ports.errors import Refused
from ingestion.runs.creation import create_run
from ingestion.runs.dependencies import unmet_dependency


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
        except Refused:
            continue
        if is_new:
            created.append(run)
    return created
