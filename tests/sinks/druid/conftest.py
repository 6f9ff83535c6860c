"""A fake Druid for each test, and a bench to deliver from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.druid import FakeDruid
from tests.sinks.druid.support import Bench, memory_bench


@pytest.fixture
def druid() -> Iterator[FakeDruid]:
    with FakeDruid() as running:
        yield running


@pytest.fixture
def bench(druid: FakeDruid, tmp_path: Path) -> Bench:
    """A lake in memory; rows go inline."""
    return memory_bench(druid, tmp_path)


@pytest.fixture
def local(druid: FakeDruid, tmp_path: Path) -> Bench:
    """A folder that Druid sees as well."""
    return Bench(druid, tmp_path, shares_disk=True)
