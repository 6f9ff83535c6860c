"""A key of its own for every test on the shared Valkey server, and a server of its own for tests that hurt it."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.servers import Valkey


@pytest.fixture
def key() -> str:
    return f"source:{uuid4().hex}"


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server
