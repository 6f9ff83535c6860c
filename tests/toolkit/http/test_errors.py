"""The meaning of statuses, explanations, contents and exceptions."""

import inspect
import json
import ssl

import httpx
import pytest

from ingestion.ports.errors import (
    AuthError,
    ConfigError,
    IngestError,
    RateLimited,
    SourceChanged,
    SourceRejected,
    SourceUnavailable,
)
from ingestion.toolkit.http.errors import HTTPX_ERRORS, error_detail, expect_json, from_exception, from_status
from ingestion.toolkit.http.retry import TransientError
from tests.fakes.http_client import URL, Source, client, response

STATUSES = [
    *((401, AuthError, "source.auth"), (403, AuthError, "source.auth"), (404, SourceRejected, "source.not_found")),
    *((400, SourceRejected, "source.rejected"), (422, SourceRejected, "source.rejected")),
    *((418, SourceRejected, "source.rejected"), (304, SourceRejected, "source.rejected")),
    *((501, SourceRejected, "source.rejected"), (553, SourceRejected, "source.rejected")),
    *((408, SourceUnavailable, "source.server_error"), (500, SourceUnavailable, "source.server_error")),
    *((502, SourceUnavailable, "source.server_error"), (503, SourceUnavailable, "source.server_error")),
    *((504, SourceUnavailable, "source.server_error"), (599, SourceUnavailable, "source.server_error")),
    (429, RateLimited, "source.rate_limited"),
]


def test_a_status_has_its_error(subtests: pytest.Subtests) -> None:
    for status, kind, code in STATUSES:
        with subtests.test(status=status, kind=kind, code=code):
            with pytest.raises(kind) as caught:
                client(Source(httpx.Response(status))).get(URL)

            assert caught.value.code == code
            assert "api.example.org" in str(caught.value)


def test_every_status_has_an_error_with_a_sentence() -> None:
    found = [from_status(response(status), host="api.example.org") for status in range(300, 600)]

    errors = [each.error if isinstance(each, TransientError) else each for each in found]
    assert all(isinstance(error, IngestError) for error in errors)
    assert not [str(error) for error in errors if "?" in str(error)]


def test_an_accepted_status_is_an_answer(subtests: pytest.Subtests) -> None:
    cases: list[int] = [404, 429, 500]
    for status in cases:
        with subtests.test(status=status):
            source = Source(httpx.Response(status, json={"a": 1}))

            answer = client(source).get(URL, accept_status=[status])

            assert (answer.status, expect_json(answer)) == (status, {"a": 1})
            assert len(source.requests) == 1


def test_the_reason_is_found_in_the_body(subtests: pytest.Subtests) -> None:
    cases: list[tuple[bytes, str]] = [
        (b'{"errors": [{"status": "400", "detail": "unknown property x"}]}', "unknown property x"),
        (b'{"errors": [{"title": "Bad", "detail": "one"}, {"detail": "two"}]}', "one; two"),
        (b'{"detail": "not so"}', "not so"),
        (b'{"detail": [{"loc": ["q"], "msg": "too long", "type": "x"}]}', "too long"),
        (b'{"detail": {"reason": "index gone"}}', "index gone"),
        (b'{"message": "limit reached", "documentation_url": "https://x"}', "limit reached"),
        (b'{"error": {"type": "parsing", "reason": "no such field"}}', "no such field"),
        (b'{"type": "about:blank", "title": "quota exceeded"}', "quota exceeded"),
        (b"<html><head><title>502 Bad\n Gateway</title></head></html>", "502 Bad Gateway"),
        (b"<html></html>", "a page instead of an explanation"),
        (b"plain words\n over lines", "plain words over lines"),
        (b'{"password": 1}', "no explanation given"),
        (b"[]", "no explanation given"),
        (b"", "no explanation given"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"detail": "key api_key=hunter22 is unknown"}', "key api_key=*** is unknown"),
        (json.dumps({"detail": "x" * 1000}).encode(), "x" * 300 + "…"),
    ]
    for body, detail in cases:
        with subtests.test(body=body, detail=detail):
            assert error_detail(response(400, body)) == detail


