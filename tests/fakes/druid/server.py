"""The HTTP side of the fake: sockets, routes, users, leadership, and the faults of requests."""

import base64
import contextlib
import fnmatch
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests.fakes.druid.http import JSON, HangError, Reply, Routes, json_reply, nothing, page, text_reply
from tests.fakes.requests import AnyMethodHandler, Request


@dataclass
class Fault:
    """One thing that goes wrong with requests whose "METHOD path" matches a pattern, for a number of times."""

    pattern: str
    how: str
    times: int | None
    skip: int = 0
    values: dict[str, Any] = field(default_factory=dict)

    def takes(self, request: Request) -> bool:
        """Return whether this request is the fault's, counting it."""
        if self.times == 0 or not fnmatch.fnmatchcase(f"{request.method} {request.path}", self.pattern):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class FrontDoor:
    """Front of the services: keeps the requests, asks who is there, redirects to the leader."""

    def __init__(self, users: Mapping[str, str], powerless: frozenset[str]) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.leader_is_lost = False
        self.leader_url: str | None = None
        self.clock_offset_s = 0.0
        self._users = users
        self._powerless = powerless
        self._lock = threading.Lock()

    def receive(self, request: Request) -> Fault | None:
        """Keep the request and return the fault that is its share."""
        with self._lock:
            self.requests.append(request)
            return next((fault for fault in self.faults if fault.takes(request)), None)

    def refuse(self, request: Request) -> Reply | None:
        """Return the answer to one who may not ask, None for one who may."""
        if not self._users or request.path == "/status/health":
            return None
        scheme, _, coded = request.headers.get("authorization", "").partition(" ")
        if scheme != "Basic":
            body = {"error": "Unauthorized request", "errorMessage": None, "errorClass": None, "host": None}
            reply = json_reply(body, status=401)
            return Reply(reply.body, 401, JSON, {"WWW-Authenticate": "Basic"})
        name, _, password = base64.b64decode(coded).decode().partition(":")
        if self._users.get(name) != password:
            return page(401, f"User authentication failed username[{name}].", path=request.path)
        return json_reply({"Access-Check-Result": "Unauthorized"}, status=403) if name in self._powerless else None

    def redirect(self, request: Request) -> Reply | None:
        """Return where the leader is, an empty 503 where there is none; None while this one leads."""
        if not self.leader_is_lost or not request.path.startswith(("/druid/indexer/", "/druid/coordinator/")):
            return None
        if request.path.endswith("/isLeader"):
            return json_reply({"leader": False}, status=404)
        if self.leader_url is None:
            return nothing(503)
        return Reply(b"", 307, None, {"Location": f"{self.leader_url}{request.path}"})


class Door:
    """One port. Answers by its routes; stops and starts again on the same port."""

    def __init__(self, front: FrontDoor, routes: Routes, *, port: int = 0) -> None:
        self.front = front
        self.routes = [(method, re.compile(f"{pattern}/?$"), handler) for (method, pattern), handler in routes.items()]
        self.stopping = threading.Event()
        self.connections: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.port = port
        self._open()

    @property
    def url(self) -> str:
        """Return the base address."""
        return f"http://127.0.0.1:{self.port}"

    def _open(self) -> None:
        handler = type("_BoundHandler", (_Handler,), {"door": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        """Serve, on the same port as before."""
        if self._server is None:
            self._open()
        assert self._server is not None
        self.stopping.clear()
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Close the port and every open connection."""
        if self._server is None:
            return
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def answer(self, request: Request) -> Reply:
        """Return what the services answer."""
        for stop in (self.front.refuse, self.front.redirect):
            if (reply := stop(request)) is not None:
                return reply
        path = unquote(request.path)
        for method, pattern, handler in self.routes:
            if method == request.method and (match := pattern.match(path)):
                return handler(request, match)
        return nothing(404) if path.startswith("/druid/indexer/v1/datasources/") else page(404, path=request.path)


class _Handler(AnyMethodHandler):
    door: Door

    def setup(self) -> None:
        super().setup()
        self.door.connections.add(self.connection)

    def finish(self) -> None:
        self.door.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def serve(self) -> None:
        request = self.read(Request)
        fault = self.door.front.receive(request)
        if fault is None:
            self.send(self.answer(request))
        else:
            FAULTS[fault.how](self, request, fault.values)

    def answer(self, request: Request) -> Reply:
        """Return the services' answer; a question without one waits until the port closes."""
        if request.method == "POST" and request.body and "json" not in request.headers.get("content-type", ""):
            return nothing(415)
        try:
            return self.door.answer(request)
        except HangError:
            self.rest(None)
            raise ConnectionResetError from None

    def send(self, reply: Reply) -> None:
        """Send a whole answer."""
        phrase = HTTPStatus(reply.status).phrase
        now = time.time() + self.door.front.clock_offset_s
        headers = {"Date": formatdate(now, usegmt=True), **reply.headers}
        if reply.content_type is not None:
            headers["Content-Type"] = reply.content_type
        if reply.status != HTTPStatus.NO_CONTENT:
            headers["Content-Length"] = str(len(reply.body))
        lines = [f"HTTP/1.1 {reply.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + reply.body)

    def reset(self) -> None:
        """End the connection as a crash would, with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def rest(self, seconds: float | None) -> None:
        """Wait, but not longer than the port is open."""
        self.door.stopping.wait(seconds)


def _reply(make: Callable[[Request, dict[str, Any]], Reply]) -> Callable[[_Handler, Request, dict[str, Any]], None]:
    return lambda handler, request, values: handler.send(make(request, values))


def _lost(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    handler.answer(request)
    handler.reset()


def _reset(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    handler.reset()


def _slow(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    handler.rest(values.get("seconds", 1.0))
    handler.send(handler.answer(request))


def _hang(handler: _Handler, request: Request, values: dict[str, Any]) -> None:
    handler.rest(values.get("seconds"))
    handler.reset()


def _unknown_task(request: Request, values: dict[str, Any]) -> Reply:
    parts = request.path.split("/")
    task = parts[5] if len(parts) > 5 else ""
    return text_reply(f"Cannot find any task with id: [{task}]", status=404)


FAULTS: dict[str, Callable[[_Handler, Request, dict[str, Any]], None]] = {
    "unavailable": _reply(lambda request, values: nothing(503)),
    "html": _reply(lambda request, values: page(values.get("status", 500), values.get("message"), path=request.path)),
    "text": _reply(lambda request, values: text_reply(values.get("text", "no"), status=values.get("status", 500))),
    "json": _reply(lambda request, values: json_reply(values.get("body", {}), status=values.get("status", 200))),
    "empty": _reply(lambda request, values: Reply(b"", values.get("status", 200))),
    "broken_json": _reply(lambda request, values: Reply(b'{"task": "hg.demo', values.get("status", 200))),
    "not_found": _reply(_unknown_task),
    "redirect": _reply(lambda request, values: Reply(b"", 307, None, {"Location": values["location"]})),
    "reset": _reset,
    "lost": _lost,
    "slow": _slow,
    "hang": _hang,
}
"""Faults that can be asked of `FakeDruid.fail_next`; each does what its name says."""
