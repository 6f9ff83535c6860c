"""Deliveries through a proxy that lets things go wrong on the way to the bucket, or from a lake in one (F15 to F19)."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import botocore.endpoint
import pytest
from pydantic import SecretStr

from ingestion.ports.context import Context
from ingestion.ports.errors import AuthError, ConfigError, IngestError, Retryable, SinkUnavailable, StoreCorrupt
from ingestion.ports.publication import Manifest
from ingestion.toolkit.lake.opening import ObjectStore, open_lake
from ingestion.toolkit.lake.s3_client import TRIES
from sinks.objects.config import ObjectsConfig
from sinks.objects.sink import ObjectsSink
from tests.conformance.context import MemoryLake, RecordingContext
from tests.conformance.parts import delivery_of, manifest_of, rows_of, store_part
from tests.fakes.s3_proxy import S3Proxy
from tests.servers import VersityGateway
from tests.sinks.objects.support import deliver, read_pointed, records, sink_at, store_of

ATTEMPTS = 8
"""Attempts that the engine makes of one piece of work, and some more: here a third of all requests fails."""
FORMS: list[dict[str, Any]] = [{}, {"format": "jsonl", "gzip": True}, {"partition_by": ["formula"]}]


class Destination:
    """A bucket behind a proxy, and in front of nothing."""

    def __init__(self, proxy: S3Proxy, server: VersityGateway) -> None:
        self.proxy = proxy
        self.server = server
        self.bucket = f"sink-faults-{os.getpid()}-{next(_numbers)}"
        server.create_bucket(self.bucket)

    def sink(self, *, bucket: str = "", access_key: str = "", secret_key: str = "", **settings: Any) -> ObjectsSink:
        query = urlencode({"endpoint": self.proxy.endpoint, "region": settings.pop("region", self.server.region)})
        return ObjectsSink(
            ObjectsConfig(
                url=f"s3://{bucket or self.bucket}/published?{query}",
                access_key=SecretStr(access_key or self.server.access_key),
                secret_key=SecretStr(secret_key or self.server.secret_key),
                **settings,
            )
        )

    def store(self) -> ObjectStore:
        """Return what is behind the proxy."""
        query = urlencode({"endpoint": self.server.endpoint, "region": self.server.region})
        keys = {"access_key": self.server.access_key, "secret_key": self.server.secret_key}
        return open_lake(f"s3://{self.bucket}/published?{query}", **keys)


_numbers = iter(range(1, 1_000_000))


@pytest.fixture
def destination(versitygw: VersityGateway) -> Iterator[Destination]:
    with S3Proxy(versitygw.endpoint) as proxy:
        yield Destination(proxy, versitygw)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for between tries, none of which is waited for."""
    asked: list[float] = []
    monkeypatch.setattr(botocore.endpoint.time, "sleep", asked.append)
    return asked


def run_of(lake: MemoryLake, *, part_count: int = 3) -> Manifest:
    parts = [store_part(lake, rows_of(6 * seq, 6), seq=seq) for seq in range(part_count)]
    return manifest_of(parts)


def attempt(sink: ObjectsSink, manifest: Manifest, ctx: Context) -> int:
    """Deliver as the engine does, each step anew where it can be tried again; return how many attempts it took."""
    attempts = 0
    for step in [
        *(lambda part=part: sink.stage(part, delivery_of(manifest), ctx) for part in manifest.parts),
        lambda: sink.commit(manifest, delivery_of(manifest), ctx),
        lambda: sink.count(manifest, delivery_of(manifest), ctx),
    ]:
        for _ in range(ATTEMPTS):
            attempts += 1
            try:
                step()
                break
            except Retryable:
                continue
        else:
            pytest.fail(f"a step was not done in {ATTEMPTS} attempts")
    return attempts


