"""A Druid from start to stop, on its own or as a service of a stack."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import getpid
from pathlib import Path
from typing import Self

from django.conf import settings

from ingest_project.env import foreign_environment
from ingest_project.stack.druid import layout
from ingest_project.stack.druid.classpath import resolve_classpath
from ingest_project.stack.druid.lake import lake_access
from ingest_project.stack.druid.place import DruidPlace, druid_home, embedded_place
from ingest_project.stack.druid.probes import patient_probe, want_one_replica
from ingest_project.stack.druid.tools import find_java
from ingest_project.stack.processes import Program
from ingest_project.stack.state import StackState, hold_stack, write_state
from ingest_project.stack.supervisor import ServiceFailedError, StopRequested, Supervisor

DRUID = "druid"
PATIENCE_S = 120.0
GRACE_S = 5.0
RULE_PATIENCE_S = 20.0
PROCESS_NAMES = {"zookeeper": "zookeeper", **{name: name for name in layout.SERVICES}, "broker": "druid-broker"}
"""Service -> the name of its process in a stack, where `broker` is another."""

SERVICES_STOP = tuple(PROCESS_NAMES[name] for name in layout.SERVICES)
STOP_ORDER: Sequence[Sequence[str]] = (SERVICES_STOP, ("zookeeper",))
"""A service whose ZooKeeper is gone waits for it half a minute before it ends."""

_MEMORY = {
    "zookeeper": ("-Xms32m", "-Xmx96m"),
    "coordinator": ("-Xms128m", "-Xmx384m"),
    "indexer": ("-Xms256m", "-Xmx1024m", "-XX:MaxDirectMemorySize=300m"),
    "historical": ("-Xms128m", "-Xmx384m", "-XX:MaxDirectMemorySize=300m"),
    "broker": ("-Xms128m", "-Xmx512m", "-XX:MaxDirectMemorySize=300m"),
}
_SAYS = {"coordinator": "Coordinator and Overlord", "broker": "queries"}


@dataclass
class EmbeddedDruid:
    """The Druid of one data directory: made ready, started, described to other processes."""

    data: Path
    java: Path
    jars: Sequence[str] = field(repr=False)
    services: Sequence[str] = (DRUID,)
    """Programs that its supervisor runs besides."""

    ports: dict[str, int] = field(default_factory=dict)
    is_ready: bool = False

    @classmethod
    def prepare(cls, data: Path, *, say: Callable[[str], None]) -> Self:
        """Return a Druid that can be started; ConfigError where this machine lacks what it needs.

        StopRequested where a person interrupts it.
        """
        java = find_java()
        jars = resolve_classpath(
            druid_home(data),
            java=java,
            version=settings.HEADGATE_DRUID_VERSION,
            extensions=settings.HEADGATE_DRUID_EXTENSIONS,
            say=say,
        )
        return cls(data=data, java=java, jars=jars)

    @property
    def home(self) -> Path:
        """Return its folder."""
        return druid_home(self.data)

    @property
    def place(self) -> DruidPlace:
        """Return where a destination finds it."""
        return embedded_place(self.ports)

    def programs(self) -> list[Program]:
        """Return its services, their files written and their addresses told, so that all can start at once."""
        self.ports = layout.choose_ports(self.home)
        access = lake_access(settings.HEADGATE_LAKE_URL) if settings.HEADGATE_DRUID_EXTENSIONS else None
        layout.write_files(
            self.home, ports=self.ports, jars=self.jars, more=access.properties if access is not None else ()
        )
        self.tell({})
        # A task may name variables of its process, so these processes do not get the secrets of this one.
        environment = foreign_environment(
            {"HEADGATE_DATA": str(self.data), **(access.variables if access is not None else {})}
        )
        return [self._program(service, environment=environment) for service in ("zookeeper", *layout.SERVICES)]

    def finish_start(self, pids: Mapping[str, int]) -> None:
        """Give the ready Druid the rule of a single machine and tell that it is ready."""
        deadline = time.monotonic() + RULE_PATIENCE_S
        while not want_one_replica(self.ports):
            if time.monotonic() > deadline:
                msg = f"coordinator did not take the rule of one replica; see {self.home / 'log' / 'coordinator.log'}"
                raise ServiceFailedError(msg)
            time.sleep(0.2)
        self.is_ready = True
        self.tell(pids)

    def tell(self, pids: Mapping[str, int]) -> None:
        """Describe the Druid to other processes, its services by their process ids."""
        own = {service: pids[name] for service, name in PROCESS_NAMES.items() if name in pids}
        state = StackState(
            pid=getpid(), services=tuple(self.services), is_ready=self.is_ready, druid_ports=self.ports, pids=own
        )
        write_state(self.home, state)

    def _program(self, service: str, *, environment: Mapping[str, str]) -> Program:
        main = (
            ("org.apache.zookeeper.server.quorum.QuorumPeerMain", "./conf/zoo.cfg")
            if service == "zookeeper"
            else ("org.apache.druid.cli.Main", "server", service)
        )
        return Program(
            name=PROCESS_NAMES[service],
            argv=(str(self.java), "@conf/jvm.flags", *_MEMORY[service], f"@conf/{service}.classpath", *main),
            environment=environment,
            says=f"http://127.0.0.1:{self.ports[service]} ({_SAYS[service]})" if service in _SAYS else "",
            is_ready=patient_probe(service, ports=self.ports),
            log=self.home / "log" / f"{service}.log",
            folder=self.home,
            grace_s=GRACE_S,
        )


def run_druid(druid: EmbeddedDruid, *, show: Callable[[str, str], None]) -> None:
    """Start a Druid, keep it running until a signal, and stop it; nothing of it is left afterwards.

    StackRunningError where the data directory has one, ServiceFailedError where a service does not start.
    """
    with hold_stack(druid.home):
        pids: dict[str, int] = {}

        def tell(changed: Mapping[str, int]) -> None:
            pids.update(changed)
            druid.tell(pids)

        supervisor = Supervisor(show=show, on_change=tell)
        with supervisor.signals():
            try:
                show(DRUID, f"data in {druid.home}")
                supervisor.start(druid.programs(), patience_s=PATIENCE_S)
                druid.finish_start(pids)
                show(DRUID, "ready")
                supervisor.watch()
                show(DRUID, "stopping")
            except StopRequested:
                show(DRUID, "stopping before it was ready")
            finally:
                supervisor.stop(STOP_ORDER)
        show(DRUID, "stopped")