def test_content_that_is_no_json_is_bad_content(subtests: pytest.Subtests) -> None:
    """[74]."""
    cases: list[tuple[bytes, str, str]] = [
        (b"<!doctype html><html>", "text/html; charset=utf-8", "an HTML page"),
        (b"<html><body>Sign in</body></html>", "application/json", "an HTML page"),
        (b"<?xml version='1.0'?><a/>", "application/xml", "markup"),
        (b"", "application/json", "an empty body"),
        (b"  \n ", "application/json", "an empty body"),
        (b'{"a": 1,, }', "application/json", "broken JSON"),
        (b'{"a": NaN}', "application/json", "broken JSON"),
        (b"\xff\xfe{\0}\0", "application/json", "broken JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "application/json", "broken JSON"),
        (b"Service is down", "text/plain", "broken JSON"),
    ]
    for body, content_type, found in cases:
        with subtests.test(body=body, content_type=content_type, found=found):
            with pytest.raises(SourceChanged) as caught:
                expect_json(response(200, body, content_type=content_type))

            assert caught.value.code == "source.bad_content"
            assert caught.value.values["found"].startswith(found)
            assert (caught.value.values["url"], caught.value.values["status"]) == (URL, 200)
            assert caught.value.values["expected"] == "JSON"


def test_json_is_taken_whatever_it_calls_itself() -> None:
    assert expect_json(response(200, b'\xef\xbb\xbf {"a": 1}', content_type="text/plain")) == {"a": 1}


def test_json_that_ends_early_may_be_whole_the_next_time(subtests: pytest.Subtests) -> None:
    cases: list[bytes] = [b'{"data": [1, 2', b"[", b'{"a": "b']
    for body in cases:
        with subtests.test(body=body):
            with pytest.raises(SourceUnavailable) as caught:
                expect_json(response(200, body))

            assert "api.example.org" in str(caught.value)


def httpx_exceptions() -> list[type[Exception]]:
    return [kind for _, kind in inspect.getmembers(httpx, inspect.isclass) if issubclass(kind, Exception)]


def made(kind: type[Exception]) -> Exception:
    request = httpx.Request("GET", URL)
    if issubclass(kind, httpx.HTTPStatusError):
        return kind("text", request=request, response=httpx.Response(500, request=request))
    parameters = inspect.signature(kind).parameters
    return kind("text") if parameters else kind()


def test_every_exception_of_httpx_becomes_an_error_of_ours(subtests: pytest.Subtests) -> None:
    for kind in httpx_exceptions():
        with subtests.test(kind=kind):
            assert issubclass(kind, HTTPX_ERRORS)
            with pytest.raises(IngestError) as caught:
                client(Source(made(kind))).get(URL)

            assert "?" not in str(caught.value)


def test_an_exception_means_what_it_says(subtests: pytest.Subtests) -> None:
    cases: list[tuple[type[Exception], type[IngestError], str]] = [
        (httpx.ConnectError, SourceUnavailable, "source.unavailable"),
        (httpx.ReadTimeout, SourceUnavailable, "source.unavailable"),
        (httpx.RemoteProtocolError, SourceUnavailable, "source.unavailable"),
        (httpx.UnsupportedProtocol, ConfigError, "egress.scheme"),
        (httpx.InvalidURL, ConfigError, "egress.request"),
        (httpx.LocalProtocolError, ConfigError, "egress.request"),
        (httpx.TooManyRedirects, SourceRejected, "source.too_many_redirects"),
        (httpx.CookieConflict, SourceRejected, "source.rejected"),
    ]
    for kind, error, code in cases:
        with subtests.test(kind=kind, error=error, code=code):
            found = from_exception(made(kind), url=URL, host="api.example.org")

            meant = found.error if isinstance(found, TransientError) else found
            assert isinstance(meant, error)
            assert meant.code == code


def test_a_refused_certificate_is_recognised_however_deep_it_lies() -> None:
    refused = ssl.SSLCertVerificationError(1, "self-signed certificate")
    refused.verify_message = "self-signed certificate"
    middle = OSError("x")
    middle.__cause__ = refused
    outer = httpx.ConnectError("tls")
    outer.__cause__ = middle

    found = from_exception(outer, url=URL, host="api.example.org")

    assert isinstance(found, ConfigError)
    assert found.code == "source.tls"
    assert "self-signed" in str(found)


def test_an_exceptions_text_shows_no_secret_of_the_url() -> None:
    with pytest.raises(SourceUnavailable) as caught:
        client(Source(httpx.ConnectError("to https://u:hunter22@x.org/?token=hunter33 failed"))).get(
            f"{URL}?token=hunter33"
        )

    assert "hunter" not in f"{caught.value} {caught.value.values}"