@pytest.mark.parametrize(
    ("settings", "code"),
    list(zip(FORMS, ["SlowDown", "InternalError", "SlowDown"], strict=True)),
    ids=["parquet", "jsonl.gz", "by partition"],
)
def test_a_delivery_through_a_store_that_fails_a_third_of_the_time_arrives_whole(
    destination: Destination, recording: RecordingContext, settings: dict[str, Any], code: str, pauses: list[float]
) -> None:
    ctx = recording.context
    sink, manifest = destination.sink(**settings), run_of(recording.lake)
    clean = Destination(destination.proxy, destination.server)
    attempt(clean.sink(**settings), manifest, ctx)
    needed = destination.proxy.count()
    destination.proxy.mend()
    fault = destination.proxy.fault("status", status=503 if code == "SlowDown" else 500, code=code, share=0.3)

    attempts = attempt(sink, manifest, ctx)

    calls = destination.proxy.count()
    destination.proxy.mend()
    assert records(read_pointed(destination.store())) == rows_of(0, 18)
    assert sink.count(manifest, delivery_of(manifest), ctx) == 18
    assert fault.hits > 5
    assert pauses
    # No storm: a request in three fails, so that half as many again are needed, and more only for begun-anew attempts.
    assert calls <= needed * TRIES
    assert attempts <= 5 * ATTEMPTS


@pytest.mark.parametrize("settings", FORMS, ids=["parquet", "jsonl.gz", "by partition"])
def test_answers_that_are_lost_after_the_store_has_done_what_was_asked_change_nothing(
    destination: Destination, ctx: Context, lake: MemoryLake, settings: dict[str, Any]
) -> None:
    sink, manifest = destination.sink(**settings), run_of(lake)
    fault = destination.proxy.fault("lost", share=0.3)

    attempt(sink, manifest, ctx)

    destination.proxy.mend()
    assert fault.hits > 5
    assert records(read_pointed(destination.store())) == rows_of(0, 18)
    document = json.loads(destination.store().read("samples/manifests/00000007.json"))
    named = {part["path"] for part in document["parts"]}
    there = {info.key for info in destination.store().list("samples/")}
    assert there == named | {"samples/latest.json", "samples/manifests/00000007.json"}


def lake_in_a_bucket(destination: Destination, lake: MemoryLake) -> ObjectStore:
    """Return the parts of a lake, read through the proxy."""
    for key, content in lake.objects.items():
        destination.store().put_if_absent(key, content)
    query = urlencode({"endpoint": destination.proxy.endpoint, "region": destination.server.region})
    keys = {"access_key": destination.server.access_key, "secret_key": destination.server.secret_key}
    return open_lake(f"s3://{destination.bucket}/published?{query}", **keys)


@pytest.mark.parametrize("kind", ["cut", "short", "flip"])
@pytest.mark.parametrize("settings", [{}, {"format": "csv"}], ids=["copied", "written anew"])
def test_a_part_that_is_spoilt_on_its_way_from_the_lake_is_read_again(
    destination: Destination, tmp_path: Path, ctx: Context, kind: str, settings: dict[str, Any]
) -> None:
    lake = MemoryLake()
    manifest = run_of(lake, part_count=1)
    behind = replace(ctx, lake=lake_in_a_bucket(destination, lake))
    fault = destination.proxy.fault(kind, operation="GetObject", path="clean/", times=1)
    sink = sink_at(tmp_path / "there", **settings)

    deliver(sink, manifest, behind)

    assert fault.hits == 1
    assert records(read_pointed(store_of(sink))) == rows_of(0, 6)


@pytest.mark.parametrize("kind", ["short", "flip"])
@pytest.mark.parametrize("settings", [{}, {"format": "csv"}], ids=["copied", "written anew"])
def test_a_part_that_is_always_spoilt_is_refused_and_never_published(
    destination: Destination, tmp_path: Path, ctx: Context, kind: str, settings: dict[str, Any]
) -> None:
    lake = MemoryLake()
    manifest = run_of(lake, part_count=1)
    behind = replace(ctx, lake=lake_in_a_bucket(destination, lake))
    destination.proxy.fault(kind, operation="GetObject", path="clean/")
    sink = sink_at(tmp_path / "there", **settings)

    with pytest.raises((StoreCorrupt, SinkUnavailable)):
        sink.stage(manifest.parts[0], delivery_of(manifest), behind)

    assert not list((tmp_path / "there").rglob("*.*"))


