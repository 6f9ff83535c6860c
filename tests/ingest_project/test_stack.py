"""Stacks side by side, refused, and gone without a trace; what one shows while it runs stands in tests/e2e."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ingest_project.stack.state import StackState
from tests.servers import ROOT, free_port, product_environment, wait_until
from tests.stacks import Stack, processes_of

pytestmark = pytest.mark.waits


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = manage(tmp_path, "up", "--port", str(port))

    assert answer.returncode == 1
    assert f"Port {port} of 127.0.0.1 is in use." in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_two_stacks_run_side_by_side_and_the_end_of_one_leaves_the_other(tmp_path: Path) -> None:
    with (
        Stack(tmp_path / "first", services="broker,web") as stack,
        Stack(tmp_path / "second", services="broker,worker") as second,
    ):
        assert second.state.broker_url != stack.state.broker_url
        assert len(processes_of(second.data)) >= 4
        assert second.process is not None
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(60) == 0

        assert processes_of(second.data) == []
        assert not (second.data / "run" / "stack.json").exists()
        assert second.log.rstrip().endswith("stopped")
        assert httpx.get(f"{stack.state.web_url}admin/login/").status_code == 200


@pytest.mark.slow
def test_sigkill_of_the_supervisor_leaves_no_process(tmp_path: Path) -> None:
    with Stack(tmp_path / "data") as stack:
        assert stack.process is not None
        assert len(processes_of(stack.data)) >= 15

        stack.process.kill()
        stack.process.wait(10)

        wait_until(lambda: processes_of(stack.data) == [], what="the end of every part", patience_s=10)
        assert "Nothing runs" in stack.manage("down").stdout


@pytest.mark.slow
def test_a_stack_of_chosen_services_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    code = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
    starter = subprocess.Popen(
        [sys.executable, "-c", code, str(ROOT / "manage.py"), "up", "--services", "broker,worker"],
        env=product_environment(data),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    assert any("stack           | ready" in line for line in starter.stdout)

    starter.kill()
    starter.wait(10)

    wait_until(lambda: processes_of(data) == [], what="the end of every part", patience_s=40)
    starter.stdout.close()


@pytest.mark.slow
def test_up_detached_returns_when_ready_and_down_ends_it(tmp_path: Path) -> None:
    data = tmp_path / "data"

    answer = manage(data, "up", "--detach", "--services", "broker,web", "--port", str(free_port()))
    try:
        assert answer.returncode == 0, answer.stderr
        login = next(line for line in answer.stdout.splitlines() if line.startswith("login"))
        assert login.split("password ")[1].split()[0] not in (data / "run" / "up.log").read_text()
        assert json.loads((data / "run" / "stack.json").read_text())["is_ready"]
    finally:
        ended = manage(data, "down")

    assert "Stopped" in ended.stdout
    assert processes_of(data) == []


def test_an_unknown_variable_stops_every_command_with_one_sentence(tmp_path: Path) -> None:
    answer = manage(tmp_path, "check", HEADGATE_LAEK_URL="x")

    assert answer.returncode == 2
    expected = (
        "HEADGATE_LAEK_URL is not a setting of Headgate. Did you mean HEADGATE_LAKE_URL? [config.unknown_variable]"
    )
    assert answer.stderr.strip() == expected


def manage(data: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Return how a command ended."""
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *words],
        env=product_environment(data, **variables),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_a_stack_that_an_older_version_started_is_still_found() -> None:
    told = '{"pid": 7, "parts": ["broker"], "is_ready": true}'

    state = StackState.model_validate_json(told)

    assert (state.pid, state.is_ready) == (7, True)
