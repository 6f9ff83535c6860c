"""The check of a connection layer by layer, behind "test connection"."""

import contextlib
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import httpcore
import httpx

from ingestion.ports.check import CheckReport, Finding
from ingestion.ports.context import HttpResponse
from ingestion.ports.errors import AuthError, IngestError, SourceUnavailable
from ingestion.toolkit.http.connections import Connections, open_connection
from ingestion.toolkit.http.egress import (
    Dial,
    EgressPolicy,
    Resolve,
    check_url,
    checked_addresses,
    default_ssl_context,
    port_of,
    resolve_host,
)
from ingestion.toolkit.http.errors import from_exception
from ingestion.toolkit.http.retry import TransientError

T = TypeVar("T")
PROBE_TIMEOUT_S = 10.0
"""For each layer, where the client does not give up sooner."""


class _StepFailedError(Exception):
    """The step has failed, and its finding says why."""


class Steps:
    """The steps of a check; under `with`, the first one that fails is the last."""

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        self._findings = list(findings)

    @property
    def report(self) -> CheckReport:
        """Return what was found."""
        return CheckReport(tuple(self._findings))

    def take(self, layer: str, step: Callable[[], T], *, detail: Callable[[T], str]) -> T:
        """Return what the step returns; an IngestError is a finding, and ends the steps."""
        started_at = time.monotonic()
        try:
            result = step()
        except IngestError as error:
            failed = "auth" if isinstance(error, AuthError) else layer
            self._add(failed, started_at, ok=False, detail=str(error), code=error.code)
            raise _StepFailedError from error
        self._add(layer, started_at, ok=True, detail=detail(result))
        return result

    def _add(self, layer: str, started_at: float, *, ok: bool, detail: str, code: str = "") -> None:
        elapsed_ms = (time.monotonic() - started_at) * 1000
        self._findings.append(Finding(layer, ok=ok, elapsed_ms=elapsed_ms, detail=detail, code=code))

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is _StepFailedError


def probe(
    url: str,
    policy: EgressPolicy,
    *,
    ask: Callable[[str], HttpResponse],
    timeout_s: float = PROBE_TIMEOUT_S,
    ssl_context: ssl.SSLContext | None = None,
    resolve: Resolve = resolve_host,
    dial: Dial = open_connection,
) -> CheckReport:
    """Return how far a connection to the URL gets: dns, tcp, tls, http, each with its milliseconds.

    Stops at the first layer that fails; credentials that are refused show as layer auth. `ask` makes the request of
    the last layer, with the source's headers and through its limiter.
    """
    try:
        parsed = check_url(url, policy)
    except IngestError as error:
        return CheckReport((Finding("address", ok=False, elapsed_ms=0.0, detail=str(error), code=error.code),))
    host, port = parsed.host, port_of(parsed)
    connections = Connections()

    def connect(address: str) -> httpcore.NetworkStream:
        return _mapped(lambda: dial(address, port, timeout_s=timeout_s, connections=connections), url=url, host=host)

    def resolved() -> Sequence[str]:
        return checked_addresses(host, port, policy=policy, resolve=resolve)

    with Steps() as steps:
        address = steps.take("dns", resolved, detail=", ".join)[0]
        stream = steps.take("tcp", lambda: connect(address), detail=lambda _: f"{address} port {port}")
        with contextlib.closing(stream):
            if parsed.scheme == "https":
                context = ssl_context or default_ssl_context()
                steps.take("tls", lambda: _shake_hands(stream, parsed, context, timeout_s=timeout_s), detail=str)
        steps.take("http", lambda: ask(url), detail=_status)
    return steps.report


def probe_http(url: str, *, ask: Callable[[str], HttpResponse]) -> CheckReport:
    """Return whether the URL answers a request, where the layers below it cannot be seen."""
    with Steps() as steps:
        steps.take("http", lambda: ask(url), detail=_status)
    return steps.report


def _status(response: HttpResponse) -> str:
    return f"status {response.status}"


def _shake_hands(
    stream: httpcore.NetworkStream, parsed: httpx.URL, context: ssl.SSLContext, *, timeout_s: float
) -> str:
    """Return the version of TLS that both sides agree on."""

    def start() -> httpcore.NetworkStream:
        return stream.start_tls(context, server_hostname=parsed.host, timeout=timeout_s)

    with contextlib.closing(_mapped(start, url=str(parsed), host=parsed.host)) as secured:
        sock = secured.get_extra_info("ssl_object")
        return (sock.version() if isinstance(sock, ssl.SSLSocket) else None) or "TLS"


def _mapped(step: Callable[[], T], *, url: str, host: str) -> T:
    try:
        return step()
    except httpcore.ConnectTimeout as error:
        raise SourceUnavailable("source.unavailable", host=host, detail="no connection came about in time") from error
    except httpcore.ConnectError as error:
        mapped = from_exception(error, url=url, host=host)
        raise (mapped.error if isinstance(mapped, TransientError) else mapped) from error