def test_a_part_that_a_lake_lists_and_does_not_give_is_missing(
    destination: Destination, tmp_path: Path, ctx: Context
) -> None:
    lake = MemoryLake()
    manifest = run_of(lake, part_count=2)
    behind = replace(ctx, lake=lake_in_a_bucket(destination, lake))
    gone = manifest.parts[1].key
    destination.proxy.fault("status", operation="GetObject", path=gone, status=404, code="NoSuchKey")
    sink = sink_at(tmp_path / "there")

    with pytest.raises(StoreCorrupt) as caught:
        deliver(sink, manifest, behind)

    assert (caught.value.code, caught.value.values["key"]) == ("store.missing", gone)
    assert sink.count(manifest, delivery_of(manifest), ctx) == 0


def test_two_workers_with_one_part_make_one_file_whatever_they_are_answered(
    destination: Destination, ctx: Context, lake: MemoryLake
) -> None:
    manifest = run_of(lake, part_count=1)
    destination.proxy.fault(
        "status", operation="PutObject", path="samples/7/", status=409, code="ConditionalRequestConflict", times=2
    )
    barrier = threading.Barrier(2)
    failures: list[IngestError] = []

    def work() -> None:
        barrier.wait()
        try:
            attempt(destination.sink(), manifest, ctx)
        except IngestError as error:
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert failures == []
    assert records(read_pointed(destination.store())) == rows_of(0, 6)
    assert len([info for info in destination.store().list("samples/7/")]) == 1


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"secret_key": "wrong-secret"}, AuthError),
        ({"access_key": "nobody"}, AuthError),
        ({"bucket": "no-such-bucket"}, ConfigError),
        ({"region": "eu-north-9"}, ConfigError),
    ],
    ids=["secret", "key", "bucket", "region"],
)
def test_a_wrong_setting_fails_a_delivery_at_once(
    destination: Destination, ctx: Context, lake: MemoryLake, changes: dict[str, str], kind: type[Exception]
) -> None:
    sink, manifest = destination.sink(**changes), run_of(lake, part_count=1)

    with pytest.raises(kind) as caught:
        sink.stage(manifest.parts[0], delivery_of(manifest), ctx)

    assert "under-test" in str(caught.value)
    assert destination.proxy.count() <= 3


def test_a_missing_file_makes_a_count_smaller_and_never_silently_nothing_else(
    destination: Destination, ctx: Context, lake: MemoryLake
) -> None:
    sink, manifest = destination.sink(), run_of(lake)
    attempt(sink, manifest, ctx)
    destination.proxy.fault("status", operation="HeadObject", path="0-0-000001", status=404, code="NoSuchKey")

    assert sink.count(manifest, delivery_of(manifest), ctx) == 12


def test_a_compaction_through_a_store_that_fails_is_done_in_the_end(
    destination: Destination, ctx: Context, lake: MemoryLake
) -> None:
    sink = destination.sink()
    for run_id in (1, 2, 3):
        part = store_part(lake, rows_of(3 * run_id, 6), run_id=run_id)
        attempt(sink, manifest_of([part], run_id=run_id), ctx)
    destination.proxy.fault("status", status=503, code="SlowDown", share=0.2)
    destination.proxy.fault("lost", share=0.1)

    for _ in range(ATTEMPTS):
        try:
            sink.compact("samples", ctx)
            break
        except SinkUnavailable:
            assert records(read_pointed(destination.store())) == rows_of(3, 12)

    pointer = json.loads(destination.store().read("samples/latest.json"))
    assert pointer["manifests"] == ["samples/manifests/compacted-00000003-0001.json"]
    assert records(read_pointed(destination.store())) == rows_of(3, 12)


def test_a_check_names_the_setting_for_a_store_with_checksums_of_its_own(
    destination: Destination, ctx: Context
) -> None:
    destination.proxy.fault("flip", operation="GetObject")
    report = destination.sink().check(ctx)
    assert "checksum=when_required" in report.findings[-1].detail
