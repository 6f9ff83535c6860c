"""The client on real connections: slow, cut and lying servers on loopback."""

import time
from collections.abc import Iterator

import pytest

from ingestion.ports.errors import (
    ConfigError,
    RateLimited,
    SourceChanged,
    SourceRejected,
    SourceUnavailable,
)
from ingestion.toolkit.http import client as http_module
from ingestion.toolkit.http.client import Http
from ingestion.toolkit.http.egress import EgressPolicy
from ingestion.toolkit.http.errors import expect_json
from tests.fakes.http_client import client_of
from tests.fakes.http_server import FakeSite, fake_sites

RECORDS = {"data": list(range(100))}


@pytest.fixture
def site() -> Iterator[FakeSite]:
    with FakeSite({"/records": RECORDS}) as running:
        yield running


def test_an_answer_arrives_and_the_connection_is_used_again(site: FakeSite) -> None:
    with client_of(site) as http:
        answers = [expect_json(http.get(f"{site.url}/records")) for _ in range(3)]

    assert answers == [RECORDS] * 3
    assert site.count("/records") == 3


def test_loopback_is_forbidden_unless_it_is_named(site: FakeSite) -> None:
    """[24]."""
    with Http(EgressPolicy()) as http, pytest.raises(ConfigError) as caught:
        http.get(f"{site.url}/records")

    assert caught.value.code == "egress.forbidden"
    assert site.count() == 0


@pytest.mark.parametrize("kind", ["cut", "cut_chunk", "long_length", "reset", "lost"])
def test_an_answer_that_breaks_off_is_fetched_again(site: FakeSite, kind: str) -> None:
    site.fault(kind)

    with client_of(site) as http:
        answer = http.get(f"{site.url}/records")

    assert expect_json(answer) == RECORDS
    assert site.count() == 2


@pytest.mark.parametrize("kind", ["cut_close", "short_length"])
def test_a_cut_that_http_cannot_see_is_seen_in_the_json(site: FakeSite, kind: str) -> None:
    site.fault(kind)

    with client_of(site) as http, pytest.raises(SourceUnavailable):
        expect_json(http.get(f"{site.url}/records"))


def test_a_server_that_breaks_off_for_ever_is_unavailable(site: FakeSite) -> None:
    site.fault("cut", times=None)

    with client_of(site, attempts=4) as http, pytest.raises(SourceUnavailable) as caught:
        http.get(f"{site.url}/records")

    assert caught.value.code == "source.unavailable"
    assert site.count() == 4


@pytest.mark.parametrize("kind", ["slow", "slow_headers"])
def test_a_server_that_drips_is_cut_at_the_deadline(site: FakeSite, kind: str) -> None:
    site.fault(kind, times=None, gap_s=0.05)
    started_at = time.monotonic()

    with client_of(site, timeout_s=5, deadline_s=0.8) as http, pytest.raises(SourceUnavailable) as caught:
        http.get(f"{site.url}/records")

    assert caught.value.code == "source.too_slow"
    assert 0.7 < time.monotonic() - started_at < 2.5
    assert site.count() == 1


def test_a_server_below_the_minimum_rate_is_given_up_early(site: FakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "_PATIENCE_S", 0.2)
    site.fault("slow", times=None, gap_s=0.05)
    started_at = time.monotonic()

    with client_of(site) as http, pytest.raises(SourceUnavailable) as caught:
        http.get(f"{site.url}/records")

    assert caught.value.code == "source.too_slow"
    assert time.monotonic() - started_at < 2


def test_a_server_that_says_nothing_is_given_up_and_asked_again(site: FakeSite) -> None:
    site.fault("hang")

    with client_of(site, timeout_s=0.3) as http:
        answer = http.get(f"{site.url}/records")

    assert answer.status == 200
    assert site.count() == 2


def test_html_instead_of_json_is_bad_content(site: FakeSite) -> None:
    """[74]."""
    site.fault("html")

    with client_of(site) as http, pytest.raises(SourceChanged) as caught:
        expect_json(http.get(f"{site.url}/records"))

    assert caught.value.code == "source.bad_content"


def test_headers_beyond_every_measure_are_bad_content(site: FakeSite) -> None:
    """[79]."""
    site.fault("big_headers", times=None)

    with client_of(site) as http, pytest.raises(SourceChanged) as caught:
        http.get(f"{site.url}/records")

    assert caught.value.code == "source.bad_content"


def test_a_packed_bomb_is_stopped_at_the_limit(site: FakeSite) -> None:
    site.fault("gzip_bomb", bytes=64 << 20)

    with client_of(site, max_body_bytes=4 << 20) as http, pytest.raises(SourceChanged) as caught:
        http.get(f"{site.url}/records")

    assert caught.value.code == "source.too_large"


@pytest.mark.parametrize("retry_after", ["2", "date:2"])
def test_a_short_limit_is_waited_for(site: FakeSite, retry_after: str) -> None:
    site.fault("status", status=429, retry_after=retry_after)
    naps: list[float] = []

    with client_of(site, sleep=naps.append) as http:
        http.get(f"{site.url}/records")

    assert len(naps) == 1
    assert 0 < naps[0] <= 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_long_limit_is_handed_on(site: FakeSite, status: int) -> None:
    site.fault("status", status=status, retry_after="date:60")

    with client_of(site) as http, pytest.raises(RateLimited) as caught:
        http.get(f"{site.url}/records")

    assert 55 <= (caught.value.retry_after_s or 0) <= 60


@pytest.mark.parametrize("retry_after", ["-1", "soon", "", "99999999999999999999"])
def test_a_strange_limit_breaks_nothing(site: FakeSite, retry_after: str) -> None:
    """[78]."""
    site.fault("status", status=429, retry_after=retry_after, times=None)

    with client_of(site) as http, pytest.raises(RateLimited) as caught:
        http.get(f"{site.url}/records")

    assert 0 < (caught.value.retry_after_s or 0) <= 3600


def test_a_burst_of_server_errors_is_survived(site: FakeSite) -> None:
    site.fault("status", status=500, times=2)

    with client_of(site) as http:
        assert http.get(f"{site.url}/records").status == 200


def test_credentials_do_not_follow_a_redirect_to_another_server() -> None:
    with fake_sites({"/records": RECORDS}, {"/stolen": RECORDS}) as (site, other):
        site.fault("redirect", location=f"{other.url}/stolen")
        with client_of(site, other) as http:
            http.get(f"{site.url}/records", headers={"authorization": "Bearer x", "cookie": "a=b"})

        assert site.requests[0].headers["authorization"] == "Bearer x"
        assert {"authorization", "cookie"}.isdisjoint(other.requests[0].headers)


def test_a_redirect_to_a_forbidden_server_is_not_followed() -> None:
    """[33]."""
    with fake_sites({"/records": RECORDS}, {"/inner": RECORDS}) as (site, inner):
        site.fault("redirect", location=f"{inner.url}/inner")
        with client_of(site) as http, pytest.raises(ConfigError) as caught:
            http.get(f"{site.url}/records")

        assert caught.value.code == "egress.forbidden"
        assert inner.count() == 0


def test_a_redirect_loop_ends(site: FakeSite) -> None:
    site.fault("redirect", times=None)

    with client_of(site) as http, pytest.raises(SourceRejected) as caught:
        http.get(f"{site.url}/records")

    assert caught.value.code == "source.too_many_redirects"
    assert site.count() == 6
