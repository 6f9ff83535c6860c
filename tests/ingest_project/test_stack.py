"""Whole stacks: ready, side by side, and gone without a trace."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from tests.servers import ROOT, free_port, product_environment, wait_until
from tests.stacks import Stack, is_alive, processes_of


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with all its parts."""
    with Stack(tmp_path_factory.mktemp("stack") / "data") as running:
        yield running


def ask(url: str, *, method: str = "GET", login: str = "") -> int:
    """Return the status of an answer."""
    address = urlsplit(url)
    headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
    with closing(http.client.HTTPConnection(str(address.hostname), address.port or 80, timeout=10)) as connection:
        connection.request(method, address.path, headers=headers)
        return connection.getresponse().status


def flower_login(stack: Stack) -> str:
    """Return Flower's user and password."""
    return f"operator:{(stack.data / 'secrets' / 'flower_password').read_text().strip()}"


def test_every_part_says_when_it_is_ready(stack: Stack) -> None:
    for part in ("broker", "web", "worker-control", "worker-fetch", "worker-validate", "beat", "flower", "demo"):
        assert f"{part:<15} | ready" in stack.log


def test_the_first_start_shows_a_login_that_works(stack: Stack) -> None:
    line = next(line for line in stack.log.splitlines() if line.startswith("login"))
    password = line.split("password ")[1].split()[0]
    script = f"""
from django.contrib.auth import authenticate
print(authenticate(username="operator", password={password!r}) is not None)"""

    answer = stack.manage("shell", "--no-imports", "--command", script)

    assert answer.stdout.strip() == "True", answer.stderr
    assert stack.log.count(password) == 1


def test_the_web_answers(stack: Stack) -> None:
    assert ask(f"{stack.state.web_url}admin/login/") == 200


def test_other_commands_attach_to_the_running_broker(stack: Stack) -> None:
    script = "from django.conf import settings; print(settings.CELERY_BROKER_URL, settings.HEADGATE_REDIS_URL)"

    answer = stack.manage("shell", "--no-imports", "--command", script)

    broker_url, limiter_url = answer.stdout.split()
    assert broker_url == stack.state.broker_url
    with closing(redis.Redis.from_url(limiter_url)) as client:
        assert client.ping()


def test_the_broker_asks_for_its_password(stack: Stack) -> None:
    port = urlsplit(str(stack.state.broker_url)).port

    with closing(redis.Redis(port=int(port or 0))) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_what_the_stack_tells_is_readable_by_its_owner_alone(stack: Stack) -> None:
    assert (stack.data / "run" / "stack.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "path", ["", "tasks", "api/workers", "metrics", "healthcheck", "static/css/flower.css", "nowhere"]
)
def test_flower_answers_nothing_without_its_password(stack: Stack, path: str) -> None:
    url = f"{stack.state.flower_url}{path}"

    assert ask(url) == 401
    assert ask(url, method="POST") == 401
    assert ask(url, login="operator:wrong") == 401


@pytest.mark.parametrize("path", ["workers", "tasks", "api/workers", "metrics", "healthcheck", "api/queues/length"])
def test_flower_answers_with_its_password(stack: Stack, path: str) -> None:
    assert ask(f"{stack.state.flower_url}{path}", login=flower_login(stack)) == 200


def test_where_names_the_addresses(stack: Stack) -> None:
    answer = stack.manage("where")

    assert str(stack.state.web_url) in answer.stdout
    assert str(stack.state.flower_url) in answer.stdout


def test_a_second_start_in_the_same_folder_is_refused(stack: Stack) -> None:
    answer = stack.manage("up")

    assert answer.returncode == 1
    assert answer.stderr.strip().endswith(
        f"A stack already runs in {stack.data}. Stop it with: manage.py down --data {stack.data}"
    )
    assert "Traceback" not in answer.stderr


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = manage(tmp_path, "up", "--port", str(port))

    assert answer.returncode == 1
    assert f"Port {port} of 127.0.0.1 is in use." in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_two_stacks_run_side_by_side_and_the_end_of_one_leaves_the_other(stack: Stack, tmp_path: Path) -> None:
    with Stack(tmp_path / "second", parts="broker,worker") as second:
        assert second.state.broker_url != stack.state.broker_url
        assert len(processes_of(second.data)) >= 4
        assert second.process is not None
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(60) == 0

        assert processes_of(second.data) == []
        assert not (second.data / "run" / "stack.json").exists()
        assert second.log.rstrip().endswith("stopped")
    assert ask(f"{stack.state.web_url}admin/login/") == 200


def test_a_killed_worker_is_started_again_and_its_pool_does_not_outlive_it(stack: Stack) -> None:
    before = stack.state.pids["worker-validate"]
    pool = children_of(before)

    os.kill(before, signal.SIGKILL)

    wait_until(lambda: not any(is_alive(pid) for pid in pool), what="the end of the pool", patience_s=5)
    wait_until(lambda: stack.log.count("worker-validate | ready") == 2, what="the second start of the worker")
    assert pool
    assert stack.state.pids["worker-validate"] != before


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
def test_a_stack_of_parts_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
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


def children_of(pid: int) -> list[int]:
    """Return the processes that a process started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
