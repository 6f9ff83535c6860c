"""The load of the fault tests, and the table they print."""

import json
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from tests.fakes.paged_provider import PagedProvider
from tests.faults.harness import TABLE, Load
from tests.faults.share import Share, share_of
from tests.worker.cluster import Cluster
from tests.worker.conftest import make_cluster, own_valkey

__all__ = ["make_cluster", "own_valkey"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the seed does not inject on this database."""
    share, database = share_of(config), config.getoption("--database")
    left_out = [item for item in items if item.get_closest_marker("faults") and not _is_on(item, share, database)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _is_on(item: pytest.Item, share: Share, database: str) -> bool:
    if item.get_closest_marker("postgres"):
        return database == "postgres"
    return share.is_on(item.nodeid, database)


@pytest.fixture(scope="session")
def share(request: pytest.FixtureRequest) -> Share:
    """The share of the fault matrix to inject."""
    return share_of(request.config)


@pytest.fixture
def provider() -> Iterator[PagedProvider]:
    """An API of three pages of five records."""
    with PagedProvider(pages=3, per_page=5) as provider:
        yield provider


@pytest.fixture
def make_load(make_cluster: Callable[..., Cluster], provider: PagedProvider) -> Callable[..., Load]:
    """Return a maker of clusters with the load, under the given failpoints."""

    def make(*, failpoints: dict[str, object] | None = None, **changes: str) -> Load:
        armed = {"HEADGATE_FAILPOINTS": json.dumps(failpoints)} if failpoints else {}
        address = urlsplit(provider.url).netloc
        cluster = make_cluster(HEADGATE_PARTITION_BYTES="500", HEADGATE_EGRESS_ALLOW=address, **armed, **changes)
        return Load(cluster, provider)

    return make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was done and what was found."""
    if not TABLE:
        return
    seed = share_of(config).seed
    part = f"the twentieth of seed {seed}; HEADGATE_DRILL_SEED={seed} repeats it" if seed else "all of it"
    terminalreporter.write_line(f"\nThe fault matrix: {part}.")
    head = f"{'fault':42} {'database':11} {'injections':>10} {'expected':>9} {'found':>7} {'doubled':>8} {'seconds':>8}"
    terminalreporter.write_line(head)
    for line in TABLE:
        terminalreporter.write_line(
            f"{line.fault:42} {line.database:11} {line.injections:10} {line.expected:9} {line.found:7} "
            f"{line.doubled:8} {line.seconds:8.1f}"
        )
