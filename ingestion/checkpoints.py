"""Checkpoints of the pipelines; written only in the transaction that publishes a run."""

from typing import Any

from ingestion.models import Checkpoint, Run


def read_checkpoint(pipeline_id: int, stream: str) -> Any:
    """Return the cursor of the pipeline's last publication, or None."""
    return Checkpoint.objects.filter(pipeline_id=pipeline_id, stream=stream).values_list("cursor", flat=True).first()


def advance_checkpoint(run: Run, *, stream: str, cursor: Any) -> None:
    """Set the cursor that the next incremental run begins from; an older run never moves it back."""
    checkpoint, created = Checkpoint.objects.get_or_create(
        pipeline_id=run.pipeline_id, stream=stream, defaults={"cursor": cursor, "run": run}
    )
    if not created and checkpoint.run_id < run.pk:
        checkpoint.cursor, checkpoint.run = cursor, run
        checkpoint.save(update_fields=["cursor", "run", "updated_at"])


def reset_checkpoint(run: Run, *, stream: str) -> None:
    """Let the next incremental run begin at the start, unless a newer run has set the cursor."""
    Checkpoint.objects.filter(pipeline_id=run.pipeline_id, stream=stream, run__lt=run.pk).delete()
