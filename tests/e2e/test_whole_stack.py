"""The whole stack as a user meets it: file in by HTTP, records out, Flower behind its password, no secret anywhere."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from tests.servers import wait_until
from tests.stacks import Stack
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


def test_flower_asks_for_its_password_and_shows_ids_alone(stack: Stack, client: httpx.Client) -> None:
    url = str(stack.state.flower_url).rstrip("/")
    password = (stack.data / "secrets" / "flower_password").read_text().strip()

    anonymous = [httpx.get(f"{url}{path}").status_code for path in ("/", "/api/tasks", "/metrics", "/healthcheck")]
    tasks = httpx.get(f"{url}/api/tasks", auth=("operator", password)).json()

    names = {task["name"] for task in tasks.values() if task["name"]}
    assert anonymous == [401] * 4
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
