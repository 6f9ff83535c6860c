"""Gunicorn's hooks: a web process ends with its master, also where that was killed."""

from typing import Any

from ingest_project.stack.parents import die_with_parent


def post_fork(_server: Any, _worker: Any) -> None:
    """Bind a new web process to its master."""
    die_with_parent()
