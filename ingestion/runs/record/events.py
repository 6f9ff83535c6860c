"""The log of a run, as people read it."""

from typing import Any

from ingestion.models import RunEvent
from ingestion.toolkit.redact import redact


def record(run_id: int, kind: str, /, *, level: str = "info", message: str = "", **values: Any) -> None:
    """Add one line to the run's log; secrets are taken out of its text."""
    RunEvent.objects.create(
        run_id=run_id,
        kind=kind,
        level=level,
        message=redact(message),
        values={name: redact(value) if isinstance(value, str) else value for name, value in values.items()},
    )
