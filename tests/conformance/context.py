"""A Context without a network or a disk: an in-memory lake, a scripted HTTP client, and a record of every effect."""

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit

from ingestion.ports.batch import StoredInput
from ingestion.ports.check import CheckReport
from ingestion.ports.context import Context, HttpResponse, ObjectInfo
from ingestion.ports.errors import (
    AuthError,
    Cancelled,
    RateLimited,
    Signal,
    SourceRejected,
    SourceUnavailable,
    StoreCorrupt,
)
from ingestion.quality.casts import cast_values
from ingestion.toolkit.http.probe import probe_http

FIXED_NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class MemoryLake:
    """A lake in a dict, with the port's rules."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_if_absent(self, key: str, source: bytes | Path, *, sha256: str | None = None) -> ObjectInfo:
        data = _content(source, sha256=sha256)
        if self.objects.setdefault(key, data) != data:
            raise StoreCorrupt("store.conflict", key=key)
        return self._info(key)

    def put(self, key: str, source: bytes | Path, *, sha256: str | None = None) -> ObjectInfo:
        self.objects[key] = _content(source, sha256=sha256)
        return self._info(key)

    def writer(self, key: str) -> "MemoryWriter":
        return MemoryWriter(self, key)

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self._data(key))

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        return self._data(key)[offset : None if length is None else offset + length]

    def head(self, key: str) -> ObjectInfo | None:
        return self._info(key) if key in self.objects else None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter([self._info(key) for key in sorted(self.objects) if key.startswith(prefix)])

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def presign(self, key: str, *, expires_s: int) -> str:
        return f"memory://{key}?expires_s={expires_s}"

    def local_path(self, key: str) -> None:
        return None

    def place(self, key: str) -> None:
        return None

    def _data(self, key: str) -> bytes:
        if key not in self.objects:
            raise StoreCorrupt("store.missing", key=key)
        return self.objects[key]

    def _info(self, key: str) -> ObjectInfo:
        data = self._data(key)
        return ObjectInfo(key, len(data), hashlib.sha256(data).hexdigest(), FIXED_NOW)


class MemoryWriter:
    """One object of a MemoryLake being written."""

    def __init__(self, lake: MemoryLake, key: str) -> None:
        self._lake, self._key, self._parts = lake, key, list[bytes]()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        self._parts.append(bytes(data))
        self.size_bytes += len(data)

    def commit(self) -> ObjectInfo:
        return self._lake.put_if_absent(self._key, b"".join(self._parts))

    def abort(self) -> None:
        self._parts.clear()


def _content(source: bytes | Path, *, sha256: str | None) -> bytes:
    data = source.read_bytes() if isinstance(source, Path) else bytes(source)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise StoreCorrupt("store.corrupt", key="memory", detail="SHA-256 differs")
    return data


@dataclass(frozen=True, slots=True)
class SentRequest:
    """One request as the connector made it; `url` holds the query string."""

    method: str
    url: str
    headers: Mapping[str, str]
    json: Any = None


def answer(body: bytes | str | Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Return a scripted answer; anything but bytes and text is sent as JSON."""
    if isinstance(body, str):
        body = body.encode()
    if isinstance(body, bytes):
        return HttpResponse(status, "", dict(headers or {}), body, 1.0)
    return HttpResponse(
        status, "", {"content-type": "application/json", **(headers or {})}, json.dumps(body).encode(), 1.0
    )


class ScriptedHttp:
    """HttpClient that asks `respond` instead of a network; statuses from 400 raise as the real client does.

    `respond` gets a SentRequest and returns `answer(...)`; its url is filled in here.
    """

    def __init__(
        self, respond: Callable[[SentRequest], HttpResponse] | None = None, *, limiter: "OpenLimiter | None" = None
    ) -> None:
        self._respond = respond
        self._limiter = limiter or OpenLimiter()
        self.requests: list[SentRequest] = []

    def get(
        self,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        accept_status: Sequence[int] = (),
    ) -> HttpResponse:
        if params:
            url = f"{url}{'&' if '?' in url else '?'}{urlencode(params)}"
        return self._send(SentRequest("GET", url, dict(headers or {})), accept_status=accept_status)

    def post(
        self,
        url: str,
        *,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        accept_status: Sequence[int] = (),
        is_repeatable: bool = False,
    ) -> HttpResponse:
        return self._send(SentRequest("POST", url, dict(headers or {}), json), accept_status=accept_status)

    def probe(self, url: str, *, headers: Mapping[str, str] | None = None) -> CheckReport:
        return probe_http(url, ask=lambda target: self.get(target, headers=headers))

    def slow_down(self, seconds: float) -> None:
        self._limiter.slow_down("source:test", seconds=min(seconds, 3600.0))

    def variant(self, *, ca_file: str | None = None, deadline_s: float | None = None) -> "ScriptedHttp":
        return self

    def _send(self, request: SentRequest, *, accept_status: Sequence[int]) -> HttpResponse:
        if self._respond is None:
            msg = f"no request was expected, but {request.method} {request.url} was made"
            raise AssertionError(msg)
        self.requests.append(request)
        scripted = self._respond(request)
        found = HttpResponse(scripted.status, request.url, scripted.headers, scripted.body, scripted.elapsed_ms)
        if found.status >= 400 and found.status not in accept_status:  # noqa: PLR2004
            _refuse(found)
        return found


