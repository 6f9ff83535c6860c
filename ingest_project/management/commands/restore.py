"""Restore of a backup into an empty installation."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ingest_project.stack.state import is_running
from ingestion.ports.errors import IngestError, Refused
from ingestion.runs.operate.backup import restore

_SHOWN = 5


class Command(BaseCommand):
    """`manage.py restore DIR`: what `manage.py backup` wrote, into an installation that holds nothing yet."""

    help = "Restores what `backup` wrote into an empty installation (a new --data, or an empty database)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the folder."""
        parser.add_argument("folder", type=Path, help="the folder of the backup")

    def handle(self, *_: Any, folder: Path, **__: Any) -> None:
        """Print what came back, and what the database names and is not there; exit 1 where anything is missing."""
        data = settings.HEADGATE_DATA_DIR
        try:
            if is_running(data):
                raise Refused("backup.stack_running", data=str(data))
            done = restore(folder.absolute())
        except IngestError as error:
            raise CommandError(f"{error} [{error.code}]") from error
        self.stdout.write(f"Restored {done.backup.runs} runs and {done.backup.parts} parts' rows from {folder}.")
        if done.unreadable:
            named = ", ".join(done.unreadable)
            self.stdout.write(f"Enter their credentials again, the keys were not in the backup: {named}.")
        self.stdout.write(
            "Destinations are not part of a backup: where one may hold newer runs, or none, deliver to it again "
            "(ingest redeliver --everything)."
        )
        if done.missing:
            some = ", ".join(done.missing[:_SHOWN])
            raise CommandError(
                f"{len(done.missing)} objects are not in the lake, {some} for one. Is it the right lake?"
            )
