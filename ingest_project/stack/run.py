"""One stack from start to stop."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from os import getpid
from pathlib import Path

from django.conf import settings

from ingest_project.stack import broker
from ingest_project.stack.druid.run import PATIENCE_S as DRUID_PATIENCE_S
from ingest_project.stack.druid.run import STOP_ORDER as DRUID_STOP_ORDER
from ingest_project.stack.druid.run import EmbeddedDruid
from ingest_project.stack.login import make_operator
from ingest_project.stack.names import OPERATOR
from ingest_project.stack.processes import Program
from ingest_project.stack.services import STOP_ORDER, Services, is_free
from ingest_project.stack.state import StackState, hold_stack, write_state
from ingest_project.stack.supervisor import StopRequested, Supervisor
from ingestion.runs.operate.samples import move_demo_source
from ingestion.runs.start.pipelines import move_druid_destination

ALL_SERVICES = ("broker", "web", "workers", "beat", "flower", "demo")
DEMO_PORT = 8099
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Choice:
    """The services of a stack, and where it listens."""

    data: Path
    services: tuple[str, ...]
    host: str
    port: int
    makes_login: bool = True
    druid: EmbeddedDruid | None = None


def run_stack(choice: Choice, *, show: Callable[[str, str], None]) -> None:
    """Start the services, keep them running until a signal, and stop them; nothing of it is left afterwards.

    StackRunningError where the data directory has a stack, ServiceFailedError where a service does not start.
    """
    with ExitStack() as held:
        held.enter_context(hold_stack(choice.data))
        if choice.druid is not None:
            held.enter_context(hold_stack(choice.druid.home))
        stack = _Stack(choice, show=show)
        with stack.supervisor.signals():
            try:
                stack.start()
                stack.supervisor.watch()
                show("stack", "stopping")
            except StopRequested:
                show("stack", "stopping before it was ready")
            finally:
                stack.supervisor.stop((*STOP_ORDER, *DRUID_STOP_ORDER))
        show("stack", "stopped")


class _Stack:
    """The running services and what the other processes are told of them."""

    def __init__(self, choice: Choice, *, show: Callable[[str, str], None]) -> None:
        self._choice = choice
        self._show = show
        self._services = Services(data=choice.data)
        self._state = StackState(pid=getpid(), services=choice.services)
        self._druid = choice.druid
        self._druid_programs: list[Program] = []
        self.supervisor = Supervisor(show=show, on_change=self._tell_pids)

    def start(self) -> None:
        """Start the services in order."""
        self._show("stack", f"data in {self._choice.data}")
        self._show_remote_services()
        if "demo" in self._choice.services and settings.HEADGATE_ENV != "production":
            self._start_demo()
        self._begin_druid()
        self._start_broker()
        self.supervisor.run_once(self._services.migrate())
        if self._state.demo_port:
            move_demo_source(port=self._state.demo_port)
        self._move_druid_destination()
        password = make_operator() if self._choice.makes_login and "web" in self._choice.services else None
        self._start_others()
        self._await_druid()
        self._tell(is_ready=True)
        if password:
            self._show("login", f"user {OPERATOR}, password {password} (shown this once)")
        self._show("stack", "ready")

    def _show_remote_services(self) -> None:
        for service in ("database", "broker", "lake"):
            embedded = service in settings.HEADGATE_EMBEDDED
            self._show("stack", f"{service}: {'embedded' if embedded else 'remote, as configured'}")
        if self._druid is not None or "druid" in settings.HEADGATE_EMBEDDED:
            self._show("stack", "Druid: embedded")
        elif settings.HEADGATE_DRUID is not None:
            self._show("stack", "Druid: remote, as configured")

    def _begin_druid(self) -> None:
        """Start Druid first, for it takes longest; the services after it find its addresses told already."""
        if self._druid is not None:
            self._druid.services = self._choice.services
            self._druid_programs = self._druid.programs()
            self.supervisor.begin(self._druid_programs)

    def _await_druid(self) -> None:
        if self._druid is not None:
            self.supervisor.wait_ready(self._druid_programs, patience_s=DRUID_PATIENCE_S)
            self._druid.finish_start(self._state.pids)

    def _move_druid_destination(self) -> None:
        if self._druid is not None:
            # The settings of this process are from before its ports were chosen.
            move_druid_destination(self._druid.place.config, secrets=self._druid.place.secrets)
        elif settings.HEADGATE_DRUID is not None:
            move_druid_destination(settings.HEADGATE_DRUID, secrets=settings.HEADGATE_DRUID_SECRETS)

    def _start_demo(self) -> None:
        # The sample's source names the port, so it stays the same where that is possible.
        kept = self._choice.data / "run" / "demo_port"
        port = int(kept.read_text()) if kept.exists() else DEMO_PORT
        if not is_free("127.0.0.1", port=port):
            port = broker.free_port()
        kept.write_text(str(port))
        self._tell(demo_port=port)
        self.supervisor.start([self._services.demo(port=port)], patience_s=PATIENCE_S)

    def _start_broker(self) -> None:
        if "broker" in self._choice.services and "broker" in settings.HEADGATE_EMBEDDED:
            port, password = broker.free_port(), broker.make_password()
            self._tell(broker_url=broker.make_url(port, password=password))
            self.supervisor.start([self._services.broker(port=port, password=password)], patience_s=PATIENCE_S)

    def _start_others(self) -> None:
        choice, programs = self._choice, []
        if "web" in choice.services:
            programs.append(self._services.web(host=choice.host, port=choice.port))
            self._tell(web_url=programs[-1].says.removesuffix("admin/"))
        if "workers" in choice.services:
            programs.extend(self._services.workers())
        if "worker" in choice.services:
            programs.append(self._services.single_worker())
        if "beat" in choice.services:
            programs.append(self._services.beat())
        self.supervisor.start(programs, patience_s=PATIENCE_S)
        if "flower" in choice.services:  # last, for it asks the workers at its start
            port = broker.free_port()
            login = f"user {OPERATOR}, password in {choice.data / 'secrets' / 'flower_password'}"
            self.supervisor.start([self._services.flower(port=port, login=login)], patience_s=PATIENCE_S)
            self._tell(flower_url=f"http://127.0.0.1:{port}/")

    def _tell_pids(self, pids: dict[str, int]) -> None:
        self._tell(pids=pids)
        if self._druid is not None:
            self._druid.tell(pids)

    def _tell(self, **changes: object) -> None:
        self._state = self._state.model_copy(update=changes)
        write_state(self._choice.data, self._state)
