"""The Celery application of web, workers and beat."""

import logging
import sys
import warnings
from importlib import import_module
from typing import Any

from celery import Celery
from celery.platforms import SecurityWarning
from celery.signals import beat_init, setup_logging, worker_init, worker_process_init, worker_ready

from ingest_project.env import set_default
from ingest_project.stack.parents import die_with_parent
from ingest_project.stack.processes import READY_LINE

set_default("DJANGO_SETTINGS_MODULE", "ingest_project.settings")

# It warns of pickled messages under root; here only JSON is accepted.
warnings.filterwarnings("ignore", category=SecurityWarning)

app = Celery("headgate")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["ingestion"])


@setup_logging.connect
def keep_logging(**_: Any) -> None:
    """Leave the log as Django's settings made it; being connected is what stops Celery from making its own."""
    logging.captureWarnings(True)


@worker_init.connect
def load_libraries(**_: Any) -> None:
    """Import what the stages use before the pool is forked: its processes share the memory and start at once.

    Imported, never used here: a computation of polars in the parent lets its forked children hang (measured).
    """
    for name in ("polars", "pyarrow.parquet", "pyarrow.compute", "ingestion.quality.checking"):
        import_module(name)


@worker_process_init.connect
def follow_the_worker(**_: Any) -> None:
    """Let a pool process end with its worker, also where the worker was killed and could not say so."""
    die_with_parent()


@worker_ready.connect
@beat_init.connect
def say_ready(**_: Any) -> None:
    """Tell a supervisor that reads the output, whatever the log's level is."""
    stream = sys.__stdout__ or sys.stdout
    stream.write(f"{READY_LINE}\n")
    stream.flush()
