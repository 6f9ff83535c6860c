"""The Celery application of web, workers and beat."""

import gc
import logging
import sys
import warnings
from importlib import import_module
from typing import Any

from celery import Celery
from celery.platforms import SecurityWarning
from celery.signals import beat_init, celeryd_after_setup, setup_logging, worker_init, worker_process_init, worker_ready
from django.conf import settings

from ingest_project.env import set_default
from ingest_project.queues import celery_queues
from ingest_project.stack.parents import die_with_parent
from ingest_project.stack.processes import READY_LINE

set_default("DJANGO_SETTINGS_MODULE", "ingest_project.settings")
# Celery would run Django's checks, so import every page of admin and API (35 MB a process), and start whatever they find.
set_default("CELERY_SKIP_CHECKS", "1")

# It warns of pickled messages under root; here only JSON is accepted.
warnings.filterwarnings("ignore", category=SecurityWarning)

_NAMESPACE = "CELERY_"
_DATA_QUEUES = {"fetch", "validate", "deliver", "load"}


class CelerySettings:
    """Those of Django's settings that are Celery's, under its own names for them.

    A worker shows its whole configuration to whoever may ask it, Flower for one: the addresses of lake and limiter are
    none of theirs. And Celery, which takes every `broker_url` in it for its own, fails over that of Druid.
    """

    @property
    def task_queues(self) -> list[Any]:
        """Return the queues; made here, since the settings are read by processes that have nothing to do with Celery."""
        return celery_queues()

    def __getattr__(self, name: str) -> Any:
        """Return the setting of that name."""
        return getattr(settings, f"{_NAMESPACE}{name.upper()}")

    def __dir__(self) -> list[str]:
        """Return the names of the settings."""
        names = [name.removeprefix(_NAMESPACE).lower() for name in dir(settings) if name.startswith(_NAMESPACE)]
        return [*names, "task_queues"]


app = Celery("headgate")
app.config_from_object(CelerySettings())
app.autodiscover_tasks(["ingestion"])


@setup_logging.connect
def keep_logging(**_: Any) -> None:
    """Leave the log as Django's settings made it; being connected is what stops Celery from making its own."""
    logging.captureWarnings(True)


@worker_init.connect
@beat_init.connect
def refuse_wrong_settings(**_: Any) -> None:
    """End a worker or beat whose settings would lose or double work, or open a door."""
    from ingest_project.checks import check_delivery, check_doors  # noqa: PLC0415 - needs the settings

    wrong = [finding for finding in (*check_delivery(), *check_doors()) if finding.is_serious()]
    if wrong:
        raise SystemExit("\n".join(map(str, wrong)))


@celeryd_after_setup.connect
def load_libraries(instance: Any, **_: Any) -> None:
    """Import what the stages use before the pool is forked: its processes share the memory and start at once.

    Imported, never used here: a computation of polars in the parent lets its forked children hang (measured). A worker
    of other queues imports them with the first file whose pieces it plans.
    """
    if _DATA_QUEUES & set(instance.app.amqp.queues.consume_from):
        for name in ("polars", "pyarrow.parquet", "pyarrow.compute", "ingestion.quality.checking"):
            import_module(name)
    # What is there now is not looked at by the collectors of the pool's processes, so stays shared with the parent.
    gc.collect()
    gc.freeze()


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
