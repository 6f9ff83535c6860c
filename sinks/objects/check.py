"""Check of a place for files: the layer that fails, and what to do about it."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from ingestion.ports.check import Finding
from ingestion.ports.errors import IngestError, SinkUnavailable
from ingestion.toolkit.lake.opening import ObjectStore
from ingestion.toolkit.lake.s3_options import parse_s3_url

CONNECT_TIMEOUT_S = 5.0
PROBE_KEY = "headgate-check.txt"
_AUTH_FIX = "Correct access_key and secret_key, and let them list, read, write and delete in this bucket."
_HTTPS_PORT = 443
_HTTP_PORT = 80


def findings_of(store: ObjectStore, url: str) -> Iterator[Finding]:
    """Yield what each layer says, and stop at the first that fails."""
    for layer, step, fix in _steps(store, url):
        started_at = time.perf_counter()
        try:
            detail, code = step(), ""
        except IngestError as error:
            detail, code = str(error), error.code
        finding = Finding(
            layer=layer if code != "store.auth" else "auth",
            ok=not code,
            elapsed_ms=(time.perf_counter() - started_at) * 1000,
            detail=detail,
            fix=fix if code and code != "store.auth" else _AUTH_FIX if code else "",
            code=code,
        )
        yield finding
        if not finding.ok:
            return


def _steps(store: ObjectStore, url: str) -> Iterator[tuple[str, Callable[[], str], str]]:
    host, port = _address(url)
    if host:
        yield (
            "dns",
            lambda: ", ".join(sorted({str(found[4][0]) for found in _resolve(host, port=port)})),
            f"Correct the endpoint's name {host!r}, or this machine's name service.",
        )
        yield (
            "tcp",
            lambda: _connect(host, port=port),
            f"Start the store, correct the endpoint, or open port {port} of {host} for this machine.",
        )
    if urlsplit(url).scheme == "s3":
        yield (
            "bucket",
            lambda: _list_some(store),
            "Create the bucket, or correct its name, the region or the endpoint in the address.",
        )
    yield (
        "write",
        lambda: _write_probe(store),
        "Let the service's account write and delete there, and see that space is left.",
    )


def _address(url: str) -> tuple[str | None, int]:
    if urlsplit(url).scheme != "s3":
        return None, 0
    options = parse_s3_url(url)
    parts = urlsplit(options.endpoint or f"https://s3.{options.region or 'us-east-1'}.amazonaws.com")
    return parts.hostname, parts.port or (_HTTPS_PORT if parts.scheme == "https" else _HTTP_PORT)


def _resolve(host: str, *, port: int) -> list[Any]:
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except OSError as error:
        raise SinkUnavailable("egress.unresolved", host=host) from error


def _connect(host: str, *, port: int) -> str:
    try:
        with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S):
            return f"port {port} answers"
    except OSError as error:
        detail = f"{error.strerror or type(error).__name__} at {host} port {port}"
        raise SinkUnavailable("store.unavailable", detail=detail) from error


def _list_some(store: ObjectStore) -> str:
    next(store.list(""), None)
    return "can be listed"


def _write_probe(store: ObjectStore) -> str:
    content = b"Written by Headgate to see whether it may write here. It may be deleted.\n"
    store.put(PROBE_KEY, content)
    # Some stores send the checksum of the whole with a range, which is how large files are read.
    if store.read(PROBE_KEY) != content or store.read(PROBE_KEY, offset=8, length=12) != content[8:20]:
        raise SinkUnavailable("store.unavailable", detail="it gives back other bytes than it was given")
    store.delete(PROBE_KEY)
    return "a file was written, read back and deleted"
