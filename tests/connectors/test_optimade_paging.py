"""The walk of the OPTIMADE connector through a listing, and answers that are none."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ingestion.ports.batch import Query
from ingestion.ports.context import HttpResponse
from ingestion.ports.errors import AuthError, Cancelled, IngestError, SourceChanged, SourceRejected, SourceUnavailable
from tests.conformance.context import RecordingContext, SentRequest, answer
from tests.connectors.optimade_script import (
    BASE,
    STRUCTURES,
    Respond,
    always,
    connector,
    entry,
    fetch,
    listing,
    pages_of,
    recorded,
    recorded_provider,
    rows,
)


def test_all_recorded_structures_are_read_in_order() -> None:
    pages, _ = fetch(recorded_provider, page_limit=5)

    found = rows(pages)

    assert [page.record_count for page in pages] == [5, 5, 5, 2]
    assert {page.total for page in pages} == {17}
    assert len({row["id"] for row in found}) == 17  # noqa: PLR2004
    assert [row["_row"] for row in found] == list(range(17))
    assert [row["_page"] for row in found] == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 2


# paging


def test_no_next_link_in_any_form_is_the_end(subtests: pytest.Subtests) -> None:
    cases: list[Any] = [{"next": None}, {}, None, {"next": {"href": None}}, {"next": ""}, {"next": {"meta": {}}}]
    for links in cases:
        with subtests.test(links=links):
            document = {"data": [entry(1)], "meta": {}, "links": links}

            pages, recording = fetch(always(document))

            assert [page.next_cursor for page in pages] == [None]
            assert len(recording.http.requests) == 1


def test_a_next_link_is_followed_in_every_form(subtests: pytest.Subtests) -> None:
    cases: list[tuple[Any, str]] = [
        (f"{BASE}/v1/structures?n=1", f"{BASE}/v1/structures?n=1"),
        ({"href": f"{BASE}/v1/structures?n=1", "meta": {}}, f"{BASE}/v1/structures?n=1"),
        ("/v1/structures?n=1", f"{BASE}/v1/structures?n=1"),
        ("?n=1", f"{BASE}/v1/structures?n=1"),
        ("https://127.0.0.1/v1/structures?n=1", f"{BASE}/v1/structures?n=1"),
        ("http://127.0.0.1:5000/inner/v1/structures/?n=1", f"{BASE}/v1/structures?n=1"),
        (f"{BASE}/v1/more/pages?n=1", f"{BASE}/v1/more/pages?n=1"),
        (f'{BASE}/v1/structures?n=1&filter=a HAS "x"', f"{BASE}/v1/structures?n=1&filter=a%20HAS%20%22x%22"),
        (
            f"{BASE}/v1/structures?n=1&filter=a%20%3E%2B1+b&p=50%",
            f"{BASE}/v1/structures?n=1&filter=a%20%3E%2B1+b&p=50%25",
        ),
    ]
    for link, asked in cases:
        with subtests.test(link=link, asked=asked):
            respond = pages_of(listing([entry(1)], next_link=link), listing([entry(2)]))

            pages, recording = fetch(respond)

            assert [row["id"] for row in rows(pages)] == ["s1", "s2"]
            assert recording.http.requests[1].url == asked


def test_a_next_link_to_another_place_is_not_followed_and_what_was_fetched_stays(subtests: pytest.Subtests) -> None:
    cases: list[str] = [
        "http://other.example/v1/structures?n=1",
        "file:///etc/passwd",
        "http://127.0.0.1.other.example/?n=1",
    ]
    for link in cases:
        with subtests.test(link=link):
            recording = RecordingContext(pages_of(listing([entry(1)], next_link=link), listing([entry(2)])))
            reader = connector()
            running = reader.fetch(
                next(iter(reader.plan(STRUCTURES, None, recording.context))), None, recording.context
            )

            first = next(running)
            with pytest.raises(SourceRejected) as raised:
                next(running)

            assert first.record_count == 1
            assert raised.value.code == "source.foreign_next"
            assert len(recording.http.requests) == 1


def test_an_allowed_host_is_followed_without_the_sources_headers() -> None:
    link = "http://data.example/v1/structures?n=1"
    respond = pages_of(listing([entry(1)], next_link=link), listing([entry(2)]))

    _, recording = fetch(respond, allowed_hosts=["data.example"], headers={"X-Key": "canary"})

    first, second = recording.http.requests
    assert second.url == link
    assert first.headers["X-Key"] == "canary"
    assert "X-Key" not in second.headers


@pytest.mark.parametrize("entrance", [0, 3])
@pytest.mark.parametrize("length", [1, 2, 15, 40, 70])
def test_a_circle_of_any_length_ends(length: int, entrance: int) -> None:
    total = length + entrance
    asked: list[int] = []

    def respond(request: SentRequest) -> HttpResponse:
        number = int(parse_qs(urlsplit(request.url).query).get("n", ["0"])[0])
        asked.append(number)
        following = number + 1 if number + 1 < total else entrance
        # fresh ids every time, so that only the addresses tell
        return answer(listing([{"id": f"{number}-{len(asked)}", "attributes": {}}], next_link=f"?n={following}"))

    with pytest.raises(SourceChanged) as raised:
        fetch(respond)

    assert raised.value.code == "source.pagination_loop"
    assert len(asked) <= 3 * total + 1


def test_an_old_page_under_a_new_address_is_a_circle() -> None:
    first, second = [entry(1), entry(2)], [entry(3), entry(4)]
    respond = pages_of(
        listing(first, next_link="?n=1"), listing(second, next_link="?n=2"), listing(first, next_link="?n=3")
    )

    with pytest.raises(SourceChanged) as raised:
        fetch(respond)

    assert raised.value.code == "source.pagination_loop"


def test_a_last_page_that_overlaps_the_one_before_is_no_circle() -> None:
    respond = pages_of(listing([entry(1), entry(2)], next_link="?n=1"), listing([entry(2)]))

    pages, _ = fetch(respond)

    assert [page.record_count for page in pages] == [2, 1]


def test_one_empty_page_is_passed_and_a_second_one_ends_the_walk() -> None:
    empty = listing([], next_link="?n=2")
    passed, _ = fetch(pages_of(listing([entry(1)], next_link="?n=1"), empty, listing([entry(2)])))
    with pytest.raises(SourceChanged):
        fetch(pages_of(listing([entry(1)], next_link="?n=1"), empty, listing([], next_link="?n=3")))

    assert [page.record_count for page in passed] == [1, 0, 1]


def test_a_repaired_provider_is_read_on_from_the_page_that_was_at_fault() -> None:
    state = {"next": "?n=1"}

    def respond(request: SentRequest) -> HttpResponse:
        number = int(parse_qs(urlsplit(request.url).query).get("n", ["0"])[0])
        return answer(listing([entry(number)], next_link=[f"{BASE}/v1/structures?n=1", state["next"], None][number]))

    recording = RecordingContext(respond)
    reader = connector()
    spec = next(iter(reader.plan(STRUCTURES, None, recording.context)))
    fetched = []
    with pytest.raises(SourceChanged):
        for page in reader.fetch(spec, None, recording.context):
            fetched.append(page)
    cursor = json.loads(json.dumps(fetched[-1].next_cursor))
    with pytest.raises(SourceChanged):
        list(reader.fetch(spec, cursor, recording.context))

    state["next"] = "?n=2"
    rest = list(reader.fetch(spec, cursor, recording.context))

    assert len(fetched) == 2  # noqa: PLR2004
    assert [row["id"] for row in rows(rest)] == ["s1", "s2"]
    assert rest[-1].next_cursor is None


def test_the_cursor_stays_small_over_a_thousand_pages() -> None:
    def respond(request: SentRequest) -> HttpResponse:
        number = int(parse_qs(urlsplit(request.url).query).get("n", ["0"])[0])
        entries = [{"id": f"{number}-{index}", "attributes": {}} for index in range(20)]
        return answer(listing(entries, next_link=f"?n={number + 1}" if number < 999 else None))  # noqa: PLR2004

    pages, _ = fetch(respond)

    assert len(pages) == 1000  # noqa: PLR2004
    assert max(len(json.dumps(page.next_cursor)) for page in pages) < 1_000  # noqa: PLR2004


# where the provider's words and pages differ


def test_more_data_without_a_next_link_is_believed_unless_all_was_read(subtests: pytest.Subtests) -> None:
    cases: list[tuple[dict[str, Any], str | None]] = [
        ({"more_data_available": True}, "source.incomplete"),
        ({"more_data_available": True, "data_returned": 5}, "source.incomplete"),
        ({"more_data_available": True, "data_returned": 2}, None),
        ({"more_data_available": True, "data_returned": 1}, None),
        ({"more_data_available": False, "data_returned": 2}, None),
        ({"more_data_available": "yes", "data_returned": "many"}, None),
        ({}, None),
    ]
    for meta, code in cases:
        with subtests.test(meta=meta, code=code):
            document = {"data": [entry(1), entry(2)], "meta": meta, "links": {}}
            try:
                fetch(always(document))
                found = None
            except IngestError as error:
                found = error.code

            assert found == code


def test_fewer_records_than_counted_is_a_warning() -> None:
    pages, _ = fetch(always(listing([entry(1)], data_returned=9)))

    assert any("9" in text for text in pages[-1].warnings)


def test_records_that_moved_between_two_pages_are_not_counted_twice() -> None:
    respond = pages_of(
        listing([entry(1), entry(2)], next_link="?n=1", data_returned=4), listing([entry(2), entry(3)], data_returned=4)
    )

    pages, _ = fetch(respond)

    assert any("counts 4" in text and "gave 3" in text for text in pages[-1].warnings)


def test_a_total_that_shrinks_fails_and_one_that_grows_does_not() -> None:
    def two(first: int, second: int) -> Respond:
        return pages_of(
            listing([entry(1)], next_link="?n=1", data_returned=first), listing([entry(2)], data_returned=second)
        )

    grown, _ = fetch(two(2, 3))
    with pytest.raises(SourceChanged) as raised:
        fetch(two(3, 2))

    assert len(grown) == 2  # noqa: PLR2004
    assert raised.value.code == "source.total_shrank"


def test_warnings_and_messages_are_told_once() -> None:
    meta = {"warnings": [{"title": "Slow", "detail": "be patient"}], "response_message": "hello"}
    respond = pages_of(
        listing([entry(1)], next_link="?n=1", **meta), listing([entry(2)], **{**meta, "response_message": "bye"})
    )

    pages, _ = fetch(respond)

    assert [page.warnings for page in pages] == [("Slow: be patient", "hello"), ("bye",)]


def test_a_requested_delay_slows_the_source_down_within_reason() -> None:
    for asked, expected in ((0.5, [0.5]), (10**9, [3600.0]), (0, []), (-1, []), ("soon", []), (True, [])):
        document = listing([entry(1)], request_delay=asked)

        _, recording = fetch(always(document))

        assert [seconds for _, seconds in recording.limiter.slowed] == expected


def test_missing_times_are_a_warning_because_an_incremental_read_cannot_see_them() -> None:
    pages, _ = fetch(always(listing([entry(1, last_modified=None), entry(2, last_modified=None)])))

    assert any("last_modified" in text for text in pages[0].warnings)


def test_a_limit_stops_the_walk_and_marks_what_is_beyond_it() -> None:
    query = Query(stream="structures", limit=7)

    pages, recording = fetch(recorded_provider, query, page_limit=5)

    assert len(recording.http.requests) == 2  # noqa: PLR2004
    assert [row["_filtered"] for row in rows(pages, query)] == [False] * 7 + [True] * 3
    assert [row["_filtered"] for row in rows(pages[1:], query)] == [False] * 2 + [True] * 3


def test_a_stop_never_looks_like_the_end_of_the_pages() -> None:
    recording = RecordingContext(recorded_provider)
    reader = connector()
    spec = next(iter(reader.plan(STRUCTURES, None, recording.context)))
    recording.stop()

    with pytest.raises(Cancelled):
        list(reader.fetch(spec, None, recording.context))


# answers that are not what was asked for


def test_a_200_that_is_no_listing_gives_a_code(subtests: pytest.Subtests) -> None:
    cases: list[tuple[bytes, str | None]] = [
        (b"<!doctype html><html><title>Sign in</title></html>", "source.bad_content"),
        (b"", "source.bad_content"),
        (b"[1, 2]", "source.bad_content"),
        (b'{"data": null}', "source.bad_content"),
        (b'{"data": {"id": "s1"}}', "source.bad_content"),
        (b'{"errors": [{"detail": "rebuilding"}]}', "source.rejected"),
        (b'{"data": [{"id": "s1", "attrib', "source.unavailable"),
        (b"[" * 100_000, None),
    ]
    for body, code in cases:
        with subtests.test(body=body, code=code):
            with pytest.raises(IngestError) as raised:
                fetch(always(body))

            assert code is None or raised.value.code == code


def test_a_refused_request_says_why_and_is_not_tried_again(subtests: pytest.Subtests) -> None:
    cases: list[tuple[str, int, str]] = [
        ("http400_bad_filter", 400, "Unable to parse filter"),
        ("http400_unknown_property", 400, "'foo' is not a known or searchable quantity"),
        ("http500_bad_int", 500, "page_limit"),
        ("http501_page_above", 501, "not implemented"),
        ("http553_version", 553, "not supported"),
    ]
    for name, status, words in cases:
        with subtests.test(name=name, status=status, words=words):
            recording = RecordingContext(always(recorded(f"errors/{name}.json"), status=status))
            reader = connector()
            spec = next(iter(reader.plan(STRUCTURES, None, recording.context)))

            with pytest.raises(SourceRejected) as raised:
                list(reader.fetch(spec, None, recording.context))

            assert raised.value.code == "source.rejected"
            assert words in str(raised.value)
            assert "\n" not in str(raised.value)
            assert len(recording.http.requests) == 1


def test_any_other_server_error_is_the_clients_to_retry() -> None:
    with pytest.raises(SourceUnavailable):
        fetch(always({"errors": [{"title": "Internal Server Error"}]}, status=500))


def test_refused_credentials_ask_a_person() -> None:
    with pytest.raises(AuthError):
        fetch(always("Forbidden", status=403), headers={"X-Key": "wrong"})


def test_a_page_limit_that_is_too_large_is_lowered_to_what_is_allowed() -> None:
    def respond(request: SentRequest) -> HttpResponse:
        if "page_limit=1000&" in request.url:
            return answer(recorded("errors/http403_page_limit.json"), status=403)
        return answer(listing([entry(1)]))

    pages, recording = fetch(respond, page_limit=1000)

    assert "page_limit=30&" in recording.http.requests[1].url
    assert recording.event_kinds() == ["source.page_limit_lowered"]
    assert pages[0].record_count == 1


def test_a_page_limit_that_is_never_small_enough_gives_up() -> None:
    respond = always({"errors": [{"detail": "page_limit too large"}]}, status=403)

    with pytest.raises(AuthError):
        fetch(respond)
