"""The lake behind a proxy that lets things go wrong on the way to a real S3 server: reliability faults F15 to F19.

The numbers are those of the fault table that the design was tested against: overload, lost answers, cut bodies,
missing objects, two writers at once; and credentials, buckets and regions that are wrong.
"""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import botocore.endpoint
import httpx
import pytest

from ingestion.ports.errors import AuthError, ConfigError, SinkUnavailable, StoreCorrupt
from ingestion.toolkit.lake import s3_client
from ingestion.toolkit.lake.keys import sha256_of
from ingestion.toolkit.lake.s3 import S3Lake
from ingestion.toolkit.lake.s3_client import TRIES
from tests.conformance.lake import KEY, LARGE
from tests.fakes.s3_proxy import S3Proxy
from tests.servers import VersityGateway, wait_until
from tests.toolkit.lake.buckets import lake_at, new_bucket

SMALL = b"rows" * 1000
CANARY = "canary-7f3a91-secret"


@pytest.fixture
def proxy(versitygw: VersityGateway) -> Iterator[S3Proxy]:
    with S3Proxy(versitygw.endpoint) as running:
        yield running


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for between tries, none of which is waited for."""
    asked: list[float] = []
    monkeypatch.setattr(botocore.endpoint.time, "sleep", asked.append)
    return asked


def lake_behind(proxy: S3Proxy, server: VersityGateway, bucket: str = "", **changes: str) -> S3Lake:
    return lake_at(server, bucket or new_bucket(server), **{"endpoint": proxy.endpoint, **changes})


@pytest.fixture
def lake(proxy: S3Proxy, versitygw: VersityGateway) -> S3Lake:
    """A lake whose store is known to have conditional writes, and no call counted yet."""
    found = lake_behind(proxy, versitygw)
    found.put_if_absent("warm", b"")
    proxy.mend()
    return found


def stream_in(lake: S3Lake, key: str, content: bytes) -> None:
    writer = lake.writer(key)
    try:
        writer.write(content)
        writer.commit()
    finally:
        writer.abort()


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError")])
def test_a_third_of_calls_failing_costs_pauses_and_no_more_than_the_allowed_tries(
    proxy: S3Proxy, lake: S3Lake, pauses: list[float], status: int, code: str
) -> None:
    fault = proxy.fault("status", status=status, code=code, share=0.3)
    asked = 0
    keys = [f"{KEY}-{number}" for number in range(20)]

    for key in keys:
        for _ in range(5):
            asked += 1
            try:
                lake.put_if_absent(key, SMALL)
                break
            except SinkUnavailable:
                pass
        else:
            pytest.fail(f"{key} was not stored in five attempts")
    calls, failures = proxy.count(), fault.hits
    proxy.mend()

    assert failures
    # A put is one request and one look at what is stored, each sent as often as is allowed.
    assert calls <= asked * 2 * TRIES
    assert len(pauses) >= failures - asked
    assert all(lake.read(key) == SMALL for key in keys)


def test_a_store_that_answers_nothing_but_busy_is_left_alone_after_the_allowed_tries(
    proxy: S3Proxy, lake: S3Lake, pauses: list[float]
) -> None:
    proxy.fault("status", status=503, code="SlowDown")

    with pytest.raises(SinkUnavailable) as caught:
        lake.put_if_absent(KEY, SMALL)

    assert caught.value.code == "store.unavailable"
    assert "SlowDown" in str(caught.value)
    assert proxy.count() == TRIES
    assert len(pauses) == TRIES - 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients made from now on give up on an answer after a second."""
    monkeypatch.setattr(s3_client, "READ_TIMEOUT_S", 1)


@pytest.mark.parametrize("kind", ["lost", "hang"])
@pytest.mark.parametrize(
    ("operation", "content"),
    [("PutObject", SMALL), ("UploadPart", LARGE), ("CompleteMultipartUpload", LARGE)],
)
@pytest.mark.usefixtures("pauses", "impatient")
def test_a_write_that_was_done_and_not_answered_is_success_after_a_look_at_its_hash(
    proxy: S3Proxy, versitygw: VersityGateway, kind: str, operation: str, content: bytes
) -> None:
    lake = lake_behind(proxy, versitygw)
    lake.put_if_absent("warm", b"")
    proxy.mend()
    fault = proxy.fault(kind, operation=operation, times=1)

    stream_in(lake, KEY, content)

    assert fault.hits == 1
    assert proxy.count(operation) <= 1 + (3 if operation == "UploadPart" else 1)
    assert sha256_of(lake.read(KEY)) == sha256_of(content)
    assert lake.abort_stale_uploads(datetime.now(UTC) + timedelta(hours=1)) == 0


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["one request", "many ranges"])
@pytest.mark.usefixtures("pauses")
def test_a_body_that_is_cut_on_the_way_is_read_again(proxy: S3Proxy, lake: S3Lake, content: bytes) -> None:
    lake.put_if_absent(KEY, content)
    proxy.mend()
    fault = proxy.fault("cut", operation="GetObject", times=2)

    with lake.open(KEY) as stream:
        found = stream.read()

    assert fault.hits == 2
    assert sha256_of(found) == sha256_of(content)


@pytest.mark.usefixtures("pauses")
def test_a_body_that_is_always_cut_is_the_stores_matter_after_a_few_tries(proxy: S3Proxy, lake: S3Lake) -> None:
    lake.put_if_absent(KEY, SMALL)
    proxy.mend()
    proxy.fault("cut", operation="GetObject")

    with pytest.raises(SinkUnavailable):
        lake.read(KEY)

    assert proxy.count("GetObject") <= TRIES


