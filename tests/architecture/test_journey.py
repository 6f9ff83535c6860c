"""How many files a row crosses: the more there are, the longer it takes to understand what becomes of it."""

from pathlib import Path
from typing import Any

import pytest

from tests.architecture.journey import csv_journey, files_in_document, page_journey
from tests.fakes.paged_provider import PagedProvider
from tests.runs.conftest import driver
from tests.runs.driver import Driver
from tests.servers import Valkey

__all__ = ["driver"]

# Each may fall and not rise; who makes a way longer says why in this place.
CSV_FILES, CSV_FILES_DELIVERED = 61, 81
PAGE_FILES, PAGE_FILES_DELIVERED = 50, 70


@pytest.fixture(autouse=True)
def lake(settings: Any, tmp_path: Path) -> None:
    """A lake of the test's own."""
    settings.HEADGATE_LAKE_URL = str(tmp_path / "lake")


@pytest.mark.django_db(transaction=True)
def test_an_uploaded_csv_crosses_few_files(driver: Driver) -> None:
    alone, delivered = (csv_journey(driver, delivers=delivers) for delivers in (False, True))

    assert len(alone) <= CSV_FILES, "\n".join(alone)
    assert len(delivered) <= CSV_FILES_DELIVERED, "\n".join(delivered)
    assert set(alone) <= files_in_document(), "python -m tests.architecture.journey --write"


@pytest.mark.django_db(transaction=True)
def test_a_page_of_an_api_crosses_few_files(driver: Driver, settings: Any, valkey: Valkey) -> None:
    settings.HEADGATE_REDIS_URL = valkey.url(6)
    with PagedProvider(pages=1, per_page=5) as provider:
        settings.HEADGATE_EGRESS_ALLOW = [provider.server.address.partition("//")[2]]
        alone, delivered = (page_journey(driver, provider.url, delivers=delivers) for delivers in (False, True))

    assert len(alone) <= PAGE_FILES, "\n".join(alone)
    assert len(delivered) <= PAGE_FILES_DELIVERED, "\n".join(delivered)
    assert set(alone) <= files_in_document(), "python -m tests.architecture.journey --write"
