"""The numbers in brackets are those of the catalogue of bad inputs."""

import socket
from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock

import httpcore
import httpx
import pytest

from ingestion.ports.errors import ConfigError, SourceUnavailable
from ingestion.toolkit.http.client import Http
from ingestion.toolkit.http.egress import (
    EgressGuard,
    EgressPolicy,
    GuardedTransport,
    Verdict,
    check_url,
    judge,
    resolve_host,
)

PUBLIC = "93.184.216.34"
PUBLIC_V6 = "2606:2800:220:1:248:1893:25c8:1946"


class Network:
    """A name service and a dial function that send nothing, and remember."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.lookups: list[str] = []
        self.dialled: list[tuple[str, int]] = []

    def resolve(self, host: str, port: int) -> Sequence[str]:
        self.lookups.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def dial(self, address: str, port: int, **_: Any) -> httpcore.NetworkStream:
        self.dialled.append((address, port))
        return httpcore.MockStream([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"])

    def guard(self, policy: EgressPolicy | None = None) -> EgressGuard:
        return EgressGuard(policy or EgressPolicy(), resolve=self.resolve, dial=self.dial)

    def client(self, policy: EgressPolicy | None = None) -> httpx.Client:
        return httpx.Client(transport=GuardedTransport(self.guard(policy)), trust_env=False)


def test_public_addresses_are_allowed(subtests: pytest.Subtests) -> None:
    cases: list[str] = [PUBLIC, PUBLIC_V6, "1.1.1.1", "2001:4860:4860::8888", f"::ffff:{PUBLIC}"]
    for address in cases:
        with subtests.test(address=address):
            assert judge(address, EgressPolicy()) is Verdict.ALLOWED


def test_addresses_that_are_not_public_are_forbidden(subtests: pytest.Subtests) -> None:
    """[24, 26-28]."""
    cases: list[str] = [
        *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"),  # noqa: S104
        *("169.254.169.254", "168.63.129.16", "192.0.0.192", "192.88.99.1", "198.18.0.1", "224.0.0.1", "240.0.0.1"),
        *("255.255.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.1"),
        *("::1", "::", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::"),
        *("fd00:ec2::254", "fc00::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "5f00::1", "100::1"),
        *("2001::1", "2001:db8::1", "3fff::1"),
        *("", "example.org", "1.2.3", "2130706433", "１２７.0.0.1"),
    ]
    for address in cases:
        with subtests.test(address=address):
            assert judge(address, EgressPolicy()) is Verdict.FORBIDDEN


def test_other_ports_are_refused_even_on_public_addresses(subtests: pytest.Subtests) -> None:
    """[35]."""
    cases: list[int] = [6379, 25, 22, 8080, 5432]
    for port in cases:
        with subtests.test(port=port):
            assert judge(PUBLIC, EgressPolicy(), port=port) is Verdict.PORT


def test_the_allow_list_opens_exactly_what_it_names(subtests: pytest.Subtests) -> None:
    cases: list[tuple[str, str, str, int, Verdict]] = [
        ("127.0.0.1:8765", "127.0.0.1", "127.0.0.1", 8765, Verdict.ALLOWED),
        ("127.0.0.1:8765", "127.0.0.1", "127.0.0.1", 80, Verdict.FORBIDDEN),
        ("127.0.0.1:8765", "127.0.0.2", "127.0.0.2", 8765, Verdict.FORBIDDEN),
        ("127.0.0.1:8765", "::ffff:127.0.0.1", "x", 8765, Verdict.ALLOWED),
        ("[::1]:8080", "::1", "::1", 8080, Verdict.ALLOWED),
        ("::1", "::1", "::1", 443, Verdict.ALLOWED),
        ("10.0.0.0/8", "10.9.8.7", "es", 443, Verdict.ALLOWED),
        ("10.0.0.0/8", "10.9.8.7", "es", 9200, Verdict.PORT),
        ("10.0.0.0/8:9200", "10.9.8.7", "es", 9200, Verdict.ALLOWED),
        ("10.0.0.0/8", "11.9.8.7", "es", 443, Verdict.ALLOWED),
        ("fd00::/8", "fd12::1", "es", 443, Verdict.ALLOWED),
        ("es.internal", "10.9.8.7", "es.internal", 443, Verdict.ALLOWED),
        ("ES.internal.", "10.9.8.7", "es.INTERNAL.", 443, Verdict.ALLOWED),
        ("es.internal:9200", "10.9.8.7", "es.internal", 9200, Verdict.ALLOWED),
        ("es.internal:9200", "10.9.8.7", "other.internal", 9200, Verdict.FORBIDDEN),
        ("es.internal", "10.9.8.7", "an.es.internal", 443, Verdict.FORBIDDEN),
        ("example.org:8443", PUBLIC, "example.org", 8443, Verdict.ALLOWED),
        # The name's own name server must not open the door to the machine's metadata.
        ("es.internal", "169.254.169.254", "es.internal", 443, Verdict.FORBIDDEN),
        ("es.internal", "fd00:ec2::254", "es.internal", 443, Verdict.FORBIDDEN),
        ("169.254.169.254", "169.254.169.254", "x", 80, Verdict.ALLOWED),
    ]
    for entry, address, host, port, verdict in cases:
        with subtests.test(entry=entry, address=address, host=host, port=port, verdict=verdict):
            assert judge(address, EgressPolicy(allow=(entry,)), host=host, port=port) is verdict


def test_an_entry_that_means_nothing_is_refused_with_its_text(subtests: pytest.Subtests) -> None:
    cases: list[str] = ["", "host:", "host:0", "host:70000", "host:http", "*.org", "a b", "http://x", "x/8"]
    for entry in cases:
        with subtests.test(entry=entry):
            with pytest.raises(ConfigError) as caught:
                EgressPolicy(allow=(entry,))

            assert caught.value.code == "config.invalid"
            assert repr(entry) in str(caught.value)


def test_addresses_in_bad_form_are_refused_before_anything_is_looked_up(subtests: pytest.Subtests) -> None:
    """[23-30, 35, 36]."""
    cases: list[tuple[str, str | None]] = [
        *(("file:///etc/passwd", "egress.scheme"), ("gopher://x/", "egress.scheme"), ("ftp://x/", "egress.scheme")),
        *(("//x/y", "egress.scheme"), ("x", "egress.scheme"), ("", "egress.scheme")),
        *(("http://127.0.0.1", "egress.forbidden"), ("http://2130706433/", "egress.forbidden")),
        *(("http://0x7f.1/", "egress.forbidden"), ("http://0177.0.0.1/", "egress.request")),
        *(("http://127.1/", "egress.forbidden"), ("http://0/", "egress.forbidden")),
        *(("http://127。0。0。1/", "egress.forbidden"), ("http://[::1]/", "egress.forbidden")),
        *(("http://[::ffff:127.0.0.1]/", "egress.forbidden"), ("http://[::127.0.0.1]/", "egress.forbidden")),
        *(("http://[64:ff9b::a9fe:a9fe]/", "egress.forbidden"), ("http://[2002:7f00:1::]/", "egress.forbidden")),
        *(("http://１２７.0.0.1/", "egress.request"), ("http://①②⑦.0.0.1/", "egress.request")),
        *(("http://a@127.0.0.1/", "egress.request"), ("http://127.0.0.1:80\\@example.com/", "egress.request")),
        *(("http://example.com\\x", "egress.request"), ("http://[fe80::1%25eth0]/", "egress.request")),
        *(("http:///x", "egress.request"), ("http://a b/", "egress.request"), ("http://[::1", "egress.request")),
        *(
            ("http://x/\r\ny", "egress.request"),
            ("http://x/\ty", "egress.request"),
            ("http://x/a\nb", "egress.request"),
        ),
        *(("http://example.com:6379/", None), (f"http://{PUBLIC}:6379/", "egress.port")),
        *(("http://x:99999/", "egress.port"), ("http://x:0/", "egress.port"), (f"https://{PUBLIC}:25/", "egress.port")),
    ]
    for url, code in cases:
        with subtests.test(url=url, code=code):
            if code is None:
                assert check_url(url, EgressPolicy()).port == 6379
                return

            with pytest.raises(ConfigError) as caught:
                check_url(url, EgressPolicy())

            assert caught.value.code == code


def test_the_address_that_was_checked_is_the_one_that_is_dialled() -> None:
    network = Network([PUBLIC, PUBLIC_V6])

    answer = network.client().get("http://example.org/")

    assert answer.text == "ok"
    assert network.lookups == ["example.org"]
    assert network.dialled == [(PUBLIC, 80)]


def test_the_next_checked_address_is_tried_where_the_first_does_not_answer() -> None:
    network = Network([PUBLIC, PUBLIC_V6])
    dial = network.dial

    def dial_or_fail(address: str, port: int, **values: Any) -> httpcore.NetworkStream:
        stream = dial(address, port, **values)
        if address == PUBLIC:
            raise httpcore.ConnectError
        return stream

    guard = EgressGuard(EgressPolicy(), resolve=network.resolve, dial=dial_or_fail)

    guard.connect_tcp("example.org", 443)

    assert network.dialled == [(PUBLIC, 443), (PUBLIC_V6, 443)]


def test_a_name_with_a_single_bad_address_is_never_dialled(subtests: pytest.Subtests) -> None:
    """[31]."""
    cases: list[list[str]] = [["10.0.0.1"], [PUBLIC, "127.0.0.1"], ["::1", PUBLIC], [PUBLIC, "fe80::1%eth0"]]
    for addresses in cases:
        with subtests.test(addresses=addresses):
            network = Network(addresses)

            with pytest.raises(ConfigError) as caught:
                network.client().get("http://example.org/")

            assert caught.value.code == "egress.forbidden"
            assert "example.org" in str(caught.value)
            assert network.dialled == []


def test_a_name_that_turns_to_loopback_is_not_dialled_there() -> None:
    """[32]."""
    network = Network([PUBLIC], ["127.0.0.1"])
    client = network.client()
    client.get("http://example.org/")

    with pytest.raises(ConfigError):
        client.get("http://example.org/")

    assert network.dialled == [(PUBLIC, 80)]


def test_an_allowed_private_name_is_dialled() -> None:
    network = Network(["10.0.0.5"])

    network.client(EgressPolicy(allow=("es.internal:9200",))).get("http://es.internal:9200/")

    assert network.dialled == [("10.0.0.5", 9200)]


def test_a_forbidden_port_is_never_dialled() -> None:
    """[35]."""
    network = Network([PUBLIC])

    with pytest.raises(ConfigError) as caught:
        network.client().get("http://example.org:6379/")

    assert caught.value.code == "egress.port"
    assert network.dialled == []


def test_unix_sockets_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Network([PUBLIC]).guard().connect_unix_socket("/run/docker.sock")

    assert caught.value.code == "egress.forbidden"


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """[37]."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:3128")
    network = Network([PUBLIC])

    network.client().get("http://example.org/")

    assert network.dialled == [(PUBLIC, 80)]


