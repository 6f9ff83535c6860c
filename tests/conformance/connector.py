"""The contract of every connector, as tests to inherit.

    class TestThing(ConnectorConformance):
        def make_connector(self, **secrets: str) -> Connector: ...
        def make_query(self, situation: Situation) -> Query: ...
        def make_context(self, situation: Situation) -> RecordingContext: ...

`make_connector` puts each of `secrets` (by Config field name) into its Config. The situation says what the source
looks like; the same situation must be the same source every time. `make_context` is called before `make_query`,
on the same instance, so it may keep what the query needs (a stored file) on `self`.
"""

import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, ClassVar, get_args

import pytest
from pydantic import BaseModel, SecretStr

from ingestion.ports.batch import (
    ERROR,
    ERROR_CODE,
    RAW,
    READER_COLUMNS,
    ROW,
    Page,
    PartitionSpec,
    Query,
    RawPage,
    Records,
)
from ingestion.ports.connector import Connector, Stream
from ingestion.ports.errors import IngestError, Signal
from ingestion.ports.messages import find_message
from tests.conformance.context import RecordingContext

CANARY = "canary-7f3a91-secret"
LOOP_PAGE_LIMIT = 50


class Situation(StrEnum):
    """A state of the source in a test."""

    ORDINARY = "ordinary"
    """Several readable records; over at least three pages where the connector has pages."""
    EMPTY = "empty"
    """The source answers, and holds no records."""
    ONE_BAD_RECORD = "one_bad_record"
    """At least two readable records and exactly one that cannot be read."""
    LOOP = "loop"
    """The source's paging runs in a circle."""
    REFUSED = "refused"
    """The source refuses the credentials."""


