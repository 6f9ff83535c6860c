"""Stop the stack of a data directory."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ingest_project.stack.state import is_running, read_state

PATIENCE_S = 90.0


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
        os.kill(state.pid, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_S
        while is_running(data) or _exists(state.pid):
            if time.monotonic() > deadline:
                msg = f"The stack in {data} did not stop within {PATIENCE_S:.0f} s; look at its output."
                raise CommandError(msg)
            time.sleep(0.1)
        self.stdout.write(f"Stopped the stack in {data}.")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that ended but was not waited for still has its number.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
