"""Gunicorn's hooks: a web process ends with its master, also where that was killed, and is warm soon."""

from threading import Thread
from typing import Any

from ingest_project.stack.parents import die_with_parent


def post_fork(_server: Any, _worker: Any) -> None:
    """Bind a new web process to its master."""
    die_with_parent()


def post_worker_init(_worker: Any) -> None:
    """Load what the first requests need while they are already served."""
    from ingestion.api.warming import load_ahead  # noqa: PLC0415 (Django is set up by now)

    Thread(target=load_ahead, name="load-ahead", daemon=True).start()