class ConnectorConformance:
    """Tests that every connector inherits; see the module for what a subclass provides."""

    situations: ClassVar[frozenset[Situation]] = frozenset(Situation)
    """Situations that can occur; a file has no paging and no credentials and leaves LOOP and REFUSED out."""
    is_paged: ClassVar[bool] = True
    """Whether ORDINARY has at least three pages in some partition."""

    def make_connector(self, **secrets: str) -> Connector:
        """Return the connector under test, its secret fields set to `secrets`."""
        raise NotImplementedError

    def make_query(self, situation: Situation) -> Query:
        """Return the question to ask in that situation."""
        raise NotImplementedError

    def make_context(self, situation: Situation) -> RecordingContext:
        """Return a new context whose source is in that situation."""
        raise NotImplementedError

    # the shape

    def test_it_declares_kind_config_and_streams(self) -> None:
        connector = self.make_connector()

        names = [stream.name for stream in connector.streams()]

        assert isinstance(connector, Connector)
        assert connector.kind
        assert issubclass(connector.Config, BaseModel)
        assert names
        assert len(set(names)) == len(names)

    def test_check_names_a_layer_for_every_finding(self) -> None:
        recording = self.make_context(Situation.ORDINARY)

        report = self.make_connector().check(recording.context)

        assert report.findings
        assert report.ok, report.findings
        assert all(finding.layer and finding.elapsed_ms >= 0 for finding in report.findings)

    # planning

    def test_the_same_question_gives_the_same_partitions(self) -> None:
        first, second = self._plan(Situation.ORDINARY), self._plan(Situation.ORDINARY)

        assert first
        assert first == second
        assert [spec.lane for spec in first] == list(range(len(first)))
        assert [json.loads(json.dumps(spec.data)) for spec in first] == [spec.data for spec in first]

    # fetching

    def test_a_repeated_fetch_gives_the_same_pages_and_changes_nothing(self) -> None:
        recording, query = self._situation(Situation.ORDINARY)
        connector = self.make_connector()
        before = dict(recording.lake.objects)

        for spec in self._specs(connector, query, recording):
            first = list(connector.fetch(spec, None, recording.context))
            second = list(connector.fetch(spec, None, recording.context))

            assert [_comparable(page) for page in first] == [_comparable(page) for page in second]

        assert recording.lake.objects == before

    def test_it_resumes_at_every_page_boundary(self) -> None:
        recording, query = self._situation(Situation.ORDINARY)
        connector = self.make_connector()
        most = 0

        for spec in self._specs(connector, query, recording):
            pages = list(connector.fetch(spec, None, recording.context))
            most = max(most, len(pages))
            assert pages[-1].next_cursor is None
            for done, page in enumerate(pages[:-1], start=1):
                assert page.next_cursor is not None
                cursor = json.loads(json.dumps(page.next_cursor))
                rest = list(self.make_connector().fetch(spec, cursor, recording.context))
                assert [_comparable(p) for p in rest] == [_comparable(p) for p in pages[done:]]

        assert most >= (3 if self.is_paged else 1)

    def test_it_reports_progress_for_every_page(self) -> None:
        recording, query = self._situation(Situation.ORDINARY)
        connector = self.make_connector()
        specs = self._specs(connector, query, recording)
        recording.beat_count = 0

        pages = [page for spec in specs for page in connector.fetch(spec, None, recording.context)]

        assert recording.beat_count >= len(pages)

    def test_a_cancel_before_the_first_page_gives_none(self) -> None:
        recording, query = self._situation(Situation.ORDINARY)
        connector = self.make_connector()
        spec = self._specs(connector, query, recording)[0]
        requests = len(recording.http.requests)
        recording.stop()

        pages = _until_stopped(connector.fetch(spec, None, recording.context))

        assert pages == []
        assert len(recording.http.requests) == requests

    def test_a_cancel_stops_before_the_next_page(self) -> None:
        recording, query = self._situation(Situation.ORDINARY)
        connector = self.make_connector()
        spec = self._specs(connector, query, recording)[0]
        running = connector.fetch(spec, None, recording.context)
        first = next(running)
        requests = len(recording.http.requests)
        recording.stop()

        rest = _until_stopped(running)

        assert rest == []
        assert len(recording.http.requests) == requests
        assert first.next_cursor is not None or not self.is_paged

    def test_paging_in_a_circle_ends_with_a_code(self) -> None:
        self._need(Situation.LOOP)
        recording, query = self._situation(Situation.LOOP)
        connector = self.make_connector()
        count = 0

        with pytest.raises(IngestError) as raised:
            for spec in connector.plan(query, None, recording.context):
                for _ in connector.fetch(spec, None, recording.context):
                    count += 1
                    assert count < LOOP_PAGE_LIMIT, "the circle was not noticed"

        assert raised.value.code == "source.pagination_loop"

    # understanding

    def test_an_empty_source_is_no_rows_and_no_error(self) -> None:
        tables = self._tables(Situation.EMPTY)

        assert sum(table.num_rows for table in tables) == 0

    def test_records_come_in_order_with_their_row_numbers(self) -> None:
        tables = self._tables(Situation.ORDINARY)

        assert sum(table.num_rows for table in tables) > 0
        for table in tables:
            rows = table.column(ROW).to_pylist()
            assert rows == sorted(rows)
            assert None not in rows
            if ERROR_CODE in table.column_names:
                assert table.column(ERROR_CODE).null_count == table.num_rows
            ours = [name for name in table.column_names if name.startswith("_")]
            assert set(ours) <= set(READER_COLUMNS)
            assert "__time" not in table.column_names
            assert len(set(table.column_names)) == len(table.column_names)

    def test_one_bad_record_is_one_error_row(self) -> None:
        self._need(Situation.ONE_BAD_RECORD)
        rows = [row for table in self._tables(Situation.ONE_BAD_RECORD) for row in table.to_pylist()]

        bad = [row for row in rows if row.get(ERROR_CODE) is not None]

        assert len(bad) == 1
        assert len(rows) > 2  # noqa: PLR2004
        assert find_message(bad[0][ERROR_CODE])
        assert bad[0][ERROR]
        assert bad[0][RAW]

    def test_standardizing_is_pure(self) -> None:
        recording, query = self._situation(Situation.ORDINARY)
        connector = self.make_connector()
        stream = self._stream(connector, query)

        for spec in self._specs(connector, query, recording):
            pages = list(connector.fetch(spec, None, recording.context))
            requests, events = len(recording.http.requests), len(recording.events)
            first = connector.standardize(records_of(pages, spec, query=query, recording=recording), stream)
            second = self.make_connector().standardize(
                records_of(pages, spec, query=query, recording=recording), stream
            )

            assert first.equals(second)
            assert (len(recording.http.requests), len(recording.events)) == (requests, events)

    def test_a_checkpoint_is_json_and_repeatable(self) -> None:
        recording, query = self._situation(Situation.ORDINARY)
        connector = self.make_connector()

        for spec in self._specs(connector, query, recording):
            for high_water in (None, "2024-05-06T07:08:09Z"):
                cursor = connector.checkpoint(spec, None, high_water)
                assert cursor == connector.checkpoint(spec, None, high_water)
                assert json.loads(json.dumps(cursor)) == cursor

    # secrets

    def test_secrets_show_nowhere(self) -> None:
        secrets = {name: f"{CANARY}-{name}" for name in secret_fields(self.make_connector().Config)}
        for situation in sorted(self.situations):
            recording, query = self._situation(situation)
            connector = self.make_connector(**secrets)
            seen: list[Any] = [repr(connector), vars(connector) if hasattr(connector, "__dict__") else ""]
            try:
                seen.append(connector.check(recording.context))
                for spec in connector.plan(query, None, recording.context):
                    seen.append(spec)
                    for count, page in enumerate(connector.fetch(spec, None, recording.context)):
                        seen.append(_comparable(page))
                        if count > LOOP_PAGE_LIMIT:
                            break
            except IngestError as error:
                seen.extend((str(error), error.values))
            seen.extend(recording.events)

            assert CANARY not in repr(seen)

    def test_refused_credentials_are_an_error_a_person_can_correct(self) -> None:
        self._need(Situation.REFUSED)
        recording, query = self._situation(Situation.REFUSED)
        connector = self.make_connector()

        with pytest.raises(IngestError) as raised:
            for spec in connector.plan(query, None, recording.context):
                list(connector.fetch(spec, None, recording.context))

        assert find_message(raised.value.code)

    # helpers of the tests above

    def _need(self, situation: Situation) -> None:
        if situation not in self.situations:
            pytest.skip(f"the situation {situation} cannot occur here")

    def _situation(self, situation: Situation) -> tuple[RecordingContext, Query]:
        recording = self.make_context(situation)
        return recording, self.make_query(situation)

    def _plan(self, situation: Situation) -> list[PartitionSpec]:
        recording, query = self._situation(situation)
        return self._specs(self.make_connector(), query, recording)

    def _specs(self, connector: Connector, query: Query, recording: RecordingContext) -> list[PartitionSpec]:
        return list(connector.plan(query, None, recording.context))

    def _stream(self, connector: Connector, query: Query) -> Stream:
        return next(stream for stream in connector.streams() if stream.name == query.stream)

    def _tables(self, situation: Situation) -> list[Any]:
        recording, query = self._situation(situation)
        connector = self.make_connector()
        stream = self._stream(connector, query)
        tables = []
        for spec in self._specs(connector, query, recording):
            pages = list(connector.fetch(spec, None, recording.context))
            tables.append(connector.standardize(records_of(pages, spec, query=query, recording=recording), stream))
        return tables


