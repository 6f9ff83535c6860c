"""Requests as the client sends them, and to whom: parameters, credentials, redirects. No socket is opened here."""

import json

import httpx
import pytest

from ingestion.ports.errors import (
    ConfigError,
    SourceRejected,
)
from ingestion.toolkit.http.client import Http
from ingestion.toolkit.http.egress import EgressPolicy, is_same_origin
from ingestion.toolkit.http.errors import expect_json
from ingestion.toolkit.redact import redact
from tests.fakes.http_client import URL, Source, client


def test_a_get_returns_the_whole_answer() -> None:
    source = Source(httpx.Response(200, json={"data": [1]}, headers={"x-total": "1", "set-cookie": "a=b"}))

    answer = client(source).get(URL, params={"page": 2, "q": "a b"}, headers={"x-wish": "w"})

    assert expect_json(answer) == {"data": [1]}
    assert (answer.status, answer.url) == (200, f"{URL}?page=2&q=a+b")
    assert answer.headers["x-total"] == "1"
    assert "set-cookie" not in answer.headers
    assert source.requests[0].headers["x-wish"] == "w"


def test_parameters_are_added_to_those_of_the_url() -> None:
    source = Source(httpx.Response(200))

    client(source).get(f"{URL}?page_offset=10", params={"page_limit": 5})

    assert dict(source.requests[0].url.params) == {"page_offset": "10", "page_limit": "5"}


def test_a_post_sends_json() -> None:
    source = Source(httpx.Response(200))

    client(source).post(URL, json={"query": {"a": 1}})

    assert json.loads(source.requests[0].content) == {"query": {"a": 1}}
    assert source.requests[0].headers["content-type"] == "application/json"


def test_what_one_answer_sets_does_not_travel_with_the_next_request() -> None:
    source = Source(httpx.Response(200, headers={"set-cookie": "session=1; Path=/"}))
    http = client(source)

    http.get(URL)
    http.get(URL)

    assert "cookie" not in source.requests[1].headers


def test_a_line_break_in_a_header_is_refused(subtests: pytest.Subtests) -> None:
    """[36]."""
    cases: list[str] = ["a\r\nX-Evil: 1", "a\nb", "a\tb", "a\0b"]
    for value in cases:
        with subtests.test(value=value):
            source = Source(httpx.Response(200))

            with pytest.raises(ConfigError) as caught:
                client(source).get(URL, headers={"x-wish": value})

            assert caught.value.code == "egress.request"
            assert source.requests == []


def test_a_secret_that_a_caller_sends_itself_is_known_to_redaction() -> None:
    source = Source(httpx.Response(200))
    headers = {"X-Api-Key": "CANARY-5e5e5e", "X-Wish": "elements", "Authorization": "Bearer CANARY-77aa66bb"}

    client(source).get(URL, headers=headers)

    assert redact("CANARY-5e5e5e for elements, x CANARY-77aa66bb y") == "*** for elements, x *** y"


def test_the_answers_url_carries_no_secret() -> None:
    answer = client(Source(httpx.Response(200))).get(f"{URL}?api_key=CANARY-1&page=2")

    assert answer.url == f"{URL}?api_key=***&page=2"


def redirecting(*locations: str, status: int = 302) -> Source:
    return Source(
        *(httpx.Response(status, headers={"location": location}) for location in locations), httpx.Response(200)
    )


def test_a_redirect_within_the_origin_keeps_the_headers() -> None:
    source = redirecting("/v2/records?page=1")

    answer = client(source).get(URL, headers={"authorization": "Bearer x", "x-wish": "w"})

    assert answer.url == "https://api.example.org/v2/records?page=1"
    assert source.requests[1].headers["authorization"] == "Bearer x"
    assert source.requests[1].headers["x-wish"] == "w"


def test_a_redirect_to_another_origin_loses_the_credentials(subtests: pytest.Subtests) -> None:
    cases: list[str] = ["https://evil.example.net/", "https://api.example.org:444/", "//evil.example.net/x"]
    for location in cases:
        with subtests.test(location=location):
            source = redirecting(location)
            secret = {"Authorization": "Bearer x", "Cookie": "a=b", "x-api-key": "k", "x-auth": "secret-value"}
            http = Http(EgressPolicy(ports=frozenset({443, 444})), transport=httpx.MockTransport(source))

            http.get(URL, headers={**secret, "accept": "application/json"})

            assert {"authorization", "cookie", "x-api-key", "x-auth"} <= set(source.requests[0].headers)
            assert {"authorization", "cookie", "x-api-key", "x-auth"}.isdisjoint(source.requests[1].headers)
            assert source.requests[1].headers["accept"] == "application/json"


def test_every_hop_is_checked(subtests: pytest.Subtests) -> None:
    """[33]."""
    cases: list[tuple[str, str]] = [
        ("http://169.254.169.254/latest/meta-data", "egress.forbidden"),
        ("https://[::1]/", "egress.forbidden"),
        ("http://api.example.org/v1/records", "egress.downgrade"),
        ("file:///etc/passwd", "egress.scheme"),
        ("https://user:pass@api.example.org/", "egress.request"),
    ]
    for location, code in cases:
        with subtests.test(location=location, code=code):
            source = redirecting(location)

            with pytest.raises(ConfigError) as caught:
                client(source).get(URL)

            assert caught.value.code == code
            assert len(source.requests) == 1


def test_a_redirect_loop_ends_after_five() -> None:
    source = Source(httpx.Response(302, headers={"location": URL}))

    with pytest.raises(SourceRejected) as caught:
        client(source).get(URL)

    assert caught.value.code == "source.too_many_redirects"
    assert len(source.requests) == 6


def test_a_redirected_post_is_repeated_only_where_the_status_says_so(subtests: pytest.Subtests) -> None:
    cases: list[tuple[int, str]] = [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")]
    for status, method in cases:
        with subtests.test(status=status, method=method):
            source = redirecting("/v2", status=status)

            client(source).post(URL, json={"a": 1})

            assert source.requests[1].method == method
            assert bool(source.requests[1].content) is (method == "POST")


def test_origins_are_compared_by_scheme_host_and_port(subtests: pytest.Subtests) -> None:
    cases: list[tuple[str, str, bool]] = [
        ("https://x.org/a", "https://x.org:443/b", True),
        ("https://x.org/a", "http://x.org/a", False),
        ("https://x.org/a", "https://X.org/a", True),
        ("https://x.org/a", "https://x.org:8443/a", False),
        ("https://x.org/a", "https://x.org.evil.net/a", False),
    ]
    for one, other, is_same in cases:
        with subtests.test(one=one, other=other, is_same=is_same):
            assert is_same_origin(one, other) is is_same
