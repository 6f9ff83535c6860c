"""A small HTTP server on loopback for tests: routes of your own, faults on request, every request counted.

    with FakeSite({"/records": {"data": [1, 2]}}) as site:
        site.fault("status", path="/records", times=2, status=503)
        client.get(f"{site.url}/records")
        assert site.count("/records") == 3

Another process asks for a fault by `POST <url>/__fault` with the same names as JSON, withdraws all of them by
`DELETE <url>/__fault`, and reads what was counted at `GET <url>/__requests`.
"""

import contextlib
import gzip
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

from tests.fakes.requests import AnyMethodHandler, Request


@dataclass(frozen=True)
class Reply:
    """What a route answers: JSON unless `body` is bytes already."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> tuple[bytes, dict[str, str]]:
        """Return the body's bytes, and the headers with a content type."""
        if isinstance(self.body, bytes):
            return self.body, {"Content-Type": "application/octet-stream", **self.headers}
        return json.dumps(self.body).encode(), {"Content-Type": "application/json", **self.headers}


Route: TypeAlias = Callable[[Request], Any] | Any
"""A Reply, a JSON value, or a function of the request that returns either. A path ending in "*" is a prefix."""


@dataclass
class Fault:
    """One thing that goes wrong, on a path (None: everywhere), for `times` requests after the first `skip`.

    Kinds: status (with `status`, `retry_after` as seconds, "date:<seconds>" or any text, `body`), slow (`gap_s` between
    bytes of the body), slow_headers, hang (until the site stops, or `seconds`), cut (half of the body under the full
    Content-Length), cut_close (half of the body, ended by closing, no length), cut_chunk (chunked, no last chunk),
    short_length, long_length (Content-Length off by `bytes`), reset (closed before any answer), redirect
    (`location`, `status`), html, broken_json, empty, gzip_bomb (`bytes` unpacked), big_headers (`bytes`), delay
    (`seconds`, then as usual), lost (the route runs, then the connection closes without an answer).
    """

    kind: str
    path: str | None = None
    times: int | None = 1
    skip: int = 0
    values: dict[str, Any] = field(default_factory=dict)

    def takes(self, path: str) -> bool:
        """Return whether this request is the fault's, counting it."""
        if self.path not in (None, path) or self.times == 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class FakeSite:
    """The server; start and stop it by `with`. `requests` holds all requests in order of arrival."""

    def __init__(
        self,
        routes: Mapping[str, Route] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> None:
        """Take a port; with a certificate and its key the site speaks TLS."""
        self.routes: dict[str, Route] = dict(routes or {})
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((host, port), type("_BoundHandler", (_Handler,), {"site": self}))
        self._server.daemon_threads = True
        self._scheme = "http" if certificate is None else "https"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        """Return the port it listens on."""
        return int(self._server.server_address[1])

    @property
    def netloc(self) -> str:
        """Return "host:port", as an egress allow list wants it."""
        return f"{self._server.server_address[0]!s}:{self.port}"

    @property
    def url(self) -> str:
        """Return the base URL, without a slash at the end."""
        return f"{self._scheme}://{self.netloc}"

    def start(self) -> "FakeSite":
        """Begin to serve."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and let go of the clients that hang."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def __enter__(self) -> "FakeSite":
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def route(self, path: str, answer: Route) -> None:
        """Answer this path from now on."""
        self.routes[path] = answer

    def fault(self, kind: str, *, path: str | None = None, times: int | None = 1, skip: int = 0, **values: Any) -> None:
        """Let something go wrong; faults asked for earlier come first. `times=None` means for ever."""
        if kind not in _FAULTS:
            msg = f"no fault {kind!r}; there are: {', '.join(sorted(_FAULTS))}"
            raise ValueError(msg)
        with self._lock:
            self._faults.append(Fault(kind, path=path, times=times, skip=skip, values=values))

    def clear_faults(self) -> None:
        """Let everything go right again."""
        with self._lock:
            self._faults.clear()

    def count(self, path: str | None = None) -> int:
        """Return how many requests came, to one path or at all; control requests are not counted."""
        with self._lock:
            return sum(1 for request in self.requests if path in (None, request.path))

    def receive(self, request: Request) -> Fault | None:
        """Note the request and return the fault that is its share."""
        with self._lock:
            self.requests.append(request)
            return next((fault for fault in self._faults if fault.takes(request.path)), None)

    def answer(self, request: Request) -> Reply:
        """Return what the routes answer."""
        route = self.routes.get(request.path, _NO_ROUTE)
        if route is _NO_ROUTE:
            prefixes = [path for path in self.routes if path.endswith("*") and request.path.startswith(path[:-1])]
            route = self.routes[max(prefixes, key=len)] if prefixes else _NO_ROUTE
        if route is _NO_ROUTE:
            return Reply({"detail": f"no route {request.path}"}, status=404)
        found = route(request) if callable(route) else route
        return found if isinstance(found, Reply) else Reply(found)


_NO_ROUTE = object()


class _Handler(AnyMethodHandler):
    site: FakeSite

    def serve(self) -> None:
        request = self.read(Request)
        if request.path in ("/__fault", "/__requests"):
            self.send_whole(self._control(request))
            return
        fault = self.site.receive(request)
        if fault is None:
            self.send_whole(self.site.answer(request))
        else:
            _FAULTS[fault.kind](self, request, fault.values)

    def _control(self, request: Request) -> Reply:
        if request.path == "/__requests":
            return Reply([{"method": r.method, "path": r.path, "query": r.query} for r in list(self.site.requests)])
        if request.method == "DELETE":
            self.site.clear_faults()
        else:
            asked = request.json()
            self.site.fault(asked.pop("kind"), **asked)
        return Reply({"ok": True})

    def send_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Send status line and headers exactly as given."""
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Status"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode())

    def send_whole(self, reply: Reply) -> None:
        """Send a reply as it should be."""
        body, headers = reply.encoded()
        self.send_head(reply.status, {"Date": formatdate(usegmt=True), **headers, "Content-Length": str(len(body))})
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def part_with(self) -> None:
        """Close the connection after this answer."""
        self.close_connection = True

    def rest(self, seconds: float) -> None:
        """Wait, but not longer than the site serves."""
        self.site.stopping.wait(seconds)


def _status(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    headers = dict(values.get("headers", {}))
    if "retry_after" in values:
        text = str(values["retry_after"])
        is_date = text.startswith("date:")
        headers["Retry-After"] = formatdate(time.time() + float(text[5:]), usegmt=True) if is_date else text
    body = values.get("body", {"detail": "as the test asked"})
    handler.send_whole(Reply(body, status=int(values.get("status", 500)), headers=headers))


def _drip(handler: _Handler, data: bytes, *, gap_s: float) -> None:
    for byte in data:
        if handler.site.stopping.is_set():
            break
        handler.wfile.write(bytes([byte]))
        handler.rest(gap_s)
    handler.part_with()


def _slow(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    body, headers = handler.site.answer(request).encoded()
    handler.send_head(200, {**headers, "Content-Length": str(len(body))})
    _drip(handler, body, gap_s=float(values.get("gap_s", 0.5)))


def _slow_headers(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    _drip(handler, b"HTTP/1.1 200 OK\r\nX-Padding: " + b"a" * 10_000, gap_s=float(values.get("gap_s", 0.5)))


def _hang(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    handler.rest(float(values.get("seconds", 600)))
    handler.part_with()


def _cut(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    body, headers = handler.site.answer(request).encoded()
    handler.send_head(200, {**headers, "Content-Length": str(len(body))})
    handler.wfile.write(body[: len(body) // 2])
    handler.part_with()


def _cut_close(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    body, headers = handler.site.answer(request).encoded()
    handler.send_head(200, {**headers, "Connection": "close"})
    handler.wfile.write(body[: len(body) // 2])
    handler.part_with()


def _cut_chunk(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    body, headers = handler.site.answer(request).encoded()
    handler.send_head(200, {**headers, "Transfer-Encoding": "chunked"})
    handler.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
    handler.part_with()


def _wrong_length(sign: int) -> Callable[[_Handler, Request, dict[str, Any]], None]:
    def send(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
        body, headers = handler.site.answer(request).encoded()
        declared = max(0, len(body) + sign * int(values.get("bytes", 5)))
        handler.send_head(200, {**headers, "Content-Length": str(declared)})
        handler.wfile.write(body)
        handler.part_with()

    return send


def _reset(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    handler.part_with()


def _lost(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    handler.site.answer(request)
    handler.part_with()


def _redirect(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    location = {"Location": str(values.get("location", handler.path))}
    handler.send_whole(Reply(b"", status=int(values.get("status", 302)), headers=location))


def _html(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    page = b"<!doctype html><html><head><title>Please sign in</title></head><body>Sign in</body></html>"
    handler.send_whole(Reply(page, headers={"Content-Type": "text/html; charset=utf-8"}))


def _broken_json(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    handler.send_whole(Reply(b'{"data": [1, 2,, 3]}', headers={"Content-Type": "application/json"}))


def _empty(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    handler.send_whole(Reply(b"", headers={"Content-Type": "application/json"}))


def _gzip_bomb(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    packed = gzip.compress(b"0" * int(values.get("bytes", 64 << 20)))
    handler.send_whole(Reply(packed, headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}))


def _big_headers(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    handler.send_whole(Reply({}, headers={"Set-Cookie": "a=" + "b" * int(values.get("bytes", 1 << 20))}))
    handler.part_with()


def _delay(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    handler.rest(float(values.get("seconds", 1)))
    handler.send_whole(handler.site.answer(request))


_FAULTS: dict[str, Callable[[_Handler, Request, dict[str, Any]], None]] = {
    "status": _status,
    "slow": _slow,
    "slow_headers": _slow_headers,
    "hang": _hang,
    "cut": _cut,
    "cut_close": _cut_close,
    "cut_chunk": _cut_chunk,
    "short_length": _wrong_length(-1),
    "long_length": _wrong_length(1),
    "reset": _reset,
    "lost": _lost,
    "redirect": _redirect,
    "html": _html,
    "broken_json": _broken_json,
    "empty": _empty,
    "gzip_bomb": _gzip_bomb,
    "big_headers": _big_headers,
    "delay": _delay,
}


@contextlib.contextmanager
def fake_sites(*routes: Mapping[str, Route]) -> Iterator[list[FakeSite]]:
    """Yield one running site for each table of routes, for tests that need several origins."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FakeSite(table)) for table in routes]
