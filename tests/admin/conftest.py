"""An operator's browser, a lake of the test's own, and no broker: messages are collected and carried out on request."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.test import Client

from ingestion import dispatch, registry
from ingestion.models import Pipeline, Run
from ingestion.runs.start import uploads
from tests.admin.pages import SAMPLE, SAMPLE_CONTRACT
from tests.runs.driver import Driver


@pytest.fixture
def lake(settings: Any, tmp_path: Path) -> Iterator[Path]:
    """An empty lake in a folder of its own, and plugins that need no network."""
    settings.HEADGATE_LAKE_URL = str(tmp_path / "lake")
    settings.HEADGATE_CONNECTORS = {
        **settings.HEADGATE_CONNECTORS,
        "pages": "tests.fakes.plugins:PagesConnector",
        "vault": "tests.admin.plugins:VaultConnector",
    }
    settings.HEADGATE_SINKS = {**settings.HEADGATE_SINKS, "memory": "tests.fakes.plugins:MemorySink"}
    registry._table.cache_clear()
    cache.clear()
    yield tmp_path / "lake"
    registry._table.cache_clear()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, lake: Path) -> Driver:
    """The broker's place: messages are collected and carried out on request."""
    driver = Driver()
    monkeypatch.setattr(dispatch, "send_as_is", driver.publish)
    monkeypatch.setattr(dispatch, "send_chord", driver.send_chord)
    monkeypatch.setattr(dispatch, "queue_depth", lambda _queue: 0)
    return driver


@pytest.fixture
def operator(transactional_db: None) -> Client:
    """A browser in which an operator is logged in."""
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("operator", password="correct horse"))
    return client


@pytest.fixture
def send_file(driver: Driver, transactional_db: None) -> Callable[..., Run]:
    """Return a function that sends a file and returns its run, not carried out yet."""

    def send(content: bytes = SAMPLE, *, name: str = "sample.csv", **values: Any) -> Run:
        stored, _ = uploads.receive(io.BytesIO(content).read, name=name)
        run, _ = uploads.ingest_upload(stored, trigger=Run.Trigger.UPLOAD, **{"contract": SAMPLE_CONTRACT, **values})
        return run

    return send


@pytest.fixture
def published(driver: Driver, send_file: Callable[..., Run]) -> Run:
    """A run that has published the sample, with rejected and duplicate rows."""
    run = send_file()
    driver.drain()
    run.refresh_from_db()
    return run


@pytest.fixture
def pipeline(published: Run) -> Pipeline:
    """The pipeline of the published run."""
    return published.pipeline
