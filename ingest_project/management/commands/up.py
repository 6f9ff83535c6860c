"""Start everything on this machine and stay until told to stop."""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ingest_project.env import BASE_DIR, child_environment
from ingest_project.stack.parents import die_with_parent
from ingest_project.stack.parts import is_free
from ingest_project.stack.run import ALL_PARTS, Choice, run_stack
from ingest_project.stack.state import StackRunningError, is_running, read_state
from ingest_project.stack.supervisor import PartFailedError
from ingestion.ports.errors import ConfigError

DETACH_PATIENCE_S = 180.0


class Command(BaseCommand):
    """`manage.py up`: broker, tables, web, workers, beat and Flower under one supervisor."""

    help = "Starts broker, web, workers, beat and Flower; Ctrl-C stops them. See also: down."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which parts run and whether the command stays."""
        parser.add_argument(
            "--parts", default="", help=f"only these, by commas: {', '.join(ALL_PARTS)}, worker; ends with its parent"
        )
        parser.add_argument("--detach", action="store_true", help="return when everything is ready; `down` stops it")
        parser.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)

    def handle(self, **options: Any) -> None:
        """Run the stack."""
        data: Path = settings.HEADGATE_DATA_DIR
        parts = tuple(part.strip() for part in options["parts"].split(",") if part.strip()) or ALL_PARTS
        if unknown := set(parts) - {*ALL_PARTS, "worker"}:
            msg = f"There is no part {', '.join(sorted(unknown))}. Choose from: {', '.join(ALL_PARTS)}, worker."
            raise CommandError(msg)
        host, port = settings.HEADGATE_HOST, settings.HEADGATE_PORT
        if is_running(data):
            msg = f"A stack already runs in {data}. Stop it with: manage.py down --data {data}"
            raise CommandError(msg)
        if "web" in parts and not is_free(host, port=port):
            msg = f"Port {port} of {host} is in use. Stop what listens there, or choose another: --port N."
            raise CommandError(msg)
        try:
            if options["detach"]:
                self._detach(data, parts=parts)
                return
            if options["parts"] and not options["detached"]:
                die_with_parent()
            run_stack(
                Choice(data=data, parts=parts, host=host, port=port, makes_login=not options["detached"]),
                show=self._show,
            )
        except StackRunningError as error:
            msg = f"A stack already runs in {data}. Stop it with: manage.py down --data {data}"
            raise CommandError(msg) from error
        except (PartFailedError, ConfigError) as error:
            raise CommandError(str(error)) from error

    def _show(self, name: str, text: str) -> None:
        self.stdout.write(f"{name:<15} | {text}")
        self.stdout.flush()

    def _detach(self, data: Path, *, parts: Sequence[str]) -> None:
        from ingest_project.stack.login import make_operator  # noqa: PLC0415 - reads the user model

        log = data / "run" / "up.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - this program again
                [sys.executable, str(BASE_DIR / "manage.py"), "up", "--detached", "--parts", ",".join(parts)],
                env=child_environment({"HEADGATE_DATA": str(data), "PYTHONUNBUFFERED": "1"}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + DETACH_PATIENCE_S
        with log.open() as lines:
            while True:
                state = read_state(data)
                self.stdout.write(lines.read(), ending="")
                self.stdout.flush()
                if state and state.is_ready:
                    break
                if process.poll() is not None:
                    self.stdout.write(lines.read(), ending="")
                    msg = "The stack did not start; its lines stand above."
                    raise CommandError(msg)
                if time.monotonic() > deadline:
                    process.terminate()
                    msg = f"The stack was not ready after {DETACH_PATIENCE_S:.0f} s; its lines stand in {log}."
                    raise CommandError(msg)
                time.sleep(0.1)
        # Made here and not in the background: the password must not stay in the log.
        if "web" in parts and (password := make_operator()):
            self._show("login", f"user operator, password {password} (shown this once)")
