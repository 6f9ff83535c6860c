"""The ways in which listings name their next page, walked to their end over a scripted client."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ingestion.ports.batch import Page, Query
from ingestion.ports.context import HttpResponse
from ingestion.ports.errors import IngestError, SourceChanged
from ingestion.toolkit.rest.api import Api, plan_listing
from ingestion.toolkit.rest.walking import (
    LinkHeader,
    NextLink,
    NextToken,
    Offset,
    PageNumber,
    Paginator,
    Walk,
    read_listing,
    with_parameter,
)
from tests.conformance.context import RecordingContext, SentRequest, answer

BASE = "http://127.0.0.1:21000"
RECORDS = [{"id": number} for number in range(7)]
SIZE = 3


def walk(paginator: Paginator, respond: Callable[[dict[str, str]], HttpResponse], **where: Any) -> list[Page]:
    """Return the pages of a source that answers by its parameters."""
    asked: list[str] = []

    def reply(request: SentRequest) -> HttpResponse:
        asked.append(request.url)
        assert len(asked) < 20, asked
        return respond({name: values[-1] for name, values in parse_qs(urlsplit(request.url).query).items()})

    api, recording = Api(BASE), RecordingContext(reply)
    spec = next(plan_listing(Query("things", **where), api.url("things", {"q": "a b"})))

    def read(response: HttpResponse) -> Any:
        return read_listing(response, records=("items",), total=("total",))

    return list(api.pages(spec, None, recording.context, paginator=paginator, read=read))


def ids(pages: list[Page]) -> list[int]:
    return [record["id"] for page in pages for record in json.loads(page.body)["items"]]


def part(begin: int, size: int = SIZE, **more: Any) -> HttpResponse:
    headers = more.pop("headers", {})
    return answer({"items": RECORDS[begin : begin + size], **more}, headers=headers)


def by_offset(asked: dict[str, str]) -> HttpResponse:
    return part(int(asked.get("offset", 0)))


def by_number(asked: dict[str, str]) -> HttpResponse:
    return part((int(asked.get("page", 1)) - 1) * SIZE)


def by_token(asked: dict[str, str]) -> HttpResponse:
    begin = int(asked.get("after", "t0")[1:])
    return part(begin, meta={"next": f"t{begin + SIZE}" if begin + SIZE < len(RECORDS) else None})


def by_body(asked: dict[str, str]) -> HttpResponse:
    begin = int(asked.get("n", 0))
    return part(begin, paging={"next": f"?n={begin + SIZE}" if begin + SIZE < len(RECORDS) else ""})


def by_header(asked: dict[str, str]) -> HttpResponse:
    begin = int(asked.get("n", 0))
    following = f'<{BASE}/things?n={begin + SIZE}>; rel="next"'
    return part(begin, headers={"Link": following} if begin + SIZE < len(RECORDS) else {})


def test_every_way_reaches_every_record_once(subtests: pytest.Subtests) -> None:
    cases: list[tuple[Paginator, Callable[[dict[str, str]], HttpResponse], list[int]]] = [
        (Offset(), by_offset, [3, 3, 1, 0]),
        (PageNumber(), by_number, [3, 3, 1, 0]),
        (NextToken(("meta", "next"), "after"), by_token, [3, 3, 1]),
        (NextLink(("paging", "next")), by_body, [3, 3, 1]),
        (LinkHeader(), by_header, [3, 3, 1]),
    ]
    for paginator, respond, sizes in cases:
        with subtests.test(paginator=paginator, respond=respond, sizes=sizes):
            pages = walk(paginator, respond)

            assert ids(pages) == list(range(7))
            assert [page.record_count for page in pages] == sizes


def test_an_announced_total_saves_the_empty_page_and_a_limit_bounds_it() -> None:
    def counted(asked: dict[str, str]) -> HttpResponse:
        return part(int(asked.get("offset", 0)), total=7)

    whole, limited = walk(Offset(), counted), walk(Offset(), counted, limit=4)

    assert [(page.record_count, page.total) for page in whole] == [(3, 7), (3, 7), (1, 7)]
    assert [(page.record_count, page.total) for page in limited] == [(3, 4), (3, 4)]


def test_fewer_records_a_page_than_were_asked_for_are_no_end() -> None:
    def capped(asked: dict[str, str]) -> HttpResponse:
        return part(int(asked.get("offset", 0)), size=2)

    assert ids(walk(Offset(), capped)) == list(range(7))


def test_what_cannot_be_walked_ends_with_a_code(subtests: pytest.Subtests) -> None:
    cases: list[tuple[Paginator, Callable[[dict[str, str]], HttpResponse], str]] = [
        (Offset(), lambda _: part(0), "source.pagination_loop"),
        (PageNumber(), lambda _: part(0), "source.pagination_loop"),
        (PageNumber(), lambda _: answer({"items": [{"a": 1}]}), "source.pagination_loop"),
        (NextToken(("meta", "next"), "after"), lambda _: part(0, meta={"next": "t3"}), "source.pagination_loop"),
        (LinkHeader(), lambda _: part(0, headers={"link": "<?n=1>; rel=next"}), "source.pagination_loop"),
        (LinkHeader(), lambda _: part(0, headers={"link": "<//evil.example/>; rel=next"}), "source.foreign_next"),
        (NextLink(("next",)), lambda _: part(0, next="http://[::1/x"), "source.foreign_next"),
        (NextLink(("next",)), lambda _: answer({"items": None}), "source.bad_content"),
        (NextLink(("next",)), lambda _: answer("<html>sign in</html>"), "source.bad_content"),
    ]
    for paginator, respond, code in cases:
        with subtests.test(paginator=paginator, respond=respond, code=code):
            with pytest.raises(IngestError) as raised:
                walk(paginator, respond)

            assert raised.value.code == code


def test_a_total_that_shrinks_in_the_middle_is_told() -> None:
    with pytest.raises(SourceChanged) as raised:
        walk(Offset(), lambda asked: part(int(asked.get("offset", 0)), total=7 - int(asked.get("offset", 0))))

    assert raised.value.code == "source.total_shrank"


def test_the_header_link_is_read_in_its_usual_and_unusual_forms(subtests: pytest.Subtests) -> None:
    cases: list[tuple[str, str | None]] = [
        ('<https://a/?page=2>; rel="next", <https://a/?page=5>; rel="last"', "https://a/?page=2"),
        ('<https://a/?page=1>; rel="prev", <https://a/?page=3>; rel="next"', "https://a/?page=3"),
        ("<?x=1,2;3>;rel=next", "?x=1,2;3"),
        ('<a>; title="so, <b>; rel=next"; rel="last", <c>; REL="first Next"', "c"),
        ('<a>; rel="nextish"', None),
        ('<a>; rel="last"', None),
        ("a; rel=next", None),
        ('<a>; title="never ends; rel=next' + "<" * 5_000, None),
        ("", None),
    ]
    for header, found in cases:
        with subtests.test(header=header, found=found):
            listing = read_listing(answer([], headers={"link": header}))

            assert LinkHeader().next_link(BASE, listing, read=0) == found


def test_a_parameter_is_set_and_the_rest_stays_as_it_is_written() -> None:
    assert with_parameter("http://a/b?q=%2B1+x&page=2&r=ä", "page", "3") == "http://a/b?q=%2B1+x&r=ä&page=3"
    assert with_parameter("http://a/b", "page[number]", "a&b") == "http://a/b?page%5Bnumber%5D=a%26b"
    assert with_parameter("http://a/b?page%5Bnumber%5D=1", "page[number]", "2") == "http://a/b?page%5Bnumber%5D=2"


def test_a_cursor_of_an_earlier_release_is_read_and_written_alike() -> None:
    mark = "AbCdEf_1"
    cursor = {
        "next": f"{BASE}/v1/structures?page_offset=4",
        "seen": 4,
        "again": 1,
        "total": 9,
        "empty": 0,
        "recheck": True,
        "urls": [2, mark, mark, mark * 2],
        "pages": [1, mark, mark, mark],
        "ids": mark * 2,
        "warned": [mark],
    }

    assert json.loads(json.dumps(Walk.from_cursor(cursor).to_cursor())) == cursor
