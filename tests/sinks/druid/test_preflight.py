"""The check before a load: each cause gives a finding of its own with its fix, within a few short calls."""

import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingestion.ports.check import CheckReport, Finding
from ingestion.ports.errors import AuthError, ConfigError, IngestError, SinkRejected, SinkUnavailable
from ingestion.ports.messages import find_message
from ingestion.toolkit.http.client import Http
from ingestion.toolkit.http.egress import EgressPolicy
from sinks.druid import preflight
from sinks.druid.diagnostics import cause_in_druid, cause_in_store
from sinks.druid.preflight import BUDGET_S, CALL_S, MOST_SKEW_S
from tests.conformance.context import MemoryLake
from tests.fakes.druid import FakeDruid
from tests.servers import VersityGateway, free_port
from tests.sinks.druid.support import Bench, memory_bench

PASSWORD = "canary-password-1"


def check(bench: Bench) -> CheckReport:
    return bench.sink.check(bench.ctx)


def failed(bench: Bench) -> Finding:
    """Return the one finding that is not ok."""
    report = check(bench)
    found = [finding for finding in report.findings if not finding.ok]
    assert len(found) == 1, report.findings
    assert found[0].fix
    assert find_message(found[0].code)
    assert found[0].detail
    return found[0]


def test_a_good_cluster_passes_in_every_layer(bench: Bench) -> None:
    report = check(bench)

    assert report.ok, report
    assert [finding.layer for finding in report.findings] == [
        *("overlord", "leader", "clock", "slots", "query", "historical", "load rule", "extension", "input")
    ]


def test_services_apart_are_reached_one_by_one(tmp_path: Path) -> None:
    with FakeDruid(apart=True) as druid:
        bench = Bench(druid, tmp_path, broker_url=druid.broker_url, coordinator_url=druid.coordinator_url)

        layers = [finding.layer for finding in check(bench).findings]
        druid.stop("broker")
        broker = failed(bench)
        druid.start("broker")
        druid.stop("coordinator")
        coordinator = failed(bench)

    assert layers[:3] == ["broker", "coordinator", "overlord"]
    assert (broker.layer, coordinator.layer) == ("broker", "coordinator")
    assert druid.broker_url in broker.fix


def test_the_way_chosen_is_shown(bench: Bench, local: Bench) -> None:
    assert "1 MB" in next(found.detail for found in check(bench).findings if found.layer == "extension")
    assert "shares this machine's disk" in next(
        found.detail for found in check(local).findings if found.layer == "extension"
    )


def test_it_leaves_nothing_behind(druid: FakeDruid, local: Bench) -> None:
    check(local)

    assert local.staged() == []
    assert local.tasks() == []


# the cluster


def test_an_address_where_nothing_listens(bench: Bench) -> None:
    bench.settings["url"] = f"http://127.0.0.1:{free_port()}"

    assert failed(bench).layer == "overlord"
    assert "tcp" in failed(bench).detail


def test_an_address_that_is_not_allowed(bench: Bench) -> None:
    bench.http = Http(EgressPolicy(allow=(), ports=frozenset(range(1, 65536))))

    found = failed(bench)

    assert (found.layer, found.code) == ("overlord", "egress.forbidden")
    assert "HEADGATE_EGRESS_ALLOW" in found.fix


def test_a_name_that_nobody_knows(bench: Bench) -> None:
    bench.settings["url"] = "http://druid.invalid:8888"

    assert failed(bench).layer == "overlord"


@pytest.mark.parametrize("body", [{}, {"version": None}, {"hello": "world"}])
def test_something_that_is_no_druid(druid: FakeDruid, bench: Bench, body: dict[str, Any]) -> None:
    druid.fail_next("GET /status", "json", times=None, body=body)

    found = failed(bench)

    assert (found.layer, found.code) == ("overlord", "sink.not_druid")


@pytest.mark.parametrize("how", ["html", "text", "empty", "broken_json", "unavailable", "reset"])
def test_a_service_that_answers_nonsense(druid: FakeDruid, bench: Bench, how: str) -> None:
    druid.fail_next("GET /status", how, times=None, status=200)

    assert failed(bench).layer == "overlord"


