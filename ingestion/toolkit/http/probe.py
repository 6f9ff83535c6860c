"""Which layer of a connection fails: the question behind "test connection"."""

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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


@dataclass
class _Steps:
    """The findings so far; `ok` while every step held."""

    findings: list[Finding] = field(default_factory=list)

    def take(self, layer: str, step: Callable[[], T], *, detail: Callable[[T], str]) -> T | None:
        """Return what the step returns, or None with a finding that says why it failed."""
        started_at = time.monotonic()
        try:
            result = step()
        except IngestError as error:
            failed = "auth" if isinstance(error, AuthError) else layer
            self.findings.append(
                Finding(layer=failed, ok=False, elapsed_ms=_since(started_at), detail=str(error), code=error.code)
            )
            return None
        self.findings.append(Finding(layer=layer, ok=True, elapsed_ms=_since(started_at), detail=detail(result)))
        return result


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
    steps = _Steps()
    parsed = steps.take("address", lambda: check_url(url, policy), detail=lambda found: found.host)
    if parsed is None:
        return CheckReport(tuple(steps.findings))
    steps.findings.clear()
    host, port = parsed.host, port_of(parsed)
    addresses = steps.take(
        "dns", lambda: checked_addresses(host, port, policy=policy, resolve=resolve), detail=", ".join
    )
    if addresses is None:
        return CheckReport(tuple(steps.findings))
    connections = Connections()

    def connect() -> httpcore.NetworkStream:
        return _mapped(
            lambda: dial(addresses[0], port, timeout_s=timeout_s, connections=connections), url=url, host=host
        )

    stream = steps.take("tcp", connect, detail=lambda _: f"{addresses[0]} port {port}")
    if stream is None:
        return CheckReport(tuple(steps.findings))
    try:
        if parsed.scheme == "https" and not _shakes_hands(
            steps, stream, parsed=parsed, context=ssl_context or default_ssl_context(), timeout_s=timeout_s
        ):
            return CheckReport(tuple(steps.findings))
    finally:
        stream.close()
    return CheckReport((*steps.findings, *probe_http(url, ask=ask).findings))


def probe_http(url: str, *, ask: Callable[[str], HttpResponse]) -> CheckReport:
    """Return whether the URL answers a request, where the layers below it cannot be looked at."""
    steps = _Steps()
    steps.take("http", lambda: ask(url), detail=lambda response: f"status {response.status}")
    return CheckReport(tuple(steps.findings))


def _shakes_hands(
    steps: _Steps, stream: httpcore.NetworkStream, *, parsed: httpx.URL, context: ssl.SSLContext, timeout_s: float
) -> bool:
    def start_tls() -> str:
        secured = _mapped(
            lambda: stream.start_tls(context, server_hostname=parsed.host, timeout=timeout_s),
            url=str(parsed),
            host=parsed.host,
        )
        sock = secured.get_extra_info("ssl_object")
        version = sock.version() if isinstance(sock, ssl.SSLSocket) else None
        secured.close()
        return version or "TLS"

    return steps.take("tls", start_tls, detail=str) is not None


def _mapped(step: Callable[[], T], *, url: str, host: str) -> T:
    try:
        return step()
    except httpcore.ConnectTimeout as error:
        raise SourceUnavailable("source.unavailable", host=host, detail="no connection came about in time") from error
    except httpcore.ConnectError as error:
        mapped = from_exception(error, url=url, host=host)
        raise (mapped.error if isinstance(mapped, TransientError) else mapped) from error


def _since(started_at: float) -> float:
    return (time.monotonic() - started_at) * 1000
