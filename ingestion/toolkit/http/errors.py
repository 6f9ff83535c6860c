"""Translation of HTTP into the errors of `ports.errors`: every status and every exception of httpx has its place."""

import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from ingestion.ports.context import HttpResponse
from ingestion.ports.errors import (
    AuthError,
    ConfigError,
    IngestError,
    RateLimited,
    SourceChanged,
    SourceRejected,
    SourceUnavailable,
)
from ingestion.toolkit.http.retry import DEFAULT_RETRY_AFTER_S, LONGEST_SLEEP_S, TransientError, parse_retry_after
from ingestion.toolkit.redact import redact, redact_url

HTTPX_ERRORS = (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError)
"""The roots of httpx's exceptions; a test walks all classes under them."""

_DETAIL_CHARS = 300
# "Not implemented" and "version not supported" are decisions, not accidents; 553 is OPTIMADE's word for the latter.
_REFUSING_5XX = frozenset({501, 505, 553})
_LIMITING = frozenset({403, 429, 503})
_TRANSIENT_4XX = frozenset({408, 425})
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


def from_status(response: HttpResponse, *, host: str) -> IngestError | TransientError:
    """Return the error that an answer with a status from 300 means; a TransientError may be tried again at once."""
    status, url = response.status, redact_url(response.url)
    asked_s = parse_retry_after(response.headers.get("retry-after"), date=response.headers.get("date"))
    if status == httpx.codes.TOO_MANY_REQUESTS or (status in _LIMITING and asked_s is not None):
        wait_s = DEFAULT_RETRY_AFTER_S if asked_s is None else asked_s
        limited = RateLimited("source.rate_limited", host=host, retry_after_s=wait_s, status=status, url=url)
        is_short = asked_s is None or asked_s <= LONGEST_SLEEP_S
        return TransientError(limited, wait_s=asked_s) if is_short else limited
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return AuthError("source.auth", host=host, status=status, url=url, detail=error_detail(response))
    if status == httpx.codes.NOT_FOUND:
        return SourceRejected("source.not_found", host=host, status=status, url=url)
    if status in _TRANSIENT_4XX or (status >= _SERVER_ERROR and status not in _REFUSING_5XX):
        detail = error_detail(response)
        return TransientError(
            SourceUnavailable("source.server_error", host=host, status=status, url=url, detail=detail)
        )
    return SourceRejected("source.rejected", host=host, status=status, url=url, detail=error_detail(response))


def from_exception(error: Exception, *, url: str, host: str) -> IngestError | TransientError:
    """Return the error that an exception of httpx means; a TransientError may be tried again at once."""
    certificate = next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if certificate is not None:
        return ConfigError("source.tls", host=host, detail=certificate.verify_message or "it cannot be verified")
    shown = redact_url(url)
    return _decided(error, shown=shown, host=host) or TransientError(
        SourceUnavailable("source.unavailable", host=host, detail=_plain_words(error), url=shown)
    )


def _decided(error: Exception, *, shown: str, host: str) -> IngestError | None:
    """Return the error for what another attempt cannot change, or None."""
    match error:
        case httpx.UnsupportedProtocol():
            return ConfigError("egress.scheme", url=shown)
        case httpx.InvalidURL() | httpx.LocalProtocolError():
            return ConfigError("egress.request", url=shown, detail=_short(str(error)))
        case httpx.TooManyRedirects():
            return SourceRejected("source.too_many_redirects", url=shown, limit=0)
        case httpx.CookieConflict():
            return SourceRejected("source.rejected", host=host, status="-", detail="it set cookies that contradict")
        case httpx.RemoteProtocolError() if "too long" in str(error):
            found = "headers beyond every measure"
            return SourceChanged("source.bad_content", url=shown, status="-", found=found, expected="an HTTP answer")
    return None


def _plain_words(error: Exception) -> str:
    match error:
        case httpx.ConnectTimeout():
            return "no connection came about in time"
        case httpx.TimeoutException():
            return "it fell silent in the middle of the exchange"
        case httpx.ConnectError():
            return f"no connection: {_short(str(error))}"
        case httpx.RemoteProtocolError():
            return f"its answer broke off: {_short(str(error))}"
    return _short(f"{type(error).__name__}: {error}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def error_detail(response: HttpResponse) -> str:
    """Return one short line of what the body says went wrong, without secrets; the content's kind if it says nothing.

    Understands JSON:API and OPTIMADE `errors`, problem+json, and `detail`/`message`/`error` in their usual forms.
    """
    body = response.body
    if not body:
        return "no explanation given"
    try:
        found = _find_detail(orjson.loads(body))
    except orjson.JSONDecodeError:
        text = body[:4096].decode("utf-8", errors="replace")
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        is_markup = text.lstrip().startswith("<")
        found = title[1] if title else "a page instead of an explanation" if is_markup else text
    return _short(found) or "no explanation given"


def _find_detail(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, (_find_detail(item) for item in value[:3])))
    if isinstance(value, Mapping):
        for name in ("errors", "error", "detail", "message", "msg", "reason", "error_description", "title"):
            if value.get(name):
                return _find_detail(value[name])
    return ""


def _short(text: str) -> str:
    line = redact(" ".join(text.split()))
    return line if len(line) <= _DETAIL_CHARS else f"{line[:_DETAIL_CHARS]}…"


def bad_content(response: HttpResponse, *, found: str, expected: str) -> SourceChanged:
    """Return the error for an answer that came whole but is not of the agreed form."""
    url = redact_url(response.url)
    return SourceChanged("source.bad_content", url=url, status=response.status, found=found, expected=expected)


def expect_json(response: HttpResponse) -> Any:
    """Return the answer's JSON value; SourceChanged where it is HTML, empty or no JSON.

    JSON that simply ends too early is SourceUnavailable: the transfer was cut where HTTP cannot see it.
    """
    content_type = response.headers.get("content-type", "").split(";")[0].strip().lower()
    body = response.body.removeprefix(b"\xef\xbb\xbf")
    start = body[:256].lstrip()
    if not start:
        raise bad_content(response, found="an empty body", expected="JSON")
    if start.startswith(b"<"):
        kind = "an HTML page" if "html" in content_type or b"<html" in body[:1024].lower() else "markup"
        raise bad_content(response, found=kind, expected="JSON")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "unexpected end of data" in str(error) and start[:1] in (b"{", b"["):
            host = urlsplit(response.url).hostname or "?"
            detail = f"its JSON ended early, after {len(body)} bytes"
            raise SourceUnavailable("source.unavailable", host=host, detail=detail) from error
        raise bad_content(response, found=f"broken JSON ({_short(str(error))})", expected="JSON") from error
