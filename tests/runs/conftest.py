"""A lake, plugins without a network and a driver for the tests of the use cases."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingestion import dispatch, registry
from ingestion.models import Contract, Destination, Pipeline, Source
from ingestion.runs.start import contracts
from tests.fakes import plugins
from tests.runs.driver import Driver

CONTRACT = {
    "name": "items",
    "key": ["id"],
    "columns": [
        {"name": "id", "type": "integer", "nullable": False},
        {"name": "name", "type": "string"},
        {"name": "version", "type": "datetime"},
    ],
    "time": "version",
}


@pytest.fixture(autouse=True)
def lake(settings: Any, tmp_path: Path) -> Path:
    """An empty lake in a folder of its own, and plugins that need no network."""
    settings.HEADGATE_LAKE_URL = str(tmp_path / "lake")
    settings.HEADGATE_CONNECTORS = {**settings.HEADGATE_CONNECTORS, "pages": "tests.fakes.plugins:PagesConnector"}
    settings.HEADGATE_SINKS = {**settings.HEADGATE_SINKS, "memory": "tests.fakes.plugins:MemorySink"}
    registry._table.cache_clear()
    plugins.CALLS.clear()
    plugins.TROUBLE.clear()
    plugins.MemorySink.staged.clear()
    plugins.MemorySink.committed.clear()
    return tmp_path / "lake"


@pytest.fixture(autouse=True)
def clear_registry() -> Iterator[None]:
    """Forget the test's plugins afterwards."""
    yield
    registry._table.cache_clear()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """The broker's place: messages are collected and carried out on request."""
    driver = Driver()
    monkeypatch.setattr(dispatch, "send_as_is", driver.publish)
    monkeypatch.setattr(dispatch, "send_chord", driver.send_chord)
    monkeypatch.setattr(dispatch, "queue_depth", lambda _queue: 0)
    monkeypatch.setattr(dispatch, "messages_under_way", lambda _queue: None)
    return driver


@pytest.fixture
def contract(transactional_db: None) -> Contract:
    """The contract of the pages connector's records."""
    return contracts.save_contract(CONTRACT)


@pytest.fixture
def make_pipeline(contract: Contract) -> Callable[..., Pipeline]:
    """Return a maker of pipelines from the pages connector into the memory sink."""

    def make(name: str = "items", *, config: dict[str, Any] | None = None, **fields: Any) -> Pipeline:
        source = Source.objects.create(name=f"{name}-source", kind="pages", config=config or {})
        destination, _ = Destination.objects.get_or_create(name="memory", defaults={"kind": "memory"})
        values = {"stream": "items", "contract": contract, **fields}
        pipeline = Pipeline.objects.create(name=name, source=source, **values)
        pipeline.destinations.add(destination)
        return pipeline

    return make
