"""For tests of the HTTP client: a source without sockets, what stands in for limiter and sleep, clients of fake sites."""

import threading
import time
from collections.abc import Callable

import httpx
import pytest

from ingestion.ports.context import HttpResponse
from ingestion.ports.errors import Cancelled, Signal
from ingestion.toolkit.http.client import Http
from ingestion.toolkit.http.egress import EgressPolicy
from tests.fakes.http_server import FakeSite

URL = "https://api.example.org/v1/records"
Answer = Callable[[httpx.Request], httpx.Response]


class Source:
    """Answers in turn, the last answer for ever, and remembers what was asked."""

    def __init__(self, *answers: httpx.Response | Exception | Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer


class Limits:
    """A limiter that always grants, and remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, float]] = []

    def acquire(self, key: str, *, tokens: int = 1) -> float:
        self.events.append(("acquire", key, tokens))
        return 0.0

    def slow_down(self, key: str, *, seconds: float) -> None:
        self.events.append(("slow_down", key, seconds))


class Naps(list[float]):
    """A sleep that takes no time, and remembers."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def client(source: Source, **changes: object) -> Http:
    """Return a client of the source that does not really sleep."""
    settings: dict[str, object] = {"sleep": Naps(), **changes}
    return Http(EgressPolicy(), transport=httpx.MockTransport(source), **settings)  # type: ignore[arg-type]


def response(status: int = 200, body: bytes = b"", **headers: str) -> HttpResponse:
    """Return an answer as the client gives it; `content_type=` becomes the header content-type."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(status=status, url=URL, headers=named, body=body, elapsed_ms=1.0)


def client_of(*sites: FakeSite, **changes: object) -> Http:
    """Return a client that may reach these sites and nothing else, and does not sleep between attempts."""
    policy = EgressPolicy(allow=tuple(site.netloc for site in sites))
    settings: dict[str, object] = {"sleep": lambda _: None, **changes}
    return Http(policy, **settings)  # type: ignore[arg-type]


def seconds_to_abort(http: Http, call: Callable[[], object], *, reason: type[Signal]) -> float:
    """Return how long after `abort` the call in flight ended."""
    aborted_at: list[float] = []

    def abort() -> None:
        aborted_at.append(time.monotonic())
        http.abort(None if reason is Cancelled else reason())

    timer = threading.Timer(0.3, abort)
    timer.start()
    with pytest.raises(reason):
        call()
    timer.join()
    return time.monotonic() - aborted_at[0]
