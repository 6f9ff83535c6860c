"""Start everything on this machine and stay until told to stop."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ingest_project.management.renamed import Renamed
from ingest_project.stack.background import INTERRUPTED, start_in_background
from ingest_project.stack.druid.place import druid_home
from ingest_project.stack.druid.run import DRUID, EmbeddedDruid
from ingest_project.stack.parents import die_with_parent
from ingest_project.stack.run import ALL_SERVICES, Choice, run_stack
from ingest_project.stack.services import is_free
from ingest_project.stack.state import StackRunningError, is_running
from ingest_project.stack.supervisor import ServiceFailedError, StopRequested
from ingestion.ports.errors import ConfigError

OTHER_SERVICES = ("worker", DRUID)
"""Services that run where they are asked for."""


class Command(BaseCommand):
    """`manage.py up`: broker, tables, web, workers, beat and Flower under one supervisor."""

    help = "Starts broker, web, workers, beat and Flower; Ctrl-C stops them. See also: down."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take which services run and whether the command stays."""
        known = ", ".join((*ALL_SERVICES, *OTHER_SERVICES))
        parser.add_argument("--services", default="", help=f"only these, by commas: {known}; ends with its parent")
        parser.add_argument("--parts", action=Renamed, dest="services", now="--services")
        parser.add_argument("--with-druid", action="store_true", help="a Druid of its own besides (needs Java 17)")
        parser.add_argument("--detach", action="store_true", help="return when everything is ready; `down` stops it")
        parser.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)

    def handle(self, **options: Any) -> None:
        """Run the stack."""
        data: Path = settings.HEADGATE_DATA_DIR
        services = tuple(name.strip() for name in options["services"].split(",") if name.strip()) or ALL_SERVICES
        if options["with_druid"] and DRUID not in services:
            services = (*services, DRUID)
        if unknown := set(services) - {*ALL_SERVICES, *OTHER_SERVICES}:
            known = ", ".join((*ALL_SERVICES, *OTHER_SERVICES))
            msg = f"There is no service {', '.join(sorted(unknown))}. Choose from: {known}."
            raise CommandError(msg)
        host, port = settings.HEADGATE_HOST, settings.HEADGATE_PORT
        if is_running(data):
            msg = f"A stack already runs in {data}. Stop it with: manage.py down --data {data}"
            raise CommandError(msg)
        if "web" in services and not is_free(host, port=port):
            msg = f"Port {port} of {host} is in use. Stop what listens there, or choose another: --port N."
            raise CommandError(msg)
        try:
            druid = self._prepare_druid(data) if DRUID in services else None
            if options["detach"]:
                self._detach(data, services=services)
                return
            if options["services"] and not options["detached"]:
                die_with_parent()
            run_stack(
                Choice(
                    data=data, services=services, host=host, port=port, makes_login=not options["detached"], druid=druid
                ),
                show=self._show,
            )
        except StackRunningError as error:
            msg = f"A stack already runs in {data}. Stop it with: manage.py down --data {data}"
            raise CommandError(msg) from error
        except ConfigError as error:
            msg = f"{error} [{error.code}]"
            raise CommandError(msg) from error
        except ServiceFailedError as error:
            raise CommandError(str(error)) from error
        except StopRequested as stop:
            msg = "Stopped before it began."
            raise CommandError(msg, returncode=INTERRUPTED) from stop

    def _prepare_druid(self, data: Path) -> EmbeddedDruid:
        if is_running(druid_home(data)):
            msg = f"A Druid already runs in {data}, and the stack uses it without --with-druid."
            raise CommandError(msg)
        if settings.HEADGATE_DRUID is not None:
            msg = "DRUID_URL names a Druid, so there is no use for another one. Unset it, or leave --with-druid out."
            raise CommandError(msg)
        return EmbeddedDruid.prepare(data, say=lambda text: self._show(DRUID, text))

    def _show(self, name: str, text: str) -> None:
        self.stdout.write(f"{name:<15} | {text}")
        self.stdout.flush()

    def _detach(self, data: Path, *, services: Sequence[str]) -> None:
        from ingest_project.stack.login import make_operator  # noqa: PLC0415 - reads the user model

        def echo(text: str) -> None:
            self.stdout.write(text, ending="")
            self.stdout.flush()

        words = ["up", "--detached", "--services", ",".join(services)]
        start_in_background(words, name="The stack", data=data, home=data, echo=echo)
        # Made here and not in the background: the password must not stay in the log.
        if "web" in services and (password := make_operator()):
            self._show("login", f"user operator, password {password} (shown this once)")
