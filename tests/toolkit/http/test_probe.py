"""TLS, and which layer a probe names."""

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ingestion.ports.errors import (
    Cancelled,
    ConfigError,
)
from ingestion.toolkit.http.egress import EgressPolicy
from ingestion.toolkit.http.errors import expect_json
from ingestion.toolkit.http.probe import probe
from tests.fakes.http_client import client_of, seconds_to_abort
from tests.fakes.http_server import FakeSite
from tests.servers import free_port

RECORDS = {"data": list(range(100))}


@pytest.fixture
def site() -> Iterator[FakeSite]:
    with FakeSite({"/records": RECORDS}) as running:
        yield running


def self_signed(folder: Path, *, name: str = "127.0.0.1", days: int = 2) -> tuple[Path, Path]:
    """Write a certificate of its own authority and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.DNSName(name)])
    if name == "127.0.0.1":
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "cert.pem", folder / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path


@pytest.mark.parametrize(
    ("name", "days", "is_trusted"), [("127.0.0.1", 2, False), ("127.0.0.1", -1, True), ("other.example.org", 2, True)]
)
def test_a_certificate_that_does_not_hold_is_refused(tmp_path: Path, name: str, days: int, is_trusted: bool) -> None:
    """[80]."""
    certificate, key = self_signed(tmp_path, name=name, days=days)
    trust = ssl.create_default_context(cafile=str(certificate)) if is_trusted else None
    site = FakeSite({"/records": RECORDS}, certificate=certificate, key=key)
    with site, client_of(site, ssl_context=trust) as http, pytest.raises(ConfigError) as caught:
        http.get(f"{site.url}/records")

    assert caught.value.code == "source.tls"
    assert site.count() == 0


def test_a_trusted_certificate_carries_an_answer_and_an_abort(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    trust = ssl.create_default_context(cafile=str(certificate))
    site = FakeSite({"/records": RECORDS}, certificate=certificate, key=key)
    with site, client_of(site, ssl_context=trust) as http:
        answer = expect_json(http.get(f"{site.url}/records"))
        site.fault("hang", times=None)
        elapsed_s = seconds_to_abort(http, lambda: http.get(f"{site.url}/records"), reason=Cancelled)

    assert answer == RECORDS
    assert elapsed_s < 1


def test_a_probe_names_every_layer_and_its_time(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    trust = ssl.create_default_context(cafile=str(certificate))
    site = FakeSite({"/records": RECORDS}, certificate=certificate, key=key)
    with site, client_of(site, ssl_context=trust) as http:
        report = http.probe(f"{site.url}/records")

    assert report.ok
    assert [finding.layer for finding in report.findings] == ["dns", "tcp", "tls", "http"]
    assert all(finding.elapsed_ms >= 0 for finding in report.findings)


@pytest.mark.parametrize(
    ("status", "layer", "code"),
    [(401, "auth", "source.auth"), (404, "http", "source.not_found"), (500, "http", "source.server_error")],
)
def test_a_probe_says_that_the_source_refuses(site: FakeSite, status: int, layer: str, code: str) -> None:
    site.fault("status", status=status, times=None)

    with client_of(site) as http:
        report = http.probe(f"{site.url}/records")

    failed = report.findings[-1]
    assert (failed.layer, failed.ok, failed.code) == (layer, False, code)
    assert [finding.layer for finding in report.findings[:-1]] == ["dns", "tcp"]


def refusing_certificates(folder: Path) -> FakeSite:
    certificate, key = self_signed(folder)
    return FakeSite({}, certificate=certificate, key=key)


def test_a_probe_stops_at_the_layer_that_fails(tmp_path: Path) -> None:
    closed = free_port()
    with refusing_certificates(tmp_path) as site, client_of(site) as http:
        http.policy = EgressPolicy(allow=(site.netloc, f"127.0.0.1:{closed}"))
        reports = [http.probe(url) for url in ("ftp://127.0.0.1/", f"http://127.0.0.1:{closed}/", f"{site.url}/")]

    failed = [report.findings[-1] for report in reports]
    assert [(finding.layer, finding.ok, finding.code) for finding in failed] == [
        ("address", False, "egress.scheme"),
        ("tcp", False, "source.unavailable"),
        ("tls", False, "source.tls"),
    ]


def test_a_probe_dials_nothing_that_the_policy_forbids() -> None:
    dialled: list[str] = []

    def unexpected(*_: object, **__: object) -> NoReturn:
        dialled.append("dialled")
        raise AssertionError

    report = probe(
        "https://example.org/",
        EgressPolicy(),
        ask=unexpected,
        resolve=lambda host, port: ["93.184.216.34", "10.0.0.1"],
        dial=unexpected,
    )

    assert [(finding.layer, finding.code) for finding in report.findings] == [("dns", "egress.forbidden")]
    assert dialled == []
