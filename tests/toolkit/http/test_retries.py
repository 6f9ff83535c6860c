"""When the client tries again, waits, gives up, stops. The number in brackets is of the catalogue of bad inputs."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from ingestion.ports.errors import (
    Cancelled,
    IngestError,
    LeaseLost,
    RateLimited,
    SourceUnavailable,
)
from ingestion.toolkit.http.retry import parse_retry_after
from tests.fakes.http_client import URL, Limits, Naps, Source, client

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_a_passing_failure_is_tried_again(subtests: pytest.Subtests) -> None:
    cases: list[httpx.Response | Exception] = [
        *(httpx.Response(500), httpx.Response(503), httpx.Response(429), httpx.ConnectError("refused")),
        *(httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut")),
        httpx.Response(429, headers={"retry-after": "1"}),
    ]
    for failure in cases:
        with subtests.test(failure=failure):
            source = Source(failure, failure, httpx.Response(200))

            assert client(source).get(URL).status == 200
            assert len(source.requests) == 3


def test_a_decision_is_not_tried_again(subtests: pytest.Subtests) -> None:
    cases: list[int] = [400, 401, 403, 404, 501]
    for status in cases:
        with subtests.test(status=status):
            source = Source(httpx.Response(status))

            with pytest.raises(IngestError):
                client(source).get(URL)

            assert len(source.requests) == 1


def test_the_attempts_end_and_their_waits_are_short() -> None:
    naps = Naps()
    source = Source(httpx.Response(500))

    with pytest.raises(SourceUnavailable):
        client(source, sleep=naps, attempts=5).get(URL)

    assert len(source.requests) == 5
    assert len(naps) == 4
    assert all(0 <= nap <= 2 for nap in naps)


def test_work_that_is_to_stop_is_not_tried_again() -> None:
    source = Source(httpx.Response(500))

    def beat() -> None:
        if source.requests:
            raise Cancelled

    with pytest.raises(Cancelled):
        client(source, beat=beat).get(URL)

    assert len(source.requests) == 1


def test_a_post_with_an_unclear_answer_is_repeated_only_if_it_may_be(subtests: pytest.Subtests) -> None:
    cases: list[httpx.Response | Exception] = [
        httpx.Response(500),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
    ]
    for failure in cases:
        with subtests.test(failure=failure):
            once, again = Source(failure, httpx.Response(200)), Source(failure, httpx.Response(200))

            with pytest.raises(SourceUnavailable):
                client(once).post(URL, json={})
            client(again).post(URL, json={}, is_repeatable=True)

            assert (len(once.requests), len(again.requests)) == (1, 2)


def test_a_post_that_was_clearly_not_taken_is_sent_again(subtests: pytest.Subtests) -> None:
    cases: list[httpx.Response | Exception] = [httpx.ConnectError("refused"), httpx.Response(429)]
    for failure in cases:
        with subtests.test(failure=failure):
            source = Source(failure, httpx.Response(200))

            client(source).post(URL, json={})

            assert len(source.requests) == 2


def test_a_long_wait_is_handed_to_the_engine_and_all_workers_fall_silent(subtests: pytest.Subtests) -> None:
    cases: list[int] = [429, 503, 403]
    for status in cases:
        with subtests.test(status=status):
            limits, naps = Limits(), Naps()
            source = Source(httpx.Response(status, headers={"retry-after": "120"}))

            with pytest.raises(RateLimited) as caught:
                client(source, limiter=limits, limit_key="source:1", sleep=naps).get(URL)

            assert caught.value.code == "source.rate_limited"
            assert caught.value.retry_after_s == 120
            assert limits.events == [("acquire", "source:1", 1), ("slow_down", "source:1", 120)]
            assert naps == []


def test_a_short_wait_is_slept_here() -> None:
    limits, naps = Limits(), Naps()
    source = Source(httpx.Response(429, headers={"retry-after": "2"}), httpx.Response(200))

    client(source, limiter=limits, limit_key="k", sleep=naps).get(URL)

    assert naps == [2]
    assert limits.events == [("acquire", "k", 1), ("slow_down", "k", 2), ("acquire", "k", 1)]


def test_a_limit_without_a_wait_gets_our_own_and_ends_with_the_default() -> None:
    limits = Limits()

    with pytest.raises(RateLimited) as caught:
        client(Source(httpx.Response(429)), limiter=limits, limit_key="k").get(URL)

    assert caught.value.retry_after_s == 30
    assert limits.events[-1] == ("slow_down", "k", 30)


def test_every_attempt_and_every_hop_asks_the_limiter_first() -> None:
    limits = Limits()
    source = Source(httpx.Response(302, headers={"location": "/x"}), httpx.Response(500), httpx.Response(200))

    client(source, limiter=limits, limit_key="k").get(URL)

    assert len(source.requests) == len(limits.events) == 3


def test_without_permission_nothing_is_sent() -> None:
    class Closed(Limits):
        def acquire(self, key: str, *, tokens: int = 1) -> float:
            raise RateLimited("limiter.waiting", key=key, retry_after_s=9.0)

    source, limits = Source(httpx.Response(200)), Closed()

    with pytest.raises(RateLimited) as caught:
        client(source, limiter=limits, limit_key="k").get(URL)

    assert caught.value.code == "limiter.waiting"
    assert source.requests == []
    assert limits.events == [], "our own limit is no request of the source for silence"


def test_retry_after_is_understood_or_left_aside(subtests: pytest.Subtests) -> None:
    """[78]."""
    cases: list[tuple[str | None, float | None]] = [
        *(("120", 120), (" 7 ", 7), ("0", None), ("-1", None), ("1000000000", 3600), ("9" * 5000, 3600)),
        *(("soon", None), ("", None), ("1.5", None), ("1e3", None), ("²", None), ("NaN", None), (None, None)),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), None),
        (format_datetime(NOW + timedelta(days=900), usegmt=True), 3600),
        ("Sun, 99 Nov 2026 99:00:00 GMT", None),
    ]
    for value, expected_s in cases:
        with subtests.test(value=value, expected_s=expected_s):
            assert parse_retry_after(value, now=NOW) == expected_s


def test_a_date_counts_from_the_answers_own_date() -> None:
    server_now = NOW - timedelta(hours=5)
    until = format_datetime(server_now + timedelta(seconds=60), usegmt=True)

    assert parse_retry_after(until, date=format_datetime(server_now, usegmt=True), now=NOW) == 60


def test_recorded_headers_of_providers_are_read_the_way_they_are_meant() -> None:
    recorded = json.loads((Path(__file__).parents[2] / "data" / "ratelimit" / "retry_after.json").read_text())

    for case in recorded:
        headers = {name.lower(): value for name, value in case["headers"].items()}
        found = parse_retry_after(headers.get("retry-after"), date=headers.get("date"))
        assert found == case["wait_s"], case["name"]


def test_an_aborted_client_refuses_every_call_with_the_reason() -> None:
    source = Source(httpx.Response(200))
    http, other = client(source), client(source)
    http.abort()
    other.abort(LeaseLost())

    with pytest.raises(Cancelled):
        http.get(URL)
    with pytest.raises(LeaseLost):
        other.get(URL)

    assert source.requests == []
