"""Backup of this installation while it works."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ingestion.ports.errors import IngestError
from ingestion.runs.operate.backup import back_up


class Command(BaseCommand):
    """`manage.py backup DIR`: the database, and on request the lake and the keys, in a folder that is new or empty."""

    help = "Writes a backup of the database, and with --lake of the lake, while the installation goes on working."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the folder and what else goes into it."""
        parser.add_argument("folder", type=Path, help="a new or empty folder")
        parser.add_argument(
            "--lake", action="store_true", help="copy the lake too; without it the backup names it only"
        )
        parser.add_argument(
            "--secrets",
            action="store_true",
            help="copy the keys that decrypt stored credentials; without them they must be entered again",
        )

    def handle(self, *_: Any, folder: Path, lake: bool, secrets: bool, **__: Any) -> None:
        """Print what the backup holds, and what it does not."""
        try:
            made = back_up(folder.absolute(), copies_lake=lake, with_keys=secrets)
        except IngestError as error:
            raise CommandError(f"{error} [{error.code}]") from error
        self.stdout.write(f"Backed up {made.runs} runs and {made.parts} parts' rows ({made.database}) to {folder}.")
        if not made.is_lake_copied:
            self.stdout.write(f"The lake {made.lake} is named, not copied: keep it, or copy it with --lake.")
        if not made.has_keys:
            self.stdout.write("The keys of stored credentials are not in it; --secrets copies them.")
