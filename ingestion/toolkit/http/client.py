"""The one HTTP client: guarded, rate limited, bounded in time and size, retried in one place."""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

import httpx
import orjson

from ingestion.ports.check import CheckReport
from ingestion.ports.context import HttpResponse, Limiter
from ingestion.ports.errors import (
    Cancelled,
    ConfigError,
    IngestError,
    RateLimited,
    Signal,
    SourceChanged,
    SourceRejected,
    SourceUnavailable,
)
from ingestion.toolkit.http.body import ACCEPTED_ENCODINGS, TooLargeError, read_body
from ingestion.toolkit.http.connections import Connections, OutOfTimeError
from ingestion.toolkit.http.egress import EgressGuard, EgressPolicy, GuardedTransport, check_url, is_same_origin
from ingestion.toolkit.http.errors import HTTPX_ERRORS, from_exception, from_status
from ingestion.toolkit.http.probe import PROBE_TIMEOUT_S, probe, probe_http
from ingestion.toolkit.http.retry import DEFAULT_RETRY_AFTER_S, LONGEST_RETRY_AFTER_S, TransientError, run_attempts
from ingestion.toolkit.redact import is_secret_name, redact_url, register_secret

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEP_METHOD = frozenset({307, 308})
_ERROR_STATUS = 300
_ERROR_BODY_BYTES = 1 << 16
_HARMLESS_HEADERS = frozenset({"accept", "accept-language", "content-type", "user-agent"})
"""Headers that a request may carry to another origin than it was written for."""
_HIDDEN_HEADERS = frozenset({"set-cookie", "set-cookie2", "authorization", "www-authenticate", "content-encoding"})
# An answer that crawls for this long and is slower than the minimum rate is given up before the deadline.
_PATIENCE_S = 20.0
# The silence of all workers after a 429 that names none.
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Call:
    """One request as a caller asked for it; redirects make others of it."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str]
    content: bytes | None
    accept_status: Sequence[int]
    is_repeatable: bool
    deadline_at: float


class Http:
    """Implements `ports.context.HttpClient`. One per piece of work, used by one thread; `abort` may come from another.

    `limit_key` is the source's key at the limiter: permission is acquired before every attempt, and a source that asks
    for silence makes all workers silent. `beat` is called before every attempt and for every piece; its signal ends the
    call. `timeout_s` bounds the wait for each piece, `deadline_s` the whole call with
    its retries. With `transport` (tests) nothing is dialled, so only the written-out addresses are judged.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        limiter: Limiter | None = None,
        limit_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
        timeout_s: float = 30.0,
        deadline_s: float = 120.0,
        max_body_bytes: int = 64 << 20,
        min_rate_bytes_per_s: float = 512.0,
        attempts: int = 3,
        user_agent: str = "headgate",
        ssl_context: ssl.SSLContext | None = None,
        sleep: Callable[[float], None] | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.policy = policy
        self._limiter = limiter
        self._limit_key = limit_key
        self._deadline_s = deadline_s
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._min_rate_bytes_per_s = min_rate_bytes_per_s
        self._attempts = attempts
        self._beat = beat
        self._connections = Connections()
        self._aborted = threading.Event()
        self._abort_reason: Signal | None = None
        self._sleep = self._wait if sleep is None else sleep
        self._ssl_context = ssl_context
        self._transport = transport
        self._is_dialling = transport is None
        self._variants: list[Http] = []
        guard = EgressGuard(policy, connections=self._connections)
        self._client = httpx.Client(
            transport=transport or GuardedTransport(guard, ssl_context=ssl_context),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            headers={"user-agent": user_agent, "accept": "*/*", "accept-encoding": ACCEPTED_ENCODINGS},
        )

    def get(
        self,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        accept_status: Sequence[int] = (),
    ) -> HttpResponse:
        """Return the answer to a GET; `params` are added to those of the URL."""
        return self._request("GET", url, params=params, headers=headers, accept_status=accept_status)

    def post(
        self,
        url: str,
        *,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        accept_status: Sequence[int] = (),
        is_repeatable: bool = False,
    ) -> HttpResponse:
        """Return the answer to a POST of `json`.

        Only a repeatable one (a search, say) is sent again after an unclear answer; any is after a clear "not now".
        """
        content = b"" if json is None else orjson.dumps(json)
        typed = {"content-type": "application/json", **(headers or {})}
        return self._request(
            "POST", url, headers=typed, content=content, accept_status=accept_status, is_repeatable=is_repeatable
        )

    def probe(self, url: str, *, headers: Mapping[str, str] | None = None) -> CheckReport:
        """Return which layer between here and a GET of the URL fails: dns, tcp, tls, http, auth."""

        def ask(target: str) -> HttpResponse:
            return self.get(target, headers=headers)

        if self._is_dialling:
            timeout_s = min(self._timeout_s, PROBE_TIMEOUT_S)
            return probe(url, self.policy, ask=ask, timeout_s=timeout_s, ssl_context=self._ssl_context)
        return probe_http(url, ask=ask)

    def slow_down(self, seconds: float) -> None:
        """Make all workers silent towards the source for that long, an hour at most: it asked for it."""
        if self._limiter is None or self._limit_key is None:
            return
        # Without its limiter nothing is sent anyway; what the source said matters more.
        with contextlib.suppress(SourceUnavailable):
            self._limiter.slow_down(self._limit_key, seconds=min(seconds, LONGEST_RETRY_AFTER_S))

    def variant(self, *, ca_file: str | None = None, deadline_s: float | None = None) -> "Http":
        """Return a client under the same policy that trusts another authority, or gives up sooner.

        It is aborted and closed with this one. ConfigError where the file holds no certificates.
        """
        try:
            ssl_context = ssl.create_default_context(cafile=ca_file) if ca_file else self._ssl_context
        except (OSError, ssl.SSLError) as error:
            detail = f"the certificates in {ca_file} cannot be read ({type(error).__name__})"
            raise ConfigError("config.invalid", where="the destination", detail=detail) from error
        made = Http(
            self.policy,
            transport=self._transport,
            timeout_s=min(self._timeout_s, deadline_s or self._timeout_s),
            deadline_s=deadline_s or self._deadline_s,
            max_body_bytes=self._max_body_bytes,
            attempts=self._attempts,
            ssl_context=ssl_context,
            sleep=None if self._sleep == self._wait else self._sleep,
            beat=self._beat,
        )
        self._variants.append(made)
        return made

    def abort(self, reason: Signal | None = None) -> None:
        """End the call in flight, and refuse all later ones, with `reason` (Cancelled); for another thread's use."""
        self._abort_reason = reason or Cancelled()
        self._aborted.set()
        self._connections.abort()
        for variant in self._variants:
            variant.abort(reason)

    def close(self) -> None:
        """Close the idle connections; the client is not used any more."""
        self._client.close()
        for variant in self._variants:
            variant.close()

    def __enter__(self) -> "Http":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        accept_status: Sequence[int] = (),
        is_repeatable: bool = True,
    ) -> HttpResponse:
        target = check_url(url, self.policy)
        deadline_at = time.monotonic() + self._deadline_s
        call = _Call(
            method=method,
            url=target.copy_merge_params(params) if params else target,
            headers=_checked_headers(headers or {}, url=url),
            content=content,
            accept_status=accept_status,
            is_repeatable=is_repeatable,
            deadline_at=deadline_at,
        )
        try:
            return run_attempts(
                lambda: self._attempt(call),
                attempts=self._attempts,
                deadline_at=deadline_at,
                sleep=self._sleep,
            )
        except IngestError as error:
            self._raise_if_aborted(error)
            if error.code == "source.rate_limited" and isinstance(error, RateLimited):
                self.slow_down(error.retry_after_s or DEFAULT_RETRY_AFTER_S)
            raise

    def _attempt(self, call: _Call) -> HttpResponse:
        """Return the answer, followed through its redirects."""
        for _ in range(MAX_REDIRECTS + 1):
            response = self._exchange(call)
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or location is None or response.status in call.accept_status:
                return self._judged(call, response)
            call = self._redirected(call, status=response.status, location=location)
        raise SourceRejected("source.too_many_redirects", url=redact_url(str(call.url)), limit=MAX_REDIRECTS)

    def _exchange(self, call: _Call) -> HttpResponse:
        """Return the answer to one request, complete, whatever its status."""
        self._raise_if_aborted(None)
        if self._limiter is not None and self._limit_key is not None:
            self._limiter.acquire(self._limit_key)
        self._beat()
        host = call.url.host
        started_at = time.monotonic()
        try:
            with self._connections.until(call.deadline_at):
                return self._send(call, started_at=started_at)
        except OutOfTimeError as error:
            raise SourceUnavailable("source.too_slow", host=host, seconds=round(self._deadline_s, 1)) from error
        except TooLargeError as error:
            url = redact_url(str(call.url))
            raise SourceChanged("source.too_large", url=url, limit_bytes=self._max_body_bytes) from error
        except HTTPX_ERRORS as error:
            self._raise_if_aborted(error)
            mapped = from_exception(error, url=str(call.url), host=host)
            was_not_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            raise _final(mapped, may_repeat=call.is_repeatable or was_not_sent) from error
        except TransientError as error:
            raise _final(error, may_repeat=call.is_repeatable) from error.__cause__

    def _send(self, call: _Call, *, started_at: float) -> HttpResponse:
        request = self._client.build_request(call.method, call.url, headers=call.headers, content=call.content)

        def on_chunk(received: int) -> None:
            self._beat()
            self._connections.bound(None)
            elapsed_s = time.monotonic() - started_at
            if elapsed_s > _PATIENCE_S and received < self._min_rate_bytes_per_s * elapsed_s:
                raise SourceUnavailable("source.too_slow", host=call.url.host, seconds=round(elapsed_s, 1))

        response = self._client.send(request, stream=True)
        try:
            is_wanted = response.status_code < _ERROR_STATUS or response.status_code in call.accept_status
            limit = self._max_body_bytes if is_wanted else _ERROR_BODY_BYTES
            try:
                body = read_body(response, max_bytes=limit, on_chunk=on_chunk)
            except (TooLargeError, OutOfTimeError, TransientError, IngestError, *HTTPX_ERRORS):
                # The status has said it already; the explanation in the body is a courtesy.
                if is_wanted:
                    raise
                body = b""
        finally:
            response.close()
            # Nothing that one answer sets may travel with a later request.
            self._client.cookies.clear()
        kept = {name: value for name, value in response.headers.items() if name not in _HIDDEN_HEADERS}
        return HttpResponse(
            status=response.status_code,
            url=redact_url(str(call.url)),
            headers=kept,
            body=body,
            elapsed_ms=(time.monotonic() - started_at) * 1000,
        )

    def _judged(self, call: _Call, response: HttpResponse) -> HttpResponse:
        """Return the answer if its status is good or was asked for; else raise what it means."""
        if response.status < _ERROR_STATUS or response.status in call.accept_status:
            return response
        error = from_status(response, host=call.url.host)
        is_limit = isinstance(error, TransientError) and isinstance(error.error, RateLimited)
        if isinstance(error, TransientError) and is_limit:
            self.slow_down(error.wait_s or _PAUSE_S)
        raise _final(error, may_repeat=call.is_repeatable or is_limit)

    def _redirected(self, call: _Call, *, status: int, location: str) -> _Call:
        """Return the call that a redirect asks for: checked anew, without credentials where the origin changes."""
        target = check_url(urljoin(str(call.url), location), self.policy)
        if call.url.scheme == "https" and target.scheme != "https":
            shown = redact_url(str(call.url))
            raise ConfigError("egress.downgrade", url=shown, target=redact_url(str(target)))
        headers = dict(call.headers)
        if not is_same_origin(call.url, target):
            headers = {name: value for name, value in headers.items() if name.lower() in _HARMLESS_HEADERS}
        if status in _KEEP_METHOD or call.method == "GET":
            return replace(call, url=target, headers=headers)
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        return replace(call, method="GET", url=target, headers=headers, content=None)

    def _wait(self, seconds: float) -> None:
        self._aborted.wait(seconds)

    def _raise_if_aborted(self, error: Exception | None) -> None:
        if self._abort_reason is not None:
            raise self._abort_reason from error


def _final(error: IngestError | TransientError, *, may_repeat: bool) -> IngestError | TransientError:
    return error.error if isinstance(error, TransientError) and not may_repeat else error


def _checked_headers(headers: Mapping[str, str], *, url: str) -> Mapping[str, str]:
    for name, value in headers.items():
        if any(mark in "\r\n\t\0" for mark in f"{name}{value}"):
            detail = f"the header {name!r} holds a line break or tabulator"
            raise ConfigError("egress.request", url=redact_url(url), detail=detail)
        if is_secret_name(name):
            register_secret(value)
            # "Bearer <token>": the token alone, too.
            register_secret(value.rpartition(" ")[2])
    return dict(headers)
