"""Requests, replies and the pages Jetty makes, for the fake's services."""

import html
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from re import Match
from typing import Any, TypeAlias

from tests.fakes.druid.values import compact
from tests.fakes.requests import Request

JSON, TEXT, PAGE = "application/json", "text/plain", "text/html;charset=iso-8859-1"
_PHRASES = {401: "Unauthorized", 404: "Not Found", 500: "Server Error", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Reply:
    """One answer; without a content type the header is left out."""

    body: bytes = b""
    status: int = 200
    content_type: str | None = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class HangError(Exception):
    """This request is never answered."""


Handler: TypeAlias = Callable[[Request, Match[str]], Reply]
Routes: TypeAlias = Mapping[tuple[str, str], Handler]
"""Handlers by method and by the pattern of the whole path."""


def json_reply(value: Any, *, status: int = 200) -> Reply:
    """Return a value as JSON."""
    return Reply(compact(value).encode(), status)


def text_reply(text: str, *, status: int, content_type: str = TEXT) -> Reply:
    """Return plain text."""
    return Reply(text.encode(), status, content_type)


def nothing(status: int, *, content_type: str | None = None) -> Reply:
    """Return an answer without a body."""
    return Reply(b"", status, content_type)


def page(status: int, message: str | None = None, *, path: str) -> Reply:
    """Return Jetty's page about an error."""
    shown = html.escape(message or _PHRASES[status]).replace("&#x27;", "&apos;")
    rows = "".join(
        f"<tr><th>{name}:</th><td>{value}</td></tr>\n"
        for name, value in (("URI", html.escape(path)), ("STATUS", status), ("MESSAGE", shown), ("SERVLET", "default"))
    )
    text = (
        '<html>\n<head>\n<meta http-equiv="Content-Type" content="text/html;charset=ISO-8859-1"/>\n'
        f"<title>Error {status} {shown}</title>\n</head>\n<body><h2>HTTP ERROR {status} {shown}</h2>\n"
        f"<table>\n{rows}</table>\n\n</body>\n</html>\n"
    )
    return Reply(text.encode(), status, PAGE)


def refused(message: str) -> Reply:
    """Return the 400 of a body that could not be mapped."""
    return json_reply({"error": message}, status=400)


def druid_error(message: str, *, code: str, context: Mapping[str, str] | None = None, status: int = 400) -> Reply:
    """Return the answer to what a user asked wrongly: a DruidException."""
    body = {
        "error": "druidException",
        "errorCode": code,
        "persona": "USER",
        "category": "INVALID_INPUT",
        "errorMessage": message,
        "context": dict(context or {}),
    }
    return json_reply(body, status=status)


def parsed(request: Request) -> Any | Reply:
    """Return a body's JSON value, or the page that answers one that is none."""
    try:
        return json.loads(request.body)
    except ValueError as error:
        place = getattr(error, "pos", 0)
        text = request.body.decode(errors="replace")
        letter = text[place] if place < len(text) else " "
        message = (
            "javax.servlet.ServletException: com.fasterxml.jackson.core.JsonParseException: Unexpected character"
            f" ('{letter}' (code {ord(letter)})): was expecting double-quote to start field name\n at [Source:"
            f" (org.eclipse.jetty.server.HttpInputOverHTTP); line: 1, column: {place + 2}]"
        )
        return page(500, message, path=request.path)
