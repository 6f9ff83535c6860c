"""A Druid of one's own, on this machine: start it, look at it, stop it."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ingest_project.stack.background import INTERRUPTED, STOP_PATIENCE_S, start_in_background, stop_supervisor
from ingest_project.stack.druid.place import druid_home, read_druid
from ingest_project.stack.druid.probes import is_ready
from ingest_project.stack.druid.run import EmbeddedDruid, run_druid
from ingest_project.stack.processes import resident_bytes
from ingest_project.stack.state import StackRunningError, StackState, is_running, read_state
from ingest_project.stack.supervisor import ServiceFailedError, StopRequested
from ingestion.ports.errors import ConfigError


class Command(BaseCommand):
    """`manage.py druid up|status|down`: ZooKeeper, Coordinator with Overlord, Indexer, Historical and Broker."""

    help = "Starts, shows and stops a Druid of this data directory (needs Java 17, and Maven once)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what to do."""
        actions = parser.add_subparsers(dest="action", required=True)
        up = actions.add_parser("up", help="start it and stay; Ctrl-C stops it")
        up.add_argument("--detach", action="store_true", help="return when it is ready; `druid down` stops it")
        up.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)
        actions.add_parser("status", help="show its services; an error unless all of them are ready")
        actions.add_parser("down", help="stop it")

    def handle(self, **options: Any) -> None:
        """Do it."""
        data: Path = settings.HEADGATE_DATA_DIR
        {"up": self._up, "status": self._status, "down": self._down}[options["action"]](data, options)

    def _up(self, data: Path, options: dict[str, Any]) -> None:
        running = f"A Druid already runs in {data}. Stop it with: manage.py druid down --data {data}"
        if is_running(druid_home(data)):
            raise CommandError(running)
        try:
            druid = EmbeddedDruid.prepare(data, say=lambda text: self._show("druid", text))
            if options["detach"]:
                self._detach(data)
            else:
                run_druid(druid, show=self._show)
                return
        except StackRunningError as error:
            raise CommandError(running) from error
        except ConfigError as error:
            msg = f"{error} [{error.code}]"
            raise CommandError(msg) from error
        except ServiceFailedError as error:
            raise CommandError(str(error)) from error
        except StopRequested as stop:
            msg = "Stopped before it began."
            raise CommandError(msg, returncode=INTERRUPTED) from stop
        self._advise(data)

    def _detach(self, data: Path) -> None:
        def echo(text: str) -> None:
            self.stdout.write(text, ending="")
            self.stdout.flush()

        start_in_background(["druid", "up", "--detached"], name="Druid", data=data, home=druid_home(data), echo=echo)

    def _advise(self, data: Path) -> None:
        if "druid" not in settings.HEADGATE_EMBEDDED and settings.HEADGATE_DRUID is not None:
            self._show("druid", "DRUID_URL is set, so the default destination is that Druid and not this one")
        elif read_state(data) is not None:
            self._show(
                "druid",
                "a stack that runs already uses it where it knows it from before; else stop the stack and start it again",
            )

    def _status(self, data: Path, _options: dict[str, Any]) -> None:
        state = read_druid(data)
        if state is None:
            msg = f"No Druid runs in {data}. Start it with: manage.py druid up --data {data}"
            raise CommandError(msg)
        ready = {service: is_ready(service, ports=state.druid_ports) for service in state.pids}
        for line in _table(state, ready=ready):
            self.stdout.write(line)
        if not all(ready.values()):
            names = ", ".join(service for service, answer in ready.items() if not answer)
            msg = f"Not ready: {names}. The logs stand in {druid_home(data) / 'log'}."
            raise CommandError(msg)

    def _down(self, data: Path, _options: dict[str, Any]) -> None:
        state = read_druid(data)
        if state is None:
            self.stdout.write(f"No Druid runs in {data}.")
            return
        if (stack := read_state(data)) is not None and stack.pid == state.pid:
            msg = f"Druid runs as a service of the stack in {data}. Stop both with: manage.py down --data {data}"
            raise CommandError(msg)
        if not stop_supervisor(state.pid, home=druid_home(data)):
            msg = f"The Druid in {data} did not stop within {STOP_PATIENCE_S:.0f} s; look at its output."
            raise CommandError(msg)
        self.stdout.write(f"Stopped the Druid in {data}.")

    def _show(self, name: str, text: str) -> None:
        self.stdout.write(f"{name:<15} | {text}")
        self.stdout.flush()


def _table(state: StackState, *, ready: dict[str, bool]) -> Iterator[str]:
    sizes = {service: resident_bytes(pid) for service, pid in state.pids.items()}
    yield f"{'service':<12} {'port':>5}  {'ready':<5}  {'memory':>8}  pid"
    for service, pid in state.pids.items():
        answer = "yes" if ready[service] else "no"
        size = _megabytes(sizes[service])
        yield f"{service:<12} {state.druid_ports[service]:>5}  {answer:<5}  {size:>8}  {pid}"
    total = sum(size or 0 for size in sizes.values())
    yield f"{'together':<12} {'':>5}  {'':<5}  {_megabytes(total):>8}"


def _megabytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 1_000_000:.0f} MB"
