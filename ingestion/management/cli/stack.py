"""Stack that works on runs, and tables that a first command finds missing."""

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from ingestion import dispatch
from ingestion.ports.errors import ConfigError


def has_stack() -> bool:
    """Return whether messages have a place to go: without one, rows are stored and wait."""
    return settings.CELERY_BROKER_URL != settings.HEADGATE_NO_BROKER and dispatch.broker_answers()


def prepare_tables() -> None:
    """Make the tables of an embedded database where they are missing; ConfigError where others have to do it."""
    executor = MigrationExecutor(connection)
    if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return
    if "database" not in settings.HEADGATE_EMBEDDED:
        raise ConfigError("database.outdated")
    call_command("migrate", interactive=False, verbosity=0)
