"""A call in flight ends within moments when another thread says so."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from ingestion.ports.errors import (
    Cancelled,
    LeaseLost,
)
from ingestion.toolkit.http.client import Http
from ingestion.toolkit.http.egress import EgressPolicy
from tests.fakes.http_client import client_of, seconds_to_abort
from tests.fakes.http_server import FakeSite

RECORDS = {"data": list(range(100))}


@pytest.fixture
def site() -> Iterator[FakeSite]:
    with FakeSite({"/records": RECORDS}) as running:
        yield running


@pytest.mark.parametrize("kind", ["hang", "slow", "slow_headers"])
@pytest.mark.parametrize("reason", [Cancelled, LeaseLost])
def test_abort_from_another_thread_ends_the_call_in_flight(
    site: FakeSite, kind: str, reason: type[BaseException]
) -> None:
    site.fault(kind, times=None)
    with client_of(site) as http:
        elapsed_s = seconds_to_abort(http, lambda: http.get(f"{site.url}/records"), reason=reason)

    assert elapsed_s < 10, "the call would have lasted a minute"
    assert site.count() == 1


def test_abort_ends_a_wait_between_two_attempts(site: FakeSite) -> None:
    site.fault("status", status=429, retry_after="2", times=None)
    with client_of(site, sleep=None, attempts=100) as http:
        elapsed_s = seconds_to_abort(http, lambda: http.get(f"{site.url}/records"), reason=Cancelled)

    assert elapsed_s < 10, "the call would have lasted a minute"


def test_abort_ends_a_connection_attempt_that_nobody_answers() -> None:
    # A listener with a full queue drops what else knocks: the connection hangs in its first step.
    with full_listener() as port, Http(EgressPolicy(allow=(f"127.0.0.1:{port}",))) as http:
        elapsed_s = seconds_to_abort(http, lambda: http.get(f"http://127.0.0.1:{port}/"), reason=Cancelled)

    assert elapsed_s < 10, "the call would have lasted a minute"


@contextlib.contextmanager
def full_listener() -> Iterator[int]:
    """Yield the port of a loopback listener whose queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = int(listener.getsockname()[1])
        for _ in range(4):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(("127.0.0.1", port))
        yield port


def test_a_client_leaves_no_open_sockets_behind(site: FakeSite) -> None:
    site.fault("cut", times=2)
    site.fault("reset")
    http = client_of(site, attempts=5)
    http.get(f"{site.url}/records")
    http.close()

    assert http._connections._handles == set()