def test_wrong_or_missing_credentials(tmp_path: Path) -> None:
    with FakeDruid(users={"ingest": PASSWORD, "guest": PASSWORD}, powerless=["guest"]) as druid:
        bench = Bench(druid, tmp_path)
        missing = failed(bench)
        bench.settings |= {"username": "ingest", "password": "wrong-password"}
        wrong = failed(bench)
        bench.settings |= {"username": "guest", "password": PASSWORD}
        powerless = failed(bench)
        bench.settings["username"] = "ingest"
        good = check(bench)

    assert good.ok
    for found in (missing, wrong, powerless):
        assert (found.layer, found.code) == ("auth", "sink.auth")
        assert "WRITE and READ" in found.fix
    assert PASSWORD not in repr(good)


def test_an_overlord_without_a_leader(druid: FakeDruid, bench: Bench) -> None:
    druid.lose_leader()

    found = failed(bench)

    assert found.layer == "leader"
    assert "Overlord" in found.fix


def test_a_redirect_to_a_stranger(druid: FakeDruid, bench: Bench) -> None:
    druid.lose_leader(leader_url="http://10.0.0.1:8090")

    assert failed(bench).code == "sink.foreign_redirect"


@pytest.mark.parametrize("offset_s", [-MOST_SKEW_S - 5, MOST_SKEW_S + 5, 86_400])
def test_clocks_that_differ(druid: FakeDruid, bench: Bench, offset_s: float) -> None:
    druid.set_clock(offset_s + (bench.now - bench.now).total_seconds())

    found = failed(bench)

    assert (found.layer, found.code) == ("clock", "sink.clock")
    assert "time server" in found.fix


def test_clocks_that_differ_a_little(druid: FakeDruid, bench: Bench) -> None:
    bench.now += timedelta(seconds=MOST_SKEW_S - 30)

    assert check(bench).ok


def test_a_cluster_without_a_slot(druid: FakeDruid, bench: Bench) -> None:
    druid.stop_worker()

    found = failed(bench)

    assert found.layer == "slots"
    assert "MiddleManager" in found.fix


def test_a_broker_that_answers_no_query(druid: FakeDruid, bench: Bench) -> None:
    druid.fail_next("POST /druid/v2/sql", "html", times=None, status=404)

    found = failed(bench)

    assert found.layer == "query"
    assert "broker_url" in found.fix


@pytest.mark.parametrize(
    "rows", [[], [{"server": "h", "curr_size": 100, "max_size": 100}], [{"curr_size": None, "max_size": None}]]
)
def test_no_historical_or_none_with_room(druid: FakeDruid, bench: Bench, rows: list[Any]) -> None:
    druid.fail_next("POST /druid/v2/sql", "json", skip=1, body=rows)

    found = failed(bench)

    assert found.layer == "historical"
    assert "druid.segmentCache.locations" in found.fix


def test_a_rule_that_drops_everything(druid: FakeDruid, bench: Bench) -> None:
    druid.fail_next("GET /druid/coordinator/v1/rules/_default", "json", body=[{"type": "dropForever"}])

    found = failed(bench)

    assert found.layer == "load rule"
    assert "loadForever" in found.fix


# extensions and ways


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"input": "s3"}, "do not lie in a bucket"),
        ({"input": "presigned"}, "do not lie in a bucket"),
        ({"input": "local"}, "shares_disk is not set"),
        ({"input": "s3", "staging": "s3://bucket"}, "druid-s3-extensions is not loaded"),
    ],
)
def test_a_way_that_cannot_be(bench: Bench, settings: dict[str, Any], words: str) -> None:
    bench.settings |= settings

    found = failed(bench)

    assert found.layer == "extension"
    assert words in found.detail
    assert "druid.extensions.loadList" in found.fix


def test_the_broker_where_the_router_should_be(tmp_path: Path) -> None:
    with FakeDruid(apart=True) as druid:
        bench = memory_bench(druid, tmp_path)
        bench.settings["url"] = druid.broker_url

        found = failed(bench)

    assert (found.layer, found.code) == ("leader", "sink.no_overlord")
    assert "Router" in found.detail


