"""The product's Celery application, which writes down every message that any of its processes sends."""

import os
from pathlib import Path
from typing import Any

from celery.signals import before_task_publish

from ingest_project.celery import app

SENT = Path(os.environ["SENT"])


@before_task_publish.connect
def note(sender: str = "", body: Any = None, **_: Any) -> None:
    """Append the task and its ids; beat's ticks carry none."""
    if body[1]:
        with SENT.open("a") as file:
            file.write(f"{sender} {body[1]}\n")


__all__ = ["app"]
