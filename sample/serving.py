"""A small threaded HTTP server on the loopback interface that answers GET requests from one function."""

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

JSON_API = "application/vnd.api+json"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `announced_bytes` replaces the Content-Length of the body, to break the transfer on purpose."""

    body: bytes
    status: int = 200
    content_type: str = JSON_API
    headers: Mapping[str, str] = field(default_factory=dict)
    announced_bytes: int | None = None


def json_reply(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return the value as a JSON answer."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Reply(body, status, headers=headers or {})


Respond = Callable[[str, Mapping[str, str]], Reply]
"""Gets the path and the query parameters (the last of each name) and returns the answer."""


class LoopbackServer(ThreadingHTTPServer):
    """Serves `respond` on 127.0.0.1; port 0 is a free one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, respond: Respond, *, port: int = 0) -> None:
        self.respond = respond
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def address(self) -> str:
        """Return the server's address without a path."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hangs up is not this server's trouble."""


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def setup(self) -> None:
        super().setup()
        # head and body are two packets; without this the second one waits for the first one's acknowledgement
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        reply = self.server.respond(parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)))
        announced = len(reply.body) if reply.announced_bytes is None else reply.announced_bytes
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(announced))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[:announced])
        self.close_connection = self.close_connection or announced != len(reply.body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
