"""The OPTIMADE connector against the reference server, over the real HTTP client."""

import json
from collections.abc import Iterator

import pytest

from connectors.materials.optimade import OptimadeConfig, OptimadeConnector
from ingestion.ports.batch import Cursor, Page, Query
from ingestion.ports.errors import SourceRejected
from tests.conformance.connector import records_of
from tests.conformance.context import RecordingContext
from tests.fakes.loopback import loopback_context
from tests.fakes.optimade_server import PAGE_LIMIT_MAX, OptimadeServer

COUNT = 17


@pytest.fixture(scope="module")
def server() -> Iterator[OptimadeServer]:
    with OptimadeServer() as running:
        yield running


def read(
    server: OptimadeServer, query: Query | None = None, *, since: Cursor | None = None, **config: object
) -> tuple[list[Page], RecordingContext]:
    connector = OptimadeConnector(OptimadeConfig.model_validate({"base_url": server.url, **config}))
    recording = RecordingContext()
    with loopback_context(server.url, recording=recording) as ctx:
        spec = next(iter(connector.plan(query or Query(stream="structures"), since, ctx)))
        return list(connector.fetch(spec, None, ctx)), recording


def ids(pages: list[Page]) -> list[str]:
    return [entry["id"] for page in pages for entry in json.loads(page.body)["data"]]


def test_all_pages_are_read(server: OptimadeServer) -> None:
    pages, recording = read(server, page_limit=4)

    assert [page.record_count for page in pages] == [4, 4, 4, 4, 1]
    assert len(set(ids(pages))) == COUNT
    assert {page.total for page in pages} == {COUNT}
    assert recording.limiter.slowed == [] or all(key == "source:test" for key, _ in recording.limiter.slowed)


def test_a_read_goes_on_after_every_page(server: OptimadeServer) -> None:
    connector = OptimadeConnector(OptimadeConfig(base_url=server.url, page_limit=4))
    pages, _ = read(server, page_limit=4)

    with loopback_context(server.url) as ctx:
        spec = next(iter(connector.plan(Query(stream="structures"), None, ctx)))
        for done, page in enumerate(pages[:-1], start=1):
            rest = list(connector.fetch(spec, page.next_cursor, ctx))

            assert ids(rest) == ids(pages[done:])


def test_a_filter_is_the_servers(server: OptimadeServer) -> None:
    pages, _ = read(server, Query(stream="structures", filter='elements HAS ALL "Ag","Cl" AND nelements > 4'))

    attributes = [entry["attributes"] for page in pages for entry in json.loads(page.body)["data"]]
    assert attributes
    assert all({"Ag", "Cl"} <= set(found["elements"]) and found["nelements"] > 4 for found in attributes)  # noqa: PLR2004


def test_only_the_named_fields_are_sent(server: OptimadeServer) -> None:
    pages, _ = read(server, Query(stream="structures", fields=("nsites", "_exmpl_chemsys")), page_limit=10)

    sent = {name for page in pages for entry in json.loads(page.body)["data"] for name in entry["attributes"]}
    assert sent == {"nsites", "_exmpl_chemsys", "last_modified"}


def test_an_incremental_read_gets_what_is_newer(server: OptimadeServer) -> None:
    since = {"last_modified": "2019-01-01T00:00:00.500000Z"}

    newer, _ = read(server, since=since, page_limit=5)
    both, _ = read(server, Query(stream="structures", filter="nelements = 1"), since=since)

    assert len(ids(newer)) == COUNT - 1
    assert set(ids(both)) < set(ids(newer))


def test_nothing_newer_is_an_empty_page_and_no_warning(server: OptimadeServer) -> None:
    pages, _ = read(server, since={"last_modified": "2030-01-01T00:00:00Z"})

    assert [(page.record_count, page.next_cursor, page.warnings) for page in pages] == [(0, None, ())]


def test_a_page_limit_above_the_servers_is_lowered(server: OptimadeServer) -> None:
    pages, recording = read(server, page_limit=1000)

    assert len(ids(pages)) == COUNT
    assert f"page_limit={PAGE_LIMIT_MAX}&" in pages[0].url
    assert recording.event_kinds() == ["source.page_limit_lowered"]


@pytest.mark.parametrize(
    ("text", "words"), [("nelements >", "Unable to parse filter"), ("foo=1", "'foo' is not a known")]
)
def test_a_bad_filter_says_what_is_wrong_with_it(server: OptimadeServer, text: str, words: str) -> None:
    with pytest.raises(SourceRejected) as raised:
        read(server, Query(stream="structures", filter=text))

    assert raised.value.code == "source.rejected"
    assert words in str(raised.value)


def test_references_are_read(server: OptimadeServer) -> None:
    pages, _ = read(server, Query(stream="references"))

    assert "dijkstra1968" in ids(pages)


def test_the_records_keep_the_streams_schema(server: OptimadeServer) -> None:
    pages, recording = read(server, page_limit=5)
    connector = OptimadeConnector(OptimadeConfig(base_url=server.url))
    stream = connector.streams()[0]
    query = Query(stream="structures")
    spec = next(iter(connector.plan(query, None, recording.context)))

    table = connector.standardize(records_of(pages, spec, query=query, recording=recording), stream)

    assert stream.schema is not None
    assert {column.name for column in stream.schema.columns} <= set(table.column_names)
    assert table.num_rows == COUNT
    assert table.column("_error_code").null_count == COUNT


def test_the_check_goes_through_all_layers(server: OptimadeServer) -> None:
    connector = OptimadeConnector(OptimadeConfig(base_url=server.url))

    with loopback_context(server.url) as ctx:
        report = connector.check(ctx)

    assert [finding.layer for finding in report.findings] == ["dns", "tcp", "http", "schema"]
    assert report.ok
    assert f"{COUNT} structures" in report.findings[-1].detail


def test_the_check_names_the_layer_that_fails(server: OptimadeServer) -> None:
    with loopback_context(server.url) as ctx:
        wrong_path = OptimadeConnector(OptimadeConfig(base_url=f"{server.url}/elsewhere")).check(ctx)
        wrong_host = OptimadeConnector(OptimadeConfig(base_url="http://no-such-host.invalid")).check(ctx)

    assert [finding.layer for finding in wrong_path.findings if not finding.ok] == ["http"]
    assert [finding.layer for finding in wrong_host.findings if not finding.ok] == ["dns"]
