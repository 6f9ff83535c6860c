"""Flower behind its password, every address of it: `python -m ingest_project.stack.flower --port N`.

Flower itself leaves `/metrics` and `/healthcheck` open, so the question is asked before its routing.
The password comes from the settings and never stands on a command line.
"""

import argparse
import asyncio
import base64
import hmac
import signal
from collections.abc import Sequence
from typing import Any

import django
from celery.app.utils import find_app
from flower.app import Flower
from flower.options import options
from flower.urls import settings as flower_settings
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

from ingest_project.stack.names import OPERATOR
from ingest_project.stack.parents import die_with_parent


class Unauthorized(RequestHandler):
    """The answer 401 to whatever was asked."""

    def check_xsrf_cookie(self) -> None:
        """Let every method come as far as the answer."""

    def prepare(self) -> None:
        """Ask for the password and end the request."""
        self.set_status(401)
        self.set_header("WWW-Authenticate", 'Basic realm="flower"')
        self.finish("401: a password is needed\n")


class GuardedFlower(Flower):  # type: ignore[misc] # Flower carries no types
    """Flower whose every address, known or not, needs the password."""

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Return who answers a request: Flower, or 401."""
        if knows_password(request.headers.get("Authorization", ""), login=self.options.basic_auth[0]):
            return super().find_handler(request, **kwargs)
        return self.get_handler_delegate(request, Unauthorized)


def knows_password(header: str, *, login: str) -> bool:
    """Return whether an Authorization header carries the login `user:password`."""
    scheme, _, value = header.partition(" ")
    expected = base64.b64encode(login.encode()).decode()
    return scheme.lower() == "basic" and hmac.compare_digest(value.strip().encode(), expected.encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve Flower until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args(arguments)
    app = find_app("ingest_project")
    django.setup()
    from django.conf import settings  # noqa: PLC0415 - after setup

    die_with_parent()
    options.basic_auth = [f"{OPERATOR}:{settings.HEADGATE_FLOWER_PASSWORD}"]
    options.address, options.port = chosen.address, chosen.port
    asyncio.set_event_loop(asyncio.new_event_loop())
    loop = IOLoop.current()
    flower = GuardedFlower(capp=app, options=options, io_loop=loop, **flower_settings)
    flower.start_http_server()
    asyncio.get_event_loop_policy().get_event_loop().add_signal_handler(signal.SIGTERM, flower.stop)
    flower.start()


if __name__ == "__main__":
    main()
