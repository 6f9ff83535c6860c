"""Repair of what was lost: dead workers, lost messages, missed ends."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ingestion.runs.operate import garbage, reconcile


class Command(BaseCommand):
    """Compare what is to be done with what is being done and repair the difference; beat does the same by itself."""

    help = "Repair what was lost: dead workers, lost messages, missed ends. Prints one line for each repair."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--once", action="store_true", help="look once and end (the only way it works)")
        parser.add_argument("--clean", action="store_true", help="also remove objects that nothing names")

    def handle(self, *_: Any, **options: Any) -> None:
        """Print each repair and, last, how many there were."""
        repairs = reconcile.reconcile()
        for repair in repairs:
            self.stdout.write(f"{repair.kind}\trun {repair.run_id}\t{repair.detail}".rstrip())
        if options["clean"]:
            for kind, count in garbage.clean_up().items():
                self.stdout.write(f"removed\t{kind}\t{count}")
        self.stdout.write(f"{len(repairs)} differences repaired")
