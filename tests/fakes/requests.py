"""A request as it arrived, and what the fakes that answer any method on loopback have in common."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """One request as it arrived.

    The path comes without its query; `query` holds the parameters, those without a value as empty text; header names
    are lower case.
    """

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """Return the body's JSON value."""
        return json.loads(self.body)


R = TypeVar("R", bound=Request)


class AnyMethodHandler(BaseHTTPRequestHandler):
    """Hands the requests of every method to `serve`; keeps connections open, and says nothing of those that break."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def serve(self) -> None:
        """Answer one request; it is read by `read`."""
        raise NotImplementedError

    def read(self, kind: type[R]) -> R:
        """Return the request with its body."""
        target = urlsplit(self.path)
        return kind(
            method=self.command,
            path=target.path,
            query=dict(parse_qsl(target.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )

    def handle(self) -> None:
        """Serve until the connection ends, however it does."""
        # ssl.SSLError is an OSError, and not a ConnectionError; ValueError: the other side closed while we read.
        with suppress(OSError, ValueError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)
