"""A pipeline, batches small enough to be many, and a database that threads can share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection, connections

from ingestion.catalog import writing
from ingestion.models import Pipeline, Source


@pytest.fixture
def pipeline(db: None) -> Pipeline:
    source = Source.objects.create(name="lab", kind="files")
    return Pipeline.objects.create(name="samples", source=source, stream="samples")


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_BATCH_ROWS", "SMALLEST_BATCH_ROWS", "LARGEST_BATCH_ROWS"):
        monkeypatch.setattr(writing, name, 10)


@pytest.fixture
def file_database(transactional_db: None, tmp_path: Path) -> Iterator[None]:
    """Put SQLite into a file, as in the product: one in memory locks readers out while somebody writes."""
    if connection.vendor != "sqlite":
        yield
        return
    kept, kept_name = connections["default"], connections.settings["default"]["NAME"]
    connections.settings["default"]["NAME"] = str(tmp_path / "catalog.sqlite3")
    connections["default"] = connections.create_connection("default")
    call_command("migrate", verbosity=0)
    yield
    connections["default"].close()
    connections["default"], connections.settings["default"]["NAME"] = kept, kept_name