def test_a_disk_that_druid_does_not_see(druid: FakeDruid, local: Bench) -> None:
    druid.fail_next("POST /druid/indexer/v1/sampler", "json", body={"numRowsRead": 0})

    found = failed(local)

    assert (found.layer, found.code) == ("input", "sink.disk_not_shared")
    assert "shares_disk" in found.fix


def test_an_overlord_that_can_read_nothing(druid: FakeDruid, bench: Bench) -> None:
    druid.fail_next("POST /druid/indexer/v1/sampler", "json", body={"numRowsRead": 0})

    assert failed(bench).layer == "input"


# the bucket for rows on their way


@pytest.fixture
def settings(versitygw: VersityGateway, tmp_path: Path) -> dict[str, Any]:
    name = f"check-{os.getpid()}-{abs(hash(str(tmp_path))) % 10**9}"
    return {
        "staging": versitygw.create_bucket(name),
        "staging_access_key": versitygw.access_key,
        "staging_secret_key": versitygw.secret_key,
    }


@pytest.fixture
def signed(druid: FakeDruid, tmp_path: Path, settings: dict[str, Any]) -> Bench:
    return Bench(druid, tmp_path, lake=MemoryLake(), **settings)


def test_a_good_bucket_passes_and_is_left_empty(signed: Bench) -> None:
    from ingestion.toolkit.lake.opening import open_lake

    report = check(signed)

    store = open_lake(
        signed.settings["staging"],
        access_key=signed.settings["staging_access_key"],
        secret_key=signed.settings["staging_secret_key"],
    )
    assert report.ok, report
    assert [found.layer for found in report.findings][-2:] == ["staging", "input"]
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    ("changes", "layer", "words"),
    [
        ({"staging_secret_key": "wrong"}, "auth", "staging_access_key"),
        ({"staging_access_key": "nobody"}, "auth", "staging_access_key"),
        ({"read_access_key": "nobody", "read_secret_key": "wrong"}, "auth", "read_access_key"),
    ],
)
def test_keys_that_the_store_refuses(signed: Bench, changes: dict[str, str], layer: str, words: str) -> None:
    signed.settings |= changes

    found = failed(signed)

    assert found.layer == layer
    assert words in found.fix


def test_a_bucket_that_is_not_there(signed: Bench, versitygw: VersityGateway) -> None:
    signed.settings["staging"] = f"s3://not-there-at-all?endpoint={versitygw.endpoint}"

    found = failed(signed)

    assert found.layer == "bucket"
    assert "Create the bucket" in found.fix


def test_another_region(signed: Bench) -> None:
    signed.settings["staging"] = signed.settings["staging"].replace("us-east-1", "eu-west-3")

    found = failed(signed)

    assert found.layer == "region"
    assert "region=" in found.fix


def test_a_store_that_is_not_there(signed: Bench) -> None:
    signed.settings["staging"] = f"s3://bucket?endpoint=http://127.0.0.1:{free_port()}"

    found = failed(signed)

    assert found.layer == "endpoint"
    assert "Start the store" in found.fix


def test_druid_that_cannot_reach_the_bucket(druid: FakeDruid, signed: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "CALL_S", 0.3)
    druid.fail_next("POST /druid/indexer/v1/sampler", "hang", seconds=5.0)

    found = failed(signed)

    assert found.layer == "input"
    assert "localhost" in found.fix


# within its time


def test_a_druid_that_hangs_is_asked_once_and_shortly(druid: FakeDruid, bench: Bench, monkeypatch: Any) -> None:
    monkeypatch.setattr(preflight, "CALL_S", 0.3)
    druid.fail_next("*", "hang", times=None, seconds=5.0)
    deadlines: list[float | None] = []
    variant = bench.http.variant

    def noting(**options: Any) -> Any:
        deadlines.append(options.get("deadline_s"))
        return variant(**options)

    monkeypatch.setattr(bench.http, "variant", noting)

    found = failed(bench)

    assert found.layer == "overlord"
    assert set(deadlines) == {0.3}
    assert len({request.path for request in druid.requests}) == 1


