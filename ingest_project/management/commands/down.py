"""Stop the stack of a data directory."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ingest_project.stack.background import STOP_PATIENCE_S, stop_supervisor
from ingest_project.stack.druid.place import read_druid
from ingest_project.stack.state import read_state


class Command(BaseCommand):
    """`manage.py down`: ends what `up` started there and waits until it has ended."""

    help = "Stops the stack of this data directory."
    requires_system_checks: list[str] = []

    def handle(self, **_: Any) -> None:
        """Stop the stack."""
        data: Path = settings.HEADGATE_DATA_DIR
        state = read_state(data)
        # A Druid that was started by itself goes on: whoever started it may have filled it for more than this stack.
        alone = read_druid(data)
        left = alone is not None and (state is None or alone.pid != state.pid)
        rest = f" Its Druid goes on; stop it with: manage.py druid down --data {data}" if left else ""
        if state is None:
            self.stdout.write(f"No stack runs in {data}.{rest}" if left else f"Nothing runs in {data}.")
            return
        if not stop_supervisor(state.pid, home=data):
            msg = f"The stack in {data} did not stop within {STOP_PATIENCE_S:.0f} s; look at its output."
            raise CommandError(msg)
        self.stdout.write(f"Stopped the stack in {data}.{rest}")
