"""A loopback proxy in front of an S3 server that lets things go wrong on the way, on request.

    with S3Proxy(server.endpoint) as proxy:
        proxy.fault("status", status=503, code="SlowDown", share=0.3)     # seeded: the same calls every time
        proxy.fault("lost", method="PUT", times=1)                         # stored, and the answer never comes

Signatures stay right: the server checks the Host header that the client signed, and that passes unchanged.
"""

import http.client
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from tests.fakes.requests import AnyMethodHandler, Request

UPSTREAM_TIMEOUT_S = 60
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})


class Call(Request):
    """One request, and what it asks of S3."""

    @property
    def operation(self) -> str:
        """Return what the request asks of S3, as far as tests need to tell requests apart."""
        names = set(self.query)
        if "uploadId" in names:
            return {"PUT": "UploadPart", "POST": "CompleteMultipartUpload"}.get(self.method, "AbortMultipartUpload")
        if "uploads" in names:
            return "CreateMultipartUpload" if self.method == "POST" else "ListMultipartUploads"
        if "list-type" in names:
            return "ListObjectsV2"
        return {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject"}.get(self.method, "DeleteObject")


@dataclass(frozen=True)
class Answer:
    """What the server answered; `cut_at` is where the body breaks off under its full Content-Length."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    cut_at: int | None = None


@dataclass
class Fault:
    """One thing that goes wrong: for calls of `operation` whose path matches, `times` of them, or a share by chance.

    Kinds: status (answered without asking the server: `status`, `code`), lost (the server did it, the connection
    closes), hang (the server did it, no answer comes), cut (half of the body), short (half of the body, and a
    Content-Length that says so), flip (one bit of the body is another).
    """

    kind: str
    operation: str | None = None
    path: str = ""
    times: int | None = None
    share: float = 1.0
    values: dict[str, Any] = field(default_factory=dict)
    hits: int = 0

    def takes(self, call: Call, chance: random.Random) -> bool:
        """Return whether this call is the fault's, counting it."""
        if self.operation not in (None, call.operation) or not re.search(self.path, call.path):
            return False
        if self.times == 0 or chance.random() >= self.share:
            return False
        if self.times is not None:
            self.times -= 1
        self.hits += 1
        return True


class S3Proxy:
    """The proxy; start and stop it by `with`. `calls` holds all requests in order of arrival."""

    def __init__(self, upstream: str, *, seed: int = 7) -> None:
        """Take a port."""
        self.upstream = urlsplit(upstream)
        self.calls: list[Call] = []
        self.stopping = threading.Event()
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._chance = random.Random(seed)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("_BoundHandler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def endpoint(self) -> str:
        """Return the address to use instead of the server's."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def fault(self, kind: str, **selection: Any) -> Fault:
        """Let something go wrong from now on; a fault asked for earlier comes first."""
        if kind not in _FAULTS:
            msg = f"no fault {kind!r}; there are: {', '.join(sorted(_FAULTS))}"
            raise ValueError(msg)
        known = {name: selection.pop(name) for name in ("operation", "path", "times", "share") if name in selection}
        made = Fault(kind, **known, values=selection)
        with self._lock:
            self._faults.append(made)
        return made

    def mend(self) -> None:
        """Let everything go right again, and forget the calls so far."""
        with self._lock:
            self._faults.clear()
            self.calls.clear()

    def count(self, operation: str | None = None) -> int:
        """Return how many requests came, of one kind or at all."""
        with self._lock:
            return sum(1 for call in self.calls if operation in (None, call.operation))

    def receive(self, call: Call) -> Fault | None:
        """Note the call and return the fault that is its share."""
        with self._lock:
            self.calls.append(call)
            return next((fault for fault in self._faults if fault.takes(call, self._chance)), None)

    def forward(self, call: Call, *, target: str) -> Answer:
        """Return the server's answer to the call."""
        connection = http.client.HTTPConnection(
            self.upstream.hostname or "", self.upstream.port, timeout=UPSTREAM_TIMEOUT_S
        )
        try:
            connection.putrequest(call.method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in call.headers.items():
                if name not in {"expect", "connection"}:
                    connection.putheader(name, value)
            connection.endheaders(call.body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()


class _Handler(AnyMethodHandler):
    proxy: S3Proxy

    def serve(self) -> None:
        call = self.read(Call)
        fault = self.proxy.receive(call)
        if fault is None:
            self.send_answer(self.proxy.forward(call, target=self.path))
        else:
            _FAULTS[fault.kind](self, call, fault.values)

    def send_answer(self, answer: Answer) -> None:
        """Send an answer; a HEAD's keeps the length of the body it does not send."""
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        said = next((value for name, value in answer.headers if name.lower() == "content-length"), None)
        length = said if self.command == "HEAD" and said is not None else str(len(answer.body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: answer.cut_at])
        if answer.cut_at is not None:
            self.close_connection = True


def _status(handler: _Handler, call: Call, values: dict[str, Any]) -> None:
    code = values.get("code", "InternalError")
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test asked</Message></Error>".encode()
    headers = [("Content-Type", "application/xml"), *values.get("headers", {}).items()]
    handler.send_answer(Answer(int(values.get("status", 500)), headers, body))


def _lost(handler: _Handler, call: Call, values: dict[str, Any]) -> None:
    handler.proxy.forward(call, target=handler.path)
    handler.close_connection = True


def _hang(handler: _Handler, call: Call, values: dict[str, Any]) -> None:
    handler.proxy.forward(call, target=handler.path)
    handler.proxy.stopping.wait(float(values.get("seconds", 600)))
    handler.close_connection = True


def _cut(handler: _Handler, call: Call, values: dict[str, Any]) -> None:
    found = handler.proxy.forward(call, target=handler.path)
    handler.send_answer(Answer(found.status, found.headers, found.body, cut_at=len(found.body) // 2))


def _short(handler: _Handler, call: Call, values: dict[str, Any]) -> None:
    found = handler.proxy.forward(call, target=handler.path)
    handler.send_answer(Answer(found.status, found.headers, found.body[: len(found.body) // 2]))


def _flip(handler: _Handler, call: Call, values: dict[str, Any]) -> None:
    found = handler.proxy.forward(call, target=handler.path)
    body = bytearray(found.body)
    if body:
        body[len(body) // 2] ^= 1
    handler.send_answer(Answer(found.status, found.headers, bytes(body)))


_FAULTS: dict[str, Callable[[_Handler, Call, dict[str, Any]], None]] = {
    "status": _status,
    "lost": _lost,
    "hang": _hang,
    "cut": _cut,
    "short": _short,
    "flip": _flip,
}