def test_no_call_may_take_more_than_half_of_the_time() -> None:
    assert 2 * CALL_S <= BUDGET_S == 5


def test_what_there_is_no_time_for_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "BUDGET_S", -1.0)

    report = check(bench)

    assert len(report.findings) == 1
    assert not report.ok
    assert "no time left" in report.findings[0].detail
    assert report.findings[0].fix


@pytest.fixture
def silent_store() -> Iterator[str]:
    """An endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    held.append(server.accept()[0])
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in held:
            connection.close()


def test_a_store_that_hangs_is_left_alone_in_time(
    signed: Bench, silent_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "BUDGET_S", 0.8)
    signed.settings["staging"] = f"s3://bucket?endpoint={silent_store}"

    found = failed(signed)

    assert found.layer in ("endpoint", "staging")
    assert "does not answer in time" in found.detail


# what stores and Druid say


@pytest.mark.parametrize(
    ("error", "layer"),
    [
        (AuthError("store.auth", detail="HeadObject: 403"), "auth"),
        (
            AuthError("store.auth", detail="PutObject: RequestTimeTooSkewed, the clock of this machine is wrong"),
            "clock",
        ),
        (
            ConfigError("config.invalid", where="x", detail="HeadObject: 400, the region is probably another one"),
            "region",
        ),
        (ConfigError("store.config", detail="PutObject: PermanentRedirect, the bucket is in another region"), "region"),
        (ConfigError("store.config", detail="PutObject: NoSuchBucket, there is no such bucket"), "bucket"),
        (
            SinkUnavailable("sink.unavailable", destination="d", detail="EndpointConnectionError at http://x"),
            "endpoint",
        ),
        (SinkUnavailable("store.unavailable", detail="PutObject: SlowDown"), "endpoint"),
        (ConfigError("store.config", detail="no space"), None),
    ],
)
def test_what_a_store_says_names_its_cause(error: IngestError, layer: str | None) -> None:
    cause = cause_in_store(error)

    assert (cause.layer if cause else None) == layer
    assert cause is None or cause.fix


@pytest.mark.parametrize(
    ("said", "layer"),
    [
        ("Unable to find a region via the region provider chain", "region"),
        ("Unable to load region from any of the providers in the chain", "region"),
        ("AuthorizationHeaderMalformed: the region 'x' is wrong; expecting 'y'", "region"),
        ("Unable to load credentials from any of the providers in the chain", "credentials"),
        (
            "The AWS Access Key Id you provided does not exist (Status Code: 403; Error Code: InvalidAccessKeyId)",
            "credentials",
        ),
        ("SignatureDoesNotMatch", "credentials"),
        ("Access Denied (Service: Amazon S3; Status Code: 403; Error Code: AccessDenied)", "credentials"),
        ("The specified bucket does not exist (Status Code: 404; Error Code: NoSuchBucket)", "bucket"),
        ("java.net.UnknownHostException: bucket.minio", "path style"),
        ("bucket.store: Name or service not known", "path style"),
        ("Unable to execute HTTP request: Connect to localhost:9000 failed: Connection refused", "endpoint"),
        ("Connect timed out", "endpoint"),
        ("Could not resolve type id 's3' as a subtype of", "extension"),
        ("something else", None),
    ],
)
def test_what_druid_says_of_a_bucket_names_its_cause(said: str, layer: str | None) -> None:
    cause = cause_in_druid(SinkRejected("sink.rejected", destination="druid", detail=said))

    assert (cause.layer if cause else None) == layer
    assert cause is None or cause.fix


def test_druid_s_words_about_a_bucket_become_the_finding(tmp_path: Path, settings: dict[str, Any]) -> None:
    with FakeDruid(extensions=["s3", "parquet"]) as druid:
        bench = Bench(druid, tmp_path, lake=MemoryLake(), **settings)
        body = {"error": "Failed to sample data: Unable to find a region via the region provider chain"}
        druid.fail_next("POST /druid/indexer/v1/sampler", "json", status=400, body=body)

        found = failed(bench)

    assert found.layer == "region"
    assert "AWS_REGION" in found.fix