@pytest.mark.parametrize("kind", ["short", "flip"])
def test_a_body_that_looks_whole_and_is_not_is_told_by_its_checksum_and_read_again(
    proxy: S3Proxy, lake: S3Lake, kind: str
) -> None:
    lake.put_if_absent(KEY, SMALL)
    proxy.fault(kind, operation="GetObject", times=2)

    with lake.open(KEY) as stream:
        found = stream.read()

    assert found == SMALL


def test_an_object_that_is_listed_and_gone_is_missing_and_not_empty(proxy: S3Proxy, lake: S3Lake) -> None:
    lake.put_if_absent(KEY, SMALL)
    proxy.fault("status", operation="GetObject", status=404, code="NoSuchKey")
    assert [info.key for info in lake.list("raw/")] == [KEY]

    for attempt in (lambda: lake.read(KEY), lambda: lake.open(KEY).read()):
        with pytest.raises(StoreCorrupt) as caught:
            attempt()
        assert (caught.value.code, caught.value.values["key"]) == ("store.missing", KEY)


@pytest.mark.usefixtures("pauses")
def test_a_store_that_never_says_which_writer_has_won_is_tried_again_later(proxy: S3Proxy, lake: S3Lake) -> None:
    refused = proxy.fault("status", operation="PutObject", status=409, code="ConditionalRequestConflict", times=2)
    lake.put_if_absent(KEY, SMALL)
    proxy.fault("status", operation="PutObject", status=409, code="ConditionalRequestConflict")

    with pytest.raises(SinkUnavailable):
        lake.put_if_absent("other", SMALL)

    assert refused.hits == 2
    assert lake.read(KEY) == SMALL


@pytest.mark.parametrize(("operation", "content"), [("PutObject", SMALL), ("CompleteMultipartUpload", LARGE)])
def test_two_writers_of_one_key_make_one_object_whatever_the_store_answers_them(
    proxy: S3Proxy, lake: S3Lake, operation: str, content: bytes
) -> None:
    proxy.fault("status", operation=operation, status=409, code="ConditionalRequestConflict", times=1)
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def write() -> None:
        barrier.wait()
        for _ in range(3):
            try:
                stream_in(lake, KEY, content)
            except SinkUnavailable:
                continue
            outcomes.append("stored")
            return

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert outcomes == ["stored", "stored"]
    assert sha256_of(lake.read(KEY)) == sha256_of(content)
    assert [info.key for info in lake.list("raw/")] == [KEY]
    assert lake.abort_stale_uploads(datetime.now(UTC) + timedelta(hours=1)) == 0


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"secret_key": CANARY}, AuthError),
        ({"access_key": CANARY}, AuthError),
        ({"bucket": "no-such-bucket"}, ConfigError),
    ],
    ids=["secret", "key", "bucket"],
)
def test_a_wrong_setting_is_said_at_once_and_not_tried_again(
    proxy: S3Proxy, versitygw: VersityGateway, changes: dict[str, str], kind: type[Exception]
) -> None:
    lake = lake_behind(proxy, versitygw, **changes)
    calls = []

    for attempt in (
        lambda: lake.head(KEY),
        lambda: list(lake.list("")),
        lambda: lake.read(KEY),
        lambda: lake.put_if_absent(KEY, SMALL),
        lambda: stream_in(lake, KEY, LARGE),
    ):
        proxy.mend()
        with pytest.raises(kind) as caught:
            attempt()
        calls.append(proxy.count())
        assert CANARY not in f"{caught.value} {caught.value!r} {lake!r} {caught.value.__cause__!r}"

    assert max(calls) <= 3


def test_a_wrong_region_is_said_at_once_and_never_tried_in_a_storm(proxy: S3Proxy, versitygw: VersityGateway) -> None:
    lake = lake_behind(proxy, versitygw, region="eu-north-9")
    proxy.mend()

    with pytest.raises(ConfigError) as caught:
        lake.head(KEY)

    assert "region" in str(caught.value)
    assert proxy.count() <= 3


def test_who_only_reads_never_asks_the_store_to_write(proxy: S3Proxy, versitygw: VersityGateway, lake: S3Lake) -> None:
    lake.put_if_absent(KEY, SMALL)
    reader = lake_behind(proxy, versitygw, lake._options.bucket)
    proxy.mend()

    assert reader.head(KEY) is not None
    assert reader.read(KEY, offset=4, length=4) == b"rows"
    assert [info.key for info in reader.list("raw/")] == [KEY]
    assert httpx.get(reader.presign(KEY, expires_s=60)).content == SMALL

    assert {call.method for call in proxy.calls} <= {"GET", "HEAD"}


def test_a_signed_address_gives_ranges_and_ends_when_it_said(versitygw: VersityGateway, lake: S3Lake) -> None:
    direct = lake_at(versitygw, lake._options.bucket)
    lake.put_if_absent(KEY, SMALL)
    url = direct.presign(KEY, expires_s=60)
    short = direct.presign(KEY, expires_s=1)

    whole = httpx.get(url, headers={"Range": "bytes=0-"})
    middle = httpx.get(url, headers={"Range": "bytes=4-7"})

    assert "X-Amz-Signature=" in url
    assert httpx.get(url.replace("000001", "000002")).status_code == httpx.codes.FORBIDDEN
    assert (whole.status_code, whole.content) == (206, SMALL)
    assert (middle.status_code, middle.content) == (206, SMALL[4:8])
    wait_until(lambda: httpx.get(short).status_code in {400, 403}, what="the end of the address", patience_s=10)
    assert httpx.get(url, headers={"Range": "bytes=0-3"}).content == SMALL[:4]