def test_the_guard_is_the_network_of_the_real_client() -> None:
    """Fails when httpx keeps its connections under another name: the guard would be left out without a word."""
    transport = GuardedTransport(Network([PUBLIC]).guard())

    assert isinstance(httpx.HTTPTransport(trust_env=False)._pool, httpcore.ConnectionPool)
    assert isinstance(transport._pool, httpcore.ConnectionPool)
    assert isinstance(transport._pool._network_backend, EgressGuard)
    assert isinstance(Http(EgressPolicy())._client._transport, GuardedTransport)


def test_a_transport_whose_connections_are_kept_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(self: httpx.HTTPTransport, **_: Any) -> None:
        self._connection_pool = None  # type: ignore[attr-defined]

    monkeypatch.setattr(httpx.HTTPTransport, "__init__", renamed)

    with pytest.raises(TypeError, match="guard"):
        GuardedTransport(Network([PUBLIC]).guard())


def test_a_name_that_cannot_be_resolved_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    cases: list[tuple[Exception, type[Exception], str]] = [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), ConfigError, "egress.unresolved"),
        (socket.gaierror(socket.EAI_AGAIN, "later"), SourceUnavailable, "source.unavailable"),
        (UnicodeError("label too long"), ConfigError, "egress.unresolved"),
        (OSError("no network"), ConfigError, "egress.unresolved"),
    ]
    for failure, kind, code in cases:
        with subtests.test(failure=failure, kind=kind, code=code):
            monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=failure))

            with pytest.raises(kind) as caught:
                resolve_host("example.org", 443)

            assert caught.value.code == code  # type: ignore[attr-defined]


def test_a_name_without_addresses_is_unresolved() -> None:
    with pytest.raises(ConfigError) as caught:
        Network([]).guard().connect_tcp("example.org", 443)

    assert caught.value.code == "egress.unresolved"


def test_loopback_resolves_to_addresses_without_repeats() -> None:
    addresses = resolve_host("127.0.0.1", 80)

    assert addresses == ["127.0.0.1"]
