"""Say where the services of a running stack are found."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ingest_project.stack.druid.place import druid_home, embedded_place, read_druid
from ingest_project.stack.names import OPERATOR
from ingest_project.stack.state import read_state
from ingestion.management.cli.output import command_line


class Command(BaseCommand):
    """`manage.py where`: addresses, logins and folders of the stack of this data directory."""

    help = "Shows the addresses of the running stack of this data directory."
    requires_system_checks: list[str] = []

    def handle(self, **_: Any) -> None:
        """Print the addresses."""
        data = settings.HEADGATE_DATA_DIR
        state = read_state(data)
        if state is None:
            msg = f"Nothing runs in {data}. Start it with: {command_line('up')}"
            raise CommandError(msg)
        lines = {"data": str(data)}
        if state.web_url:
            lines["admin"] = f"{state.web_url}admin/ (user {OPERATOR}; its password was shown at the first start)"
            lines["login"] = f"a new password: {command_line(f'changepassword {OPERATOR}')}"
            lines["API"] = f"{state.web_url}api/docs"
        if state.demo_port:
            lines["demo"] = f"http://127.0.0.1:{state.demo_port}/optimade (for: ingest fetch --base-url)"
        if state.flower_url:
            secret = data / "secrets" / "flower_password"
            lines["Flower"] = f"{state.flower_url} (user {OPERATOR}, password in {secret})"
        if settings.HEADGATE_DRUID is not None and "druid" not in settings.HEADGATE_EMBEDDED:
            lines["Druid"] = f"{settings.HEADGATE_DRUID['url']} (as configured)"
        elif druid := read_druid(data):
            place = embedded_place(druid.druid_ports).config
            logs = druid_home(data) / "log"
            lines["Druid"] = f"{place['broker_url']} (Broker), {place['url']} (Coordinator, Overlord); logs in {logs}"
        lines["log"] = str(data / "run" / "up.log")
        lines["stop"] = command_line("down")
        for name, text in lines.items():
            self.stdout.write(f"{name:<7} {text}")