def _refuse(found: HttpResponse) -> None:
    parts = urlsplit(found.url)
    host, bare = parts.netloc, parts._replace(query="").geturl()
    if found.status in (401, 403):
        raise AuthError("source.auth", host=host, status=found.status)
    if found.status == 404:  # noqa: PLR2004
        raise SourceRejected("source.not_found", url=bare)
    if found.status == 429:  # noqa: PLR2004
        raise RateLimited("source.rate_limited", host=host, retry_after_s=float(found.headers.get("retry-after", 1)))
    if found.status >= 500:  # noqa: PLR2004
        raise SourceUnavailable("source.server_error", host=host, status=found.status, url=bare)
    raise SourceRejected(
        "source.rejected", host=host, status=found.status, detail=found.body[:200].decode("utf-8", "replace")
    )


class OpenLimiter:
    """Limiter that grants everything and remembers what was asked."""

    def __init__(self) -> None:
        self.acquired: list[tuple[str, int]] = []
        self.slowed: list[tuple[str, float]] = []

    def acquire(self, key: str, *, tokens: int = 1) -> float:
        self.acquired.append((key, tokens))
        return 0.0

    def slow_down(self, key: str, *, seconds: float) -> None:
        self.slowed.append((key, seconds))


@dataclass
class RecordingContext:
    """Builds a Context and keeps what was done with it: requests, events, beats. `stop()` cancels."""

    respond: Callable[[SentRequest], HttpResponse] | None = None
    lake: MemoryLake = field(default_factory=MemoryLake)
    limiter: OpenLimiter = field(default_factory=OpenLimiter)
    now: datetime = FIXED_NOW
    scratch: Path | None = None
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    beat_count: int = 0

    def __post_init__(self) -> None:
        self.http = ScriptedHttp(self.respond, limiter=self.limiter)
        self._stopped = threading.Event()
        self._callbacks: list[Callable[[Signal], None]] = []
        self.context = Context(
            http=self.http,
            limiter=self.limiter,
            lake=self.lake,
            clock=lambda: self.now,
            beat=self._beat,
            on_stop=self._on_stop,
            log=self._log,
            cast=cast_values,
            scratch=self.scratch,
        )

    def stop(self) -> None:
        """Cancel: every `beat` raises Cancelled from now on, and what is under way is broken off."""
        self._stopped.set()
        for callback in self._callbacks:
            callback(Cancelled())

    def store(self, name: str, data: bytes) -> StoredInput:
        """Put a file into the lake as an upload would, and return how a query names it."""
        sha256 = hashlib.sha256(data).hexdigest()
        key = f"uploads/{sha256[:16]}/{name}"
        self.lake.put_if_absent(key, data)
        return StoredInput(key=key, name=name, size_bytes=len(data), sha256=sha256)

    def event_kinds(self) -> list[str]:
        """Return the kinds of the events logged so far, in order."""
        return [kind for kind, _ in self.events]

    def _beat(self) -> None:
        if self._stopped.is_set():
            raise Cancelled
        self.beat_count += 1

    @contextmanager
    def _on_stop(self, callback: Callable[[Signal], None]) -> Iterator[None]:
        self._callbacks.append(callback)
        try:
            if self._stopped.is_set():
                callback(Cancelled())
            yield
        finally:
            self._callbacks.remove(callback)

    def _log(self, kind: str, /, **values: Any) -> None:
        json.dumps(values)  # an event holds JSON values only; anything else fails here
        self.events.append((kind, values))
