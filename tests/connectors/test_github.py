"""A connector of fifty lines against a server that speaks GitHub's protocol, over the real HTTP client."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from pydantic import SecretStr

from ingestion.ports.batch import Cursor, Page, PartitionSpec, Query
from ingestion.ports.errors import AuthError, IngestError
from ingestion.toolkit.redact import redact
from tests.conformance.connector import CANARY, ConnectorConformance, Situation, records_of
from tests.connectors.github import GitHubConfig, GitHubConnector
from tests.fakes.github_server import PATH, TOKEN, GitHubServer, recorded_items
from tests.fakes.http_server import Reply
from tests.fakes.loopback import LoopbackRecording

ALL = Query(stream="repositories", filter="materials language:python")


@pytest.fixture
def server() -> Iterator[GitHubServer]:
    with GitHubServer() as running:
        yield running


@pytest.fixture
def recording(server: GitHubServer) -> Iterator[LoopbackRecording]:
    with LoopbackRecording(server.url) as made:
        yield made


def connector(server: GitHubServer, *, token: str = TOKEN, per_page: int = 2) -> GitHubConnector:
    return GitHubConnector(GitHubConfig(base_url=server.url, token=SecretStr(token), per_page=per_page))


class TestConformance(ConnectorConformance):
    """The contract of every connector."""

    @pytest.fixture(autouse=True)
    def _keep(self, server: GitHubServer) -> Iterator[None]:
        self.server = server
        with ExitStack() as self.stack:
            yield

    def make_connector(self, **secrets: str) -> GitHubConnector:
        return connector(self.server, token=secrets.get("token", TOKEN))

    def make_query(self, situation: Situation) -> Query:
        return ALL

    def make_context(self, situation: Situation) -> LoopbackRecording:
        server = self.server
        server.items = [] if situation is Situation.EMPTY else recorded_items()
        if situation is Situation.ONE_BAD_RECORD:
            del server.items[1]["id"]
        server.next_link = lambda number, link: link.replace(f"page={number}", "page=2")
        if situation is not Situation.LOOP:
            server.next_link = lambda _, link: link
        server.token = "another" if situation is Situation.REFUSED else ""
        return self.stack.enter_context(LoopbackRecording(server.url))


def read(
    reader: GitHubConnector, recording: LoopbackRecording, cursor: Cursor | None = None, *, since: Cursor | None = None
) -> tuple[list[Page], IngestError | None]:
    """Return the pages that came, and the error that ended them."""
    pages: list[Page] = []
    try:
        for spec in reader.plan(ALL, since, recording.context):
            for page in reader.fetch(spec, cursor, recording.context):
                pages.append(page)
    except IngestError as error:
        return pages, error
    return pages, None


def ids(pages: list[Page]) -> list[int]:
    return [item["id"] for page in pages for item in json.loads(page.body)["items"]]


def test_all_pages_are_read_with_the_token_and_tell_the_total(
    server: GitHubServer, recording: LoopbackRecording
) -> None:
    pages, error = read(connector(server), recording)

    assert error is None
    assert ids(pages) == [1, 2, 3, 4, 5]
    assert [(page.record_count, page.total) for page in pages] == [(2, 5), (2, 5), (1, 5)]
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {TOKEN}"}
    assert TOKEN not in f"{pages} {recording.events}"


def test_a_read_killed_anywhere_asks_for_no_page_again(server: GitHubServer, recording: LoopbackRecording) -> None:
    pages, _ = read(connector(server), recording)

    for done, page in enumerate(pages[:-1], start=1):
        server.requests.clear()
        rest, error = read(connector(server), recording, json.loads(json.dumps(page.next_cursor)))

        assert error is None
        assert ids([*pages[:done], *rest]) == [1, 2, 3, 4, 5]
        assert server.count(PATH) == len(pages) - done


def test_an_incremental_read_asks_for_what_was_pushed_since(server: GitHubServer, recording: LoopbackRecording) -> None:
    server.items[3]["pushed_at"] = server.items[4]["pushed_at"] = "2026-03-01T00:00:00Z"
    reader = connector(server)
    since = reader.checkpoint(PartitionSpec(0), None, "2026-02-01T00:00:00Z")

    pages, error = read(reader, recording, since=since)

    assert error is None
    assert ids(pages) == [4, 5]
    assert reader.checkpoint(PartitionSpec(0), since, "2026-01-01T00:00:00Z") == since


@pytest.mark.parametrize(
    "link", ["http://127.0.0.1.evil.example/search?page=2", "//evil.example/x", "file:///etc/passwd", "http://[evil"]
)
def test_a_next_link_to_another_place_is_not_followed_and_what_was_fetched_stays(
    server: GitHubServer, recording: LoopbackRecording, link: str
) -> None:
    server.next_link = lambda _, __: link

    pages, error = read(connector(server), recording)

    assert error is not None
    assert error.code == "source.foreign_next"
    assert ids(pages) == [1, 2]
    assert server.count() == 1


def test_refused_credentials_ask_a_person_and_are_not_repeated_in_words(
    server: GitHubServer, recording: LoopbackRecording
) -> None:
    server.route(PATH, lambda request: Reply({"message": f"no: {request.headers['authorization']}"}, status=401))

    _, error = read(connector(server, token=f"{CANARY}-token"), recording)

    assert isinstance(error, AuthError)
    assert CANARY not in f"{error} {error.values}"
    assert CANARY not in redact(f"a log line with {CANARY}-token")


def test_a_record_that_is_no_object_keeps_its_place(server: GitHubServer, recording: LoopbackRecording) -> None:
    server.items[1] = 7  # type: ignore[call-overload]
    reader = connector(server)
    spec = next(iter(reader.plan(ALL, None, recording.context)))
    pages = list(reader.fetch(spec, None, recording.context))

    table = reader.standardize(records_of(pages, spec, query=ALL, recording=recording), reader.streams()[0])

    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [1, None, 3, 4, 5]
    assert (rows[1]["_error_code"], rows[1]["_raw"], rows[1]["_page"]) == ("row.not_an_object", "7", 0)
    assert json.loads(rows[0]["owner"])["login"] == "octo"
    assert rows[0]["stargazers_count"] == 99


def test_the_check_says_how_many_there_are_or_which_layer_fails(
    server: GitHubServer, recording: LoopbackRecording
) -> None:
    found = connector(server).check(recording.context)
    refused = connector(server, token="wrong-token").check(recording.context)

    assert [finding.layer for finding in found.findings] == ["dns", "tcp", "http", "schema"]
    assert found.findings[-1].detail == "5 repositories"
    assert [finding.layer for finding in refused.findings if not finding.ok] == ["auth"]
