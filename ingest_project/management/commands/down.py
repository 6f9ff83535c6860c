"""Stop the stack of a data directory."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ingest_project.stack.background import STOP_PATIENCE_S, stop_supervisor
from ingest_project.stack.state import read_state


class Command(BaseCommand):
    """`manage.py down`: ends what `up` started there and waits until it has ended."""

    help = "Stops the stack of this data directory."
    requires_system_checks: list[str] = []

    def handle(self, **_: Any) -> None:
        """Stop the stack."""
        data: Path = settings.HEADGATE_DATA_DIR
        state = read_state(data)
        if state is None:
            self.stdout.write(f"Nothing runs in {data}.")
            return
        if not stop_supervisor(state.pid, home=data):
            msg = f"The stack in {data} did not stop within {STOP_PATIENCE_S:.0f} s; look at its output."
            raise CommandError(msg)
        self.stdout.write(f"Stopped the stack in {data}.")