def records_of(pages: list[Page], spec: PartitionSpec, *, query: Query, recording: RecordingContext) -> Records:
    """Return the pages as they would be read back from the lake for standardizing."""
    return Records([_stored(seq, page, recording) for seq, page in enumerate(pages)], spec, query)


def _stored(seq: int, page: Page, recording: RecordingContext) -> RawPage:
    if page.stored is None:
        body = page.body
        key = f"raw/test/{seq}"
        recording.lake.put(key, body)
        return RawPage(seq, page.url, lambda: body, lambda: recording.lake.open(key), 0, len(body))
    span = page.stored
    return RawPage(
        seq,
        page.url,
        lambda: recording.lake.read(span.key, offset=span.offset, length=span.length),
        lambda: recording.lake.open(span.key),
        span.offset,
        span.length,
    )


def secret_fields(config: type[BaseModel]) -> list[str]:
    """Return the names of the Config fields that hold a secret, optional ones included."""
    return [
        name
        for name, info in config.model_fields.items()
        if info.annotation is SecretStr or SecretStr in get_args(info.annotation)
    ]


def _comparable(page: Page) -> tuple[Any, ...]:
    return (page.body, page.next_cursor, page.url, page.status, dict(page.headers), page.stored, page.record_count)


def _until_stopped(running: Iterator[Page]) -> list[Page]:
    """Return the pages that still come; ending and raising a signal are both a stop."""
    pages = []
    try:
        for page in running:
            pages.append(page)
    except Signal:
        pass
    return pages
