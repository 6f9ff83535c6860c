"""Files in the lake: one page per span, nothing copied."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.files import FilesConfig, FilesConnector
from ingestion.ports.batch import FILTERED, ROW, Cursor, PartitionSpec, Query
from ingestion.ports.errors import Cancelled, ConfigError, StoreCorrupt
from tests.conformance.connector import ConnectorConformance, Situation, records_of
from tests.conformance.context import MemoryLake, RecordingContext

ORDINARY = b"id,note\n" + b"".join(b'%d,"note\n%d"\n' % (number, number) for number in range(40))
CONTENT = {
    Situation.ORDINARY: ORDINARY,
    Situation.EMPTY: b"id,note\n",
    Situation.ONE_BAD_RECORD: b"id,note\n1,a\n2,b,c\n3,c\n",
}

CASES = Path(__file__).parents[1] / "data" / "cases"


class TestFiles(ConnectorConformance):
    situations = frozenset(CONTENT)
    is_paged = False

    def make_connector(self, **secrets: str) -> FilesConnector:
        assert not secrets
        return FilesConnector(FilesConfig(), target_bytes=100)

    def make_context(self, situation: Situation) -> RecordingContext:
        recording = RecordingContext()
        self.stored = recording.store("sample.csv", CONTENT[situation])
        return recording

    def make_query(self, situation: Situation) -> Query:
        return Query(stream="rows", inputs=(self.stored,))


def plan(
    recording: RecordingContext, *files: tuple[str, bytes], target_bytes: int = 1_000_000, **query: Any
) -> tuple[Query, list[PartitionSpec]]:
    asked = Query(stream="rows", inputs=tuple(recording.store(name, data) for name, data in files), **query)
    connector = FilesConnector(target_bytes=target_bytes)
    return asked, list(connector.plan(asked, None, recording.context))


def rows(recording: RecordingContext, query: Query, specs: list[PartitionSpec]) -> Iterator[dict[str, Any]]:
    connector = FilesConnector()
    for spec in specs:
        pages = list(connector.fetch(spec, None, recording.context))
        records = records_of(pages, spec, query=query, recording=recording)
        yield from connector.standardize(records, connector.streams()[0]).to_pylist()


def test_a_large_file_becomes_lanes_that_number_its_rows_through() -> None:
    recording = RecordingContext()

    query, specs = plan(recording, ("a.csv", ORDINARY), target_bytes=100)

    assert len(specs) > 3
    assert sum(spec.expected_records or 0 for spec in specs) == 40
    assert [row[ROW] for row in rows(recording, query, specs)] == list(range(40))


def test_the_page_points_at_bytes_that_lie_in_the_lake() -> None:
    recording = RecordingContext()
    query, specs = plan(recording, ("a.csv", ORDINARY))

    [page] = FilesConnector().fetch(specs[0], None, recording.context)

    assert page.body == b""
    assert page.stored is not None
    assert page.stored.key == query.inputs[0].key
    assert page.stored.sha256 == query.inputs[0].sha256
    assert page.record_count == 40
    assert len(recording.lake.objects) == 1


def test_several_files_follow_each_other_in_the_order_of_the_query() -> None:
    recording = RecordingContext()

    query, specs = plan(recording, ("b.csv", b"a\n1\n2\n"), ("a.jsonl", b'{"a":3}\n'))

    assert [spec.lane for spec in specs] == [0, 1]
    assert [spec.label for spec in specs] == ["b.csv", "a.jsonl"]
    assert [row["a"] for row in rows(recording, query, specs)] == ["1", "2", 3]


def test_a_header_without_rows_is_a_warning_and_no_error() -> None:
    recording = RecordingContext()

    query, specs = plan(recording, ("a.csv", b"id,x\r\n"))

    assert recording.event_kinds() == ["file.no_rows"]
    assert recording.events[0][1]["level"] == "warning"
    assert len(specs) == 1
    assert list(rows(recording, query, specs)) == []


def test_renamed_columns_are_shown_before_the_run() -> None:
    recording = RecordingContext()

    _, specs = plan(recording, ("a.csv", b"_id,__time\n1,2\n"))

    assert recording.events == [
        ("file.renamed_columns", {"name": "a.csv", "renamed": {"id_": "_id", "time_": "__time"}})
    ]
    assert specs[0].data["renamed"] == {"id_": "_id", "time_": "__time"}


def test_the_choice_of_a_sheet_is_said_before_the_run() -> None:
    recording = RecordingContext()
    book = (CASES / "x06_hidden_first.xlsx").read_bytes()

    query, specs = plan(recording, ("a.xlsx", book))

    message = "Of a.xlsx the sheet 'data' is read, the first visible one; there are also: hidden (hidden)."
    assert recording.events == [("file.choice", {"name": "a.xlsx", "message": message})]
    assert [(row["id"], row["v"]) for row in rows(recording, query, specs)] == [(1, "a")]


def test_rows_beyond_the_limit_are_marked_as_filtered(subtests: pytest.Subtests) -> None:
    cases: list[int] = [0, 1, 4, 7, 100]
    for limit in cases:
        with subtests.test(limit=limit):
            recording = RecordingContext()
            files = (("a.csv", b"a\n1\n2\n3\n"), ("b.json", b'[{"a":4},{"a":5}]'), ("c.csv", b"a\n6\n7\n"))

            query, specs = plan(recording, *files, limit=limit)

            assert [row[FILTERED] for row in rows(recording, query, specs)] == [number >= limit for number in range(7)]


def test_options_of_the_query_win_over_detection() -> None:
    recording = RecordingContext()

    query, specs = plan(recording, ("a.data", b"a;b,c\n1;2,3\n"), options={"format": "csv", "delimiter": ";"})

    assert [(row["a"], row["b,c"]) for row in rows(recording, query, specs)] == [("1", "2,3")]


def test_fields_of_the_query_choose_columns() -> None:
    recording = RecordingContext()

    query, specs = plan(recording, ("a.csv", b"a,b\n1,2\n"), fields=("b",))

    assert [{k: v for k, v in row.items() if v is not None} for row in rows(recording, query, specs)] == [
        {"b": "2", ROW: 0}
    ]


def test_a_question_that_files_cannot_answer_is_refused(subtests: pytest.Subtests) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"options": {"format": "docx"}}, "config.invalid"),
        ({"filter": "a=1"}, "config.invalid"),
    ]
    for query, code in cases:
        with subtests.test(query=query, code=code):
            with pytest.raises(ConfigError) as raised:
                plan(RecordingContext(), ("a.csv", b"a\n1\n"), **query)

            assert raised.value.code == code


def test_a_file_that_is_gone_is_named_in_planning_and_in_fetching() -> None:
    recording = RecordingContext()
    query, specs = plan(recording, ("a.csv", ORDINARY))
    recording.lake.delete(query.inputs[0].key)

    with pytest.raises(StoreCorrupt) as in_fetch:
        list(FilesConnector().fetch(specs[0], None, recording.context))
    with pytest.raises(StoreCorrupt) as in_plan:
        list(FilesConnector().plan(query, None, recording.context))

    assert (in_fetch.value.code, in_plan.value.code) == ("store.missing", "store.missing")


def test_a_file_that_became_shorter_is_corrupt() -> None:
    recording = RecordingContext()
    query, specs = plan(recording, ("a.csv", ORDINARY))
    recording.lake.put(query.inputs[0].key, ORDINARY[:50])

    with pytest.raises(StoreCorrupt) as raised:
        list(FilesConnector().fetch(specs[0], None, recording.context))

    assert raised.value.code == "store.corrupt"


def test_a_cancel_stops_the_planning_of_a_file() -> None:
    recording = RecordingContext()
    stored = recording.store("a.csv", ORDINARY)
    recording.stop()

    with pytest.raises(Cancelled):
        list(FilesConnector().plan(Query(stream="rows", inputs=(stored,)), None, recording.context))


def test_planning_reports_progress_while_it_reads() -> None:
    recording = RecordingContext()

    plan(recording, ("a.csv", ORDINARY))

    assert recording.beat_count > 0


def test_a_local_file_is_read_where_it_lies(tmp_path: Path) -> None:
    class LocalLake(MemoryLake):
        def local_path(self, key: str) -> Path:
            return tmp_path / "a.csv"

        def open(self, key: str) -> Any:
            raise AssertionError("the object was copied")

    (tmp_path / "a.csv").write_bytes(ORDINARY)

    _, specs = plan(RecordingContext(lake=LocalLake()), ("a.csv", ORDINARY))

    assert specs[0].expected_records == 40


def test_the_description_of_a_partition_survives_json() -> None:
    recording = RecordingContext()
    query, specs = plan(recording, ("a.csv", "a|b\nä|ö\n".encode()))
    again = [PartitionSpec(spec.lane, json.loads(json.dumps(spec.data))) for spec in specs]

    assert list(rows(recording, query, again)) == list(rows(recording, query, specs))


def test_files_have_no_checkpoint() -> None:
    since: Cursor | None = None

    assert FilesConnector().checkpoint(PartitionSpec(0), since, "2024-01-01T00:00:00Z") is None
