"""The OPTIMADE connector against a provider that goes wrong, over the real HTTP client."""

import json
from collections.abc import Iterator

import pytest

from connectors.materials.optimade import OptimadeConfig, OptimadeConnector
from ingestion.ports.batch import Cursor, Page, Query
from ingestion.ports.context import Context
from ingestion.ports.errors import IngestError, SourceUnavailable
from tests.fakes.loopback import loopback_context
from tests.fakes.paged_provider import PagedProvider

PAGES = 6


@pytest.fixture
def provider() -> Iterator[PagedProvider]:
    with PagedProvider(pages=PAGES, per_page=3) as running:
        yield running


@pytest.fixture
def ctx(provider: PagedProvider) -> Iterator[Context]:
    with loopback_context(provider.url, sleep=lambda _: None) as context:
        yield context


def read(provider: PagedProvider, ctx: Context, cursor: Cursor | None = None) -> tuple[list[Page], IngestError | None]:
    """Return the pages that came, and the error that ended them."""
    connector = OptimadeConnector(OptimadeConfig(base_url=provider.url, page_limit=3))
    pages: list[Page] = []
    try:
        spec = next(iter(connector.plan(Query(stream="structures"), None, ctx)))
        for page in connector.fetch(spec, cursor, ctx):
            pages.append(page)
    except IngestError as error:
        return pages, error
    return pages, None


def ids(pages: list[Page]) -> list[str]:
    return [entry["id"] for page in pages for entry in json.loads(page.body)["data"]]


def test_every_page_is_asked_for_once(provider: PagedProvider, ctx: Context) -> None:
    pages, error = read(provider, ctx)

    assert error is None
    assert ids(pages) == provider.ids
    assert dict(provider.requests) == dict.fromkeys(range(PAGES), 1)


@pytest.mark.parametrize("kind", ["status_429", "status_500", "status_503", "cut"])
def test_a_passing_fault_costs_a_repeated_request_and_no_record(
    provider: PagedProvider, ctx: Context, kind: str
) -> None:
    provider.fault(2, kind, times=1)

    pages, error = read(provider, ctx)

    assert error is None
    assert ids(pages) == provider.ids
    assert provider.requests[2] == 2  # noqa: PLR2004
    assert sum(provider.requests.values()) == PAGES + 1


@pytest.mark.parametrize(
    ("kind", "code", "kept"),
    [
        ("status_429", "source.rate_limited", 2),
        ("status_500", "source.server_error", 2),
        ("request_error", "source.rejected", 2),
        ("html", "source.bad_content", 2),
        ("errors", "source.rejected", 2),
        ("cut", "source.unavailable", 2),
        ("short", "source.unavailable", 2),
        ("repeat", "source.pagination_loop", 3),
        ("back", "source.pagination_loop", 4),
        ("same_page", "source.pagination_loop", 3),
        ("foreign", "source.foreign_next", 3),
        ("no_next", "source.incomplete", 3),
        ("shrink", "source.total_shrank", 3),
    ],
)
def test_a_lasting_fault_has_a_code_and_what_was_fetched_stays(
    provider: PagedProvider, ctx: Context, kind: str, code: str, kept: int
) -> None:
    provider.fault(2, kind)

    pages, error = read(provider, ctx)

    assert error is not None
    assert error.code == code
    assert len(pages) == kept
    assert all(page.next_cursor is not None for page in pages)
    assert sum(provider.requests.values()) <= 2 + 5


@pytest.mark.parametrize("kind", ["html", "status_500", "short", "repeat", "no_next", "foreign"])
def test_once_repaired_the_walk_goes_on_and_nothing_is_missing(
    provider: PagedProvider, ctx: Context, kind: str
) -> None:
    provider.fault(2, kind)
    before, error = read(provider, ctx)
    provider.reset()

    after, second_error = read(provider, ctx, before[-1].next_cursor)

    assert error is not None
    assert second_error is None
    assert sorted(set(ids([*before, *after]))) == provider.ids
    assert set(provider.requests) == set(range(2, PAGES))


def test_a_provider_that_always_promises_more_is_read_to_its_end(provider: PagedProvider, ctx: Context) -> None:
    provider.fault(PAGES - 1, "lies")

    pages, error = read(provider, ctx)

    assert error is None
    assert ids(pages) == provider.ids


def test_a_read_killed_anywhere_asks_for_at_most_one_page_again(provider: PagedProvider, ctx: Context) -> None:
    pages, _ = read(provider, ctx)

    for done, page in enumerate(pages[:-1], start=1):
        provider.reset()
        rest, error = read(provider, ctx, json.loads(json.dumps(page.next_cursor)))

        assert error is None
        assert ids([*pages[:done], *rest]) == provider.ids
        assert set(provider.requests) == set(range(done, PAGES))


def test_a_provider_that_is_gone_is_unavailable(provider: PagedProvider) -> None:
    with loopback_context("http://127.0.0.1:9", sleep=lambda _: None) as ctx:
        connector = OptimadeConnector(OptimadeConfig(base_url="http://127.0.0.1:9"))
        spec = next(iter(connector.plan(Query(stream="structures"), None, ctx)))

        with pytest.raises(SourceUnavailable):
            list(connector.fetch(spec, None, ctx))
