"""Clients of each kind, a lake of the test's own, and no broker: messages are collected and carried out on request."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.test import Client
from rest_framework.authtoken.models import Token

from ingestion import dispatch, registry
from ingestion.models import Destination, Pipeline, Run, Source
from ingestion.runs.start import contracts
from ingestion.runs.work import leases
from tests.fakes import plugins
from tests.runs.driver import Driver

PASSWORD = "correct horse battery"
CONTRACT = {
    "name": "sample",
    "key": ["id"],
    "columns": [
        {"name": "id", "type": "integer", "nullable": False},
        {"name": "formula", "type": "string", "pattern": "^[A-Z].*"},
        {"name": "energy", "type": "number", "min": -100, "max": 100},
    ],
}
CSV = b"id,formula,energy\n1,SiO2,-3.5\n2,nope,1\n3,Fe,500\n4,Al2O3,2\n"


class Api:
    """A client that sends JSON with one user's token."""

    def __init__(self, token: str | None = None) -> None:
        self.client = Client(raise_request_exception=False)
        self.headers = {"Authorization": f"Token {token}"} if token else {}

    def send(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> Any:
        """Return the response to a request; paths begin below /api."""
        options: dict[str, Any] = {} if body is None else {"data": body, "content_type": "application/json"}
        sent = {**self.headers, **(headers or {})}
        return getattr(self.client, method.lower())(f"/api{path}", headers=sent, **options)

    def get(self, path: str, **options: Any) -> Any:
        """Return the response to a GET."""
        return self.send("get", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """Return the response to a POST."""
        return self.send("post", path, body, **options)

    def raw(self, path: str, data: Any, **options: Any) -> Any:
        """Return the response to a POST of these bytes, or of a form."""
        headers = {**self.headers, **options.pop("headers", {})}
        return self.client.post(f"/api{path}", data, headers=headers, **options)


def make_api(name: str, *, is_staff: bool = False) -> Api:
    """Return a client of a new user."""
    user = get_user_model().objects.create_user(name, password=PASSWORD, is_staff=is_staff)
    return Api(Token.objects.create(user=user).key)


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """Return the body of a problem after looking that it is one, and this one."""
    assert response["Content-Type"] == "application/problem+json", response.content[:500]
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    assert body["status"] == status
    assert body["type"] == f"urn:headgate:problem:{code}"
    assert body["title"]
    assert body["instance"].startswith("/")
    assert body["request_id"] == response["X-Request-ID"]
    assert not re.search(r"(?<![\w?'])[?](?![\w?'])", body["detail"]), "a value of the sentence is missing"
    return body


@pytest.fixture(autouse=True)
def lake(settings: Any, tmp_path: Path) -> Iterator[Path]:
    """An empty lake in a folder of its own, and plugins that need no network."""
    settings.HEADGATE_LAKE_URL = str(tmp_path / "lake")
    settings.HEADGATE_SINKS = {**settings.HEADGATE_SINKS, "vault": "tests.api.plugins:VaultSink"}
    settings.HEADGATE_CONNECTORS = {**settings.HEADGATE_CONNECTORS, "vault": "tests.api.plugins:VaultConnector"}
    registry._table.cache_clear()
    cache.clear()
    yield tmp_path / "lake"
    registry._table.cache_clear()


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """The broker's place: messages are collected and carried out on request."""
    driver = Driver()
    monkeypatch.setattr(dispatch, "send_as_is", driver.publish)
    monkeypatch.setattr(dispatch, "send_chord", driver.send_chord)
    monkeypatch.setattr(dispatch, "queue_depth", lambda _queue: 0)
    # No lease of a test ends before its work, and a thread of its own would keep a connection to the test database.
    monkeypatch.setattr(leases._watcher, "add", lambda _lease: None)
    return driver


@pytest.fixture
def anonymous() -> Api:
    """A client without a token."""
    return Api()


@pytest.fixture
def user(db: None) -> Api:
    """A client with the token of somebody who may see and run."""
    return make_api("user")


@pytest.fixture
def staff(db: None) -> Api:
    """A client with the token of somebody who may configure."""
    return make_api("staff", is_staff=True)


@pytest.fixture
def make_pipeline(db: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pipeline]:
    """Return a maker of pipelines from uploads into the catalog; a run of one may be asked for without a file."""
    monkeypatch.setattr("ingestion.runs.start.creation._last_uploads", lambda _pipeline: [])

    def make(name: str = "items", **fields: Any) -> Pipeline:
        source, _ = Source.objects.get_or_create(name="uploads", defaults={"kind": "files"})
        catalog, _ = Destination.objects.get_or_create(name="catalog", defaults={"kind": "catalog"})
        values = {"stream": "rows", "contract": contracts.save_contract(CONTRACT), **fields}
        pipeline = Pipeline.objects.create(name=name, source=source, **values)
        pipeline.destinations.add(catalog)
        return pipeline

    return make


@pytest.fixture
def pipeline(make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    """A pipeline from uploads into the catalog."""
    return make_pipeline()


@pytest.fixture
def memory(transactional_db: None, settings: Any, lake: Any, make_pipeline: Any) -> Destination:
    """A destination that can do everything, of a pipeline from uploads."""
    settings.HEADGATE_SINKS = {**settings.HEADGATE_SINKS, "memory": "tests.fakes.keeper:KeepingSink"}
    registry._table.cache_clear()
    for noted in (plugins.CALLS, plugins.TROUBLE, plugins.MemorySink.staged, plugins.MemorySink.committed):
        noted.clear()
    memory = Destination.objects.create(name="memory", kind="memory", secrets={"password": "canary-3"})
    make_pipeline().destinations.set([memory])
    return memory


@pytest.fixture
def published(memory: Destination, staff: Api, driver: Driver) -> Run:
    """A published run of two rows in the destination."""
    upload = staff.raw("/v1/uploads?name=items.csv&pipeline=items", CSV, content_type="text/csv")
    assert upload.status_code < 300, upload.content
    driver.drain()
    plugins.CALLS.clear()
    return Run.objects.get()
