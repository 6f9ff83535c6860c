"""Clusters of real workers for the tests of this folder and of the faults."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.servers import Valkey
from tests.worker.cluster import Cluster


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A Valkey of the test's own, which it may flush and stop."""
    with Valkey() as server:
        yield server


@pytest.fixture
def make_cluster(
    request: pytest.FixtureRequest, own_valkey: Valkey, django_db_blocker: Any
) -> Iterator[Callable[..., Cluster]]:
    """Return a maker of clusters on the chosen database."""
    is_postgres = request.config.getoption("--database") == "postgres"
    with ExitStack() as stack:

        def make(**changes: str) -> Cluster:
            postgres = request.getfixturevalue("postgres") if is_postgres else None
            return stack.enter_context(
                Cluster(valkey=own_valkey, postgres=postgres, blocker=django_db_blocker, **changes)
            )

        yield make
