"""The whole stack as a user meets it: every service ready, file in by HTTP, records out, no secret anywhere.

One stack for all of them: to start it takes longer than all of these tests together.
"""

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from tests.servers import wait_until
from tests.stacks import Stack, is_alive
from tests.worker.material import csv_bytes

pytestmark = [pytest.mark.worker, pytest.mark.timeout(180)]

CANARY = f"CANARY-{secrets.token_hex(8)}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for the tests of this file."""
    with Stack(tmp_path_factory.mktemp("stack") / "data", HEADGATE_LOG_LEVEL="DEBUG") as stack:
        yield stack


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[httpx.Client]:
    """An API client of the operator."""
    made = stack.manage("shell", "-c", _MAKE_TOKEN)
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip().splitlines()[-1]
    headers = {"Authorization": f"Token {token}"}
    with httpx.Client(base_url=str(stack.state.web_url), headers=headers, timeout=30) as client:
        yield client


_MAKE_TOKEN = (
    "from django.contrib.auth.models import User; from rest_framework.authtoken.models import Token; "
    "print(Token.objects.get_or_create(user=User.objects.get(username='operator'))[0].key)"
)


def ask(url: str, *, method: str = "GET", auth: tuple[str, str] | None = None) -> int:
    """Return the status of an answer."""
    return httpx.request(method, url, auth=auth).status_code


def flower_login(stack: Stack) -> tuple[str, str]:
    """Return Flower's user and password."""
    return "operator", (stack.data / "secrets" / "flower_password").read_text().strip()


def test_every_part_says_when_it_is_ready(stack: Stack) -> None:
    for part in (
        "broker",
        "web",
        "worker-control",
        "worker-load",
        "worker-fetch",
        "worker-validate",
        "beat",
        "flower",
        "demo",
    ):
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


def test_flower_answers_nothing_without_its_password(stack: Stack) -> None:
    paths = ("", "tasks", "api/tasks", "api/workers", "metrics", "healthcheck", "static/css/flower.css", "nowhere")
    ways: list[dict[str, Any]] = [{}, {"method": "POST"}, {"auth": ("operator", "wrong")}]

    answers = {f"{path} {way}": ask(f"{stack.state.flower_url}{path}", **way) for path in paths for way in ways}

    assert {place: status for place, status in answers.items() if status != 401} == {}


def test_flower_answers_with_its_password(stack: Stack) -> None:
    paths = ("workers", "tasks", "api/workers", "metrics", "healthcheck", "api/queues/length")

    answers = {path: ask(f"{stack.state.flower_url}{path}", auth=flower_login(stack)) for path in paths}

    assert {path: status for path, status in answers.items() if status != 200} == {}


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


def ended(client: httpx.Client, run: int) -> dict[str, object]:
    """Return the run once it has ended."""
    wait_until(
        lambda: client.get(f"api/v1/runs/{run}").json()["state"] in {"succeeded", "partial", "failed", "cancelled"},
        what="the end of the run",
    )
    found: dict[str, object] = client.get(f"api/v1/runs/{run}").json()
    return found


def test_a_file_sent_by_http_is_published_and_served(stack: Stack, client: httpx.Client) -> None:
    answer = client.post(
        "api/v1/uploads",
        data={"datasource_name": "readings"},
        files={"file": ("readings.csv", csv_bytes(200, bad_every=50))},
    )
    assert answer.status_code == 202, answer.text
    run = answer.json()["run"]
    run_id = run["run"] if isinstance(run, dict) else run

    found = ended(client, run_id)

    # A drafted contract types the column by what most of it cannot be: text, so nothing is rejected.
    assert (found["state"], found["fetched"]) == ("succeeded", 200)
    records = client.get("api/v1/data", params={"pipeline": "readings", "limit": 1000}).json()["results"]
    assert len(records) == found["accepted"]
    assert client.get("api/v1/stats").json()["runs"]["by_state"]["succeeded"] >= 1


def test_flower_shows_ids_alone(stack: Stack, client: httpx.Client) -> None:
    tasks = httpx.get(f"{stack.state.flower_url}api/tasks", auth=flower_login(stack)).json()

    names = {task["name"] for task in tasks.values() if task["name"]}
    assert {"ingestion.plan_run", "ingestion.fetch", "ingestion.validate"} <= names
    allowed = {"run_id", "partition_id", "delivery_part_id", "delivery_id"}
    for task in tasks.values():
        kwargs = task["kwargs"] or "{}"
        assert set(eval(kwargs, {"__builtins__": {}})) <= allowed  # noqa: S307 (Flower shows a repr)
        assert task["args"] in (None, "()", "[]", "")


def test_a_secret_is_seen_nowhere(stack: Stack, client: httpx.Client) -> None:
    made = client.post(
        "api/v1/sources",
        json={
            "name": "guarded",
            "kind": "optimade",
            "config": {"base_url": "http://127.0.0.1:9/optimade"},
            "secrets": {"headers": {"X-Api-Key": CANARY}},
        },
    )
    assert made.status_code == 201, made.text
    pipeline = {"name": "guarded", "source": "guarded", "stream": "structures", "mode": "full_refresh"}
    assert client.post("api/v1/pipelines", json=pipeline).status_code == 201
    check = client.post("api/v1/sources/guarded/check")
    run = client.post("api/v1/runs", json={"pipeline": "guarded"}).json()
    run_id = run.get("run") or run.get("id")

    failed = ended(client, run_id)

    assert failed["state"] == "failed"
    answers = [made, check, client.get("api/v1/sources/guarded"), client.get(f"api/v1/runs/{run_id}/events")]
    assert not any(CANARY in answer.text for answer in answers)
    assert CANARY not in str(failed)
    assert _files_with(CANARY, stack.data) == []
    assert not _in_redis(CANARY, str(stack.state.broker_url))


def test_a_killed_worker_is_started_again_and_its_pool_does_not_outlive_it(stack: Stack) -> None:
    before = stack.state.pids["worker-validate"]
    pool = children_of(before)

    os.kill(before, signal.SIGKILL)

    wait_until(lambda: not any(is_alive(pid) for pid in pool), what="the end of the pool", patience_s=5)
    wait_until(lambda: stack.log.count("worker-validate | ready") == 2, what="the second start of the worker")
    assert pool
    assert stack.state.pids["worker-validate"] != before


def _files_with(text: str, folder: Path) -> list[str]:
    needle = text.encode()
    return [str(path) for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


def _in_redis(text: str, url: str) -> bool:
    needle = text.encode()
    for number in range(3):
        client = redis.Redis.from_url(url.rpartition("/")[0] + f"/{number}")
        for key in client.keys("*"):
            if needle in key or needle in (client.dump(key) or b""):
                return True
    return False


def children_of(pid: int) -> list[int]:
    """Return the processes that a process started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
