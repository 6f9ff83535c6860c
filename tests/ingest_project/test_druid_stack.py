"""`manage.py druid` and `up --with-druid`, with a stand-in for Java that is ready at once."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from ingest_project.stack.druid.place import druid_home, read_druid
from ingest_project.stack.state import StackState, hold_stack, write_state
from tests.ingest_project.machines import Machine
from tests.servers import ROOT, free_port, product_environment, wait_until
from tests.stacks import Stack, processes_of

pytestmark = pytest.mark.waits

SERVICES = ("zookeeper", "coordinator", "indexer", "historical", "druid-broker")


class Host:
    """A data directory on a machine with a stand-in for Java."""

    def __init__(self, folder: Path) -> None:
        self.machine = Machine(folder / "bin")
        self.data = folder / "data"
        self.home = druid_home(self.data)
        self.home.mkdir(parents=True)

    @property
    def variables(self) -> dict[str, str]:
        """Return what its processes are told."""
        return {"PATH": self.machine.path, "JAVA_HOME": ""}

    def manage(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Return how a command ended."""
        return subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *words],
            env=product_environment(self.data, **self.variables, **variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            # Test workers ignore Ctrl-C, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def call(self, *words: str) -> str:
        """Return what a command of this process prints, or the error it ends with."""
        out = io.StringIO()
        with override_settings(HEADGATE_DATA_DIR=self.data):
            try:
                call_command(*words, stdout=out)
            except CommandError as error:
                return f"error: {error}"
        return out.getvalue()

    def state(self) -> StackState:
        """Return what the running Druid tells."""
        state = read_druid(self.data)
        assert state is not None
        return state


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine on which nothing runs yet."""
    return Host(tmp_path)


def test_up_is_quiet_says_where_it_is_and_down_ends_it(host: Host) -> None:
    up = host.manage("druid", "up", "--detach")

    assert up.returncode == 0, up.stderr
    ports = host.state().druid_ports
    for service in SERVICES:
        assert f"{service:<15} | ready" in up.stdout
    assert f"http://127.0.0.1:{ports['broker']} (queries)" in up.stdout
    assert "asked:" not in up.stdout  # their own lines
    assert "asked:" in (host.home / "log" / "broker.log").read_text()
    assert f"broker       {ports['broker']}  yes" in host.call("druid", "status")
    assert "A Druid already runs" in host.call("druid", "up")

    down = host.call("druid", "down")

    assert down.startswith("Stopped the Druid")
    assert processes_of(host.data) == []
    assert host.call("druid", "status").startswith("error: No Druid runs")
    assert host.call("druid", "down").startswith("No Druid runs")


@pytest.mark.slow
def test_a_service_that_dies_at_its_start_shows_the_end_of_its_log(host: Host) -> None:
    (host.home / "fail-historical").touch()

    up = host.manage("druid", "up")

    assert up.returncode == 1
    assert "historical      | Exception in thread main: no such thing" in up.stdout
    log = host.home / "log" / "historical.log"
    expected = f"historical ended with code 1 while it was starting; see its last lines above, and all of them in {log}"
    assert expected in up.stderr
    assert "Traceback" not in up.stderr
    assert processes_of(host.data) == []


@pytest.mark.slow
def test_sigkill_of_its_supervisor_leaves_nothing(host: Host) -> None:
    host.manage("druid", "up", "--detach")
    assert len(processes_of(host.data)) == 1 + len(SERVICES)

    os.kill(host.state().pid, signal.SIGKILL)

    wait_until(lambda: processes_of(host.data) == [], what="the end of every service", patience_s=10)
    assert "No Druid runs" in host.call("druid", "status")


def test_what_cannot_be_resolved_is_a_sentence_with_its_code(host: Host) -> None:
    up = host.manage("druid", "up", HEADGATE_DRUID_VERSION="404")

    assert up.returncode == 1
    assert "Could not find druid:404" in up.stderr
    assert up.stderr.strip().endswith("[druid.unresolvable]")
    assert not (host.home / "classpath.json").exists()


def test_ctrl_c_while_maven_works_is_one_sentence(host: Host) -> None:
    host.machine.install("mvn", "#!/bin/sh\nkill -INT $PPID\nexec sleep 60\n")

    up = host.manage("druid", "up")

    assert (up.returncode, up.stderr.strip()) == (130, "CommandError: Stopped before it began.")
    assert processes_of(host.data) == []


@pytest.mark.slow
def test_a_stack_brings_its_druid_along(host: Host) -> None:
    with Stack(host.data, services="broker,druid", **host.variables) as stack:
        for service in SERVICES:
            assert f"{service:<15} | ready" in stack.log
        ports = host.state().druid_ports

        where, down = host.call("where"), host.call("druid", "down")
        script = "from django.conf import settings as s; print(s.HEADGATE_DRUID['broker_url'], s.HEADGATE_EGRESS_ALLOW)"
        told = stack.manage("shell", "--no-imports", "--command", script).stdout

        assert f"http://127.0.0.1:{ports['broker']} (Broker)" in where
        assert "Druid runs as a service of the stack" in down
        broker, coordinator = f"127.0.0.1:{ports['broker']}", f"127.0.0.1:{ports['coordinator']}"
        assert told.strip() == f"http://{broker} {[coordinator, broker]}"
    lines = [line for line in stack.log.splitlines() if "stopp" in line]
    assert lines[-1] == "stack           | stopped"
    assert processes_of(host.data) == []


@pytest.mark.slow
def test_a_detached_stack_has_its_druid_too(host: Host) -> None:
    up = host.manage("up", "--detach", "--with-druid", "--services", "broker,web", "--port", str(free_port()))
    try:
        assert up.returncode == 0, up.stderr
        assert "druid-broker    | ready" in up.stdout
        assert "stack           | Druid: embedded" in up.stdout
    finally:
        assert "Stopped" in host.manage("down").stdout

    assert processes_of(host.data) == []


def test_a_second_druid_is_refused(host: Host) -> None:
    with hold_stack(host.home):
        write_state(host.home, StackState(pid=1, services=("druid",), druid_ports={"coordinator": 1, "broker": 2}))

        beside_own = host.call("up", "--services=broker", "--with-druid")
    with override_settings(HEADGATE_DRUID={"url": "http://router:8888"}):
        beside_remote = host.call("up", "--parts=broker", "--with-druid")  # the former name

    assert "the stack uses it without --with-druid" in beside_own
    assert "DRUID_URL names a Druid" in beside_remote


def test_druid_comes_up_before_the_others_know_of_it_and_says_so(host: Host) -> None:
    with hold_stack(host.data):
        write_state(host.data, StackState(pid=1, services=("broker",)))
        try:
            up = host.manage("druid", "up", "--detach")
        finally:
            host.call("druid", "down")

    assert "stop the stack and start it again" in up.stdout


def test_down_names_a_druid_that_goes_on(host: Host) -> None:
    with hold_stack(host.home):
        write_state(host.home, StackState(pid=1, services=("druid",), druid_ports={"coordinator": 1, "broker": 2}))
        beside = host.call("down")

    assert "manage.py druid down" in beside
    assert "Nothing runs" not in beside
    assert "Nothing runs" in host.call("down")
