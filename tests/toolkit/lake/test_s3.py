"""The lake in a bucket: conditional creation, multipart, checksums, and every error of boto3 as one of ours."""

import inspect
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import botocore.endpoint
import botocore.exceptions
import botocore.response
import httpx
import pytest
from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError, ProtocolError

from ingestion.ports.errors import AuthError, ConfigError, IngestError, SinkUnavailable, StoreCorrupt
from ingestion.toolkit.lake import s3, s3_upload
from ingestion.toolkit.lake.keys import sha256_of
from ingestion.toolkit.lake.opening import local_path, open_lake
from ingestion.toolkit.lake.s3 import PROBE_NAME, S3Lake
from ingestion.toolkit.lake.s3_errors import translate
from ingestion.toolkit.lake.s3_options import StorageOptions, parse_s3_url
from tests.servers import Moto, S3Server, VersityGateway

KEY = "raw/samples/7/0-0/000001-0123456789abcdef.zst"
LARGE = os.urandom(1 << 20) * 21
"""More than two parts of 8 MB."""


@pytest.fixture(params=["moto", "versitygw", "rclone"])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


_numbers = iter(range(1, 1_000_000))


def new_bucket(server: S3Server) -> str:
    bucket = f"lake-{os.getpid()}-{next(_numbers)}"
    server.create_bucket(bucket)
    return bucket


def address(server: S3Server, bucket: str, *, prefix: str = "", **options: str) -> str:
    query = urlencode({"endpoint": server.endpoint, "region": server.region, **server.options, **options})
    return f"s3://{bucket}/{prefix}?{query}"


def lake_at(server: S3Server, bucket: str, *, prefix: str = "head gate/lake", **options: str) -> S3Lake:
    url = address(server, bucket, prefix=prefix, **options)
    lake = open_lake(url, access_key=server.access_key, secret_key=server.secret_key)
    assert isinstance(lake, S3Lake)
    return lake


@pytest.fixture
def lake(server: S3Server) -> S3Lake:
    return lake_at(server, new_bucket(server))


@pytest.fixture
def real(versitygw: VersityGateway) -> S3Lake:
    return lake_at(versitygw, new_bucket(versitygw))


def test_an_object_reads_back_as_it_was_written(lake: S3Lake) -> None:
    info = lake.put_if_absent(KEY, b"hello world")

    found = lake.head(KEY)
    assert found is not None
    assert (info.size_bytes, info.sha256) == (11, sha256_of(b"hello world"))
    # Some stores forget what they were told beside the bytes.
    assert (found.size_bytes, found.sha256 or info.sha256) == (info.size_bytes, info.sha256)
    assert lake.read(KEY) == b"hello world"
    assert lake.read(KEY, offset=6) == b"world"
    assert lake.read(KEY, offset=2, length=3) == b"llo"
    assert lake.read(KEY, offset=2, length=0) == b""
    assert lake.read(KEY, offset=50, length=3) == b""
    assert lake.local_path(KEY) is None
    assert local_path(lake, KEY) is None


def test_an_empty_object_is_an_object(lake: S3Lake) -> None:
    lake.put_if_absent(KEY, b"")

    assert lake.read(KEY) == b""
    with lake.open(KEY) as stream:
        assert stream.read() == b""


def test_open_gives_a_seekable_file(lake: S3Lake) -> None:
    lake.put_if_absent(KEY, LARGE)

    with lake.open(KEY) as stream:
        assert stream.seek(-7, os.SEEK_END) == len(LARGE) - 7
        assert stream.read() == LARGE[-7:]
        stream.seek(5_000_000)
        assert stream.read(10) == LARGE[5_000_000:5_000_010]
        stream.seek(0)
        assert sha256_of(stream.read()) == sha256_of(LARGE)
        assert stream.read(1) == b""


def test_the_same_content_a_second_time_is_success(lake: S3Lake, tmp_path: Path) -> None:
    source = tmp_path / "large.bin"
    source.write_bytes(LARGE)

    for content in (b"small", source):
        first = lake.put_if_absent(f"{KEY}{type(content).__name__}", content)
        second = lake.put_if_absent(f"{KEY}{type(content).__name__}", content)

        assert (second.size_bytes, second.sha256) == (first.size_bytes, first.sha256)


@pytest.mark.parametrize("content", [b"other", LARGE], ids=["one request", "many parts"])
def test_other_content_under_the_same_key_is_refused_and_changes_nothing(lake: S3Lake, content: bytes) -> None:
    lake.put_if_absent(KEY, b"first")

    with pytest.raises(StoreCorrupt) as caught:
        lake.put_if_absent(KEY, content)

    assert caught.value.code == "store.conflict"
    assert lake.read(KEY) == b"first"


def test_bytes_that_are_not_those_recorded_are_never_stored(lake: S3Lake) -> None:
    with pytest.raises(StoreCorrupt) as caught:
        lake.put_if_absent(KEY, b"bytes", sha256="0" * 64)

    assert caught.value.code == "store.corrupt"
    assert lake.head(KEY) is None


def test_a_pointer_moves(lake: S3Lake) -> None:
    lake.put("latest.json", b"1")
    lake.put("latest.json", b"2")

    assert lake.read("latest.json") == b"2"


@pytest.mark.parametrize("size_bytes", [0, 5, 8 << 20, (8 << 20) + 1, 40 << 20])
def test_a_writer_shows_nothing_before_its_commit(lake: S3Lake, size_bytes: int) -> None:
    content = (LARGE * 2)[:size_bytes]
    writer = lake.writer(KEY)
    for start in range(0, size_bytes, 1_000_000):
        writer.write(content[start : start + 1_000_000])
    before = (lake.head(KEY), list(lake.list("")))

    info = writer.commit()
    writer.abort()

    assert before == (None, [])
    assert (info.size_bytes, info.sha256) == (size_bytes, sha256_of(content))
    assert writer.commit() is info
    assert sha256_of(lake.read(KEY)) == info.sha256


def test_a_writer_meets_the_same_content_as_success_and_other_content_as_conflict(lake: S3Lake) -> None:
    writers = [lake.writer(KEY) for _ in range(3)]
    for writer, content in zip(writers, [LARGE, LARGE, LARGE[:-1] + bytes([LARGE[-1] ^ 1])], strict=True):
        writer.write(content)

    writers[0].commit()
    assert writers[1].commit().sha256 == sha256_of(LARGE)
    with pytest.raises(StoreCorrupt) as caught:
        writers[2].commit()

    assert caught.value.code == "store.conflict"
    assert sha256_of(lake.read(KEY)) == sha256_of(LARGE)


class EnoughError(Exception):
    """Raised by who was told of progress and wants no more."""


@pytest.mark.parametrize("as_file", [True, False])
def test_who_waits_for_a_large_object_hears_of_progress_and_can_end_it(
    real: S3Lake, tmp_path: Path, as_file: bool
) -> None:
    (tmp_path / "large").write_bytes(LARGE)
    source = tmp_path / "large" if as_file else LARGE
    told: list[int] = []

    def end_it() -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        real.put_if_absent(KEY, source, beat=end_it)
    left = (real.head(KEY), real.abort_stale_uploads(datetime.now(UTC) + timedelta(hours=1)))
    real.put_if_absent(KEY, source, sha256=sha256_of(LARGE), beat=lambda: told.append(1))

    assert left == (None, 0)
    assert len(told) == 3
    assert sha256_of(real.read(KEY)) == sha256_of(LARGE)


def test_a_large_file_that_is_not_what_was_recorded_is_never_stored(real: S3Lake, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(LARGE)

    with pytest.raises(StoreCorrupt) as caught:
        real.put_if_absent(KEY, tmp_path / "large", sha256="0" * 64)

    assert caught.value.code == "store.corrupt"
    assert real.head(KEY) is None
    assert real.abort_stale_uploads(datetime.now(UTC) + timedelta(hours=1)) == 0


def test_an_aborted_writer_leaves_no_upload(real: S3Lake) -> None:
    writer = real.writer(KEY)
    writer.write(LARGE)

    writer.abort()
    writer.abort()

    assert real.abort_stale_uploads(datetime.now(UTC) + timedelta(hours=1)) == 0
    assert list(real.list("")) == []


def test_uploads_that_were_abandoned_are_swept_by_their_age(real: S3Lake) -> None:
    real.start_upload(KEY, sha256=None).add(b"half")

    assert real.abort_stale_uploads(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert real.abort_stale_uploads(datetime.now(UTC) + timedelta(hours=1)) == 1
    assert real.abort_stale_uploads(datetime.now(UTC) + timedelta(hours=1)) == 0


def test_a_missing_object_is_missing_and_not_empty(lake: S3Lake) -> None:
    for attempt in (lambda: lake.open(KEY), lambda: lake.read(KEY), lambda: lake.read(KEY, offset=3)):
        with pytest.raises(StoreCorrupt) as caught:
            attempt()
        assert caught.value.code == "store.missing"
    assert lake.head(KEY) is None
    lake.delete(KEY)


def test_list_follows_the_order_of_keys_and_hides_what_is_ours(lake: S3Lake) -> None:
    for key in ["ab/1", "b", "a/b.c", "a-b/c", "ab/2", "a.b"]:
        lake.put_if_absent(key, b"")

    assert [info.key for info in lake.list("")] == ["a-b/c", "a.b", "a/b.c", "ab/1", "ab/2", "b"]
    assert [info.key for info in lake.list("ab/")] == ["ab/1", "ab/2"]
    lake.delete("ab/1")
    assert [info.key for info in lake.list("ab/")] == ["ab/2"]


def test_two_lakes_of_one_bucket_do_not_see_each_other(server: S3Server) -> None:
    bucket = new_bucket(server)
    one, other = lake_at(server, bucket, prefix="one"), lake_at(server, bucket, prefix="one2")

    one.put_if_absent(KEY, b"1")

    assert other.head(KEY) is None
    assert list(other.list("")) == []


def test_a_key_that_could_leave_its_place_is_refused(real: S3Lake) -> None:
    for key in ["", "/a", "a/../b", "a//b", "a\nb", ".headgate/x"]:
        for attempt in (real.head, real.open, real.writer, real.delete, real.read, real.local_path):
            with pytest.raises(ConfigError):
                attempt(key)


@pytest.mark.parametrize("size_bytes", [100_000, 9 << 20], ids=["one request", "many parts"])
def test_of_many_writers_exactly_one_wins(versitygw: VersityGateway, size_bytes: int) -> None:
    bucket = new_bucket(versitygw)
    contents = [bytes([65 + number]) * size_bytes for number in range(4)]
    outcomes: list[str] = []
    lake_at(versitygw, bucket).put_if_absent("warm", b"")
    barrier = threading.Barrier(len(contents))

    def write(content: bytes) -> None:
        lake = lake_at(versitygw, bucket)
        barrier.wait()
        try:
            lake.put_if_absent(KEY, content)
            outcomes.append("won")
        except StoreCorrupt as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["store.conflict"] * 3 + ["won"]
    assert lake_at(versitygw, bucket).read(KEY) in contents


def without_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the store behave like those clones that take If-None-Match and overwrite all the same."""

    def strip(params: dict[str, Any], **_: Any) -> None:
        params["headers"].pop("If-None-Match", None)

    make = s3.make_client

    def patched(options: Any) -> Any:
        client = make(options)
        for operation in ("PutObject", "CompleteMultipartUpload"):
            client.meta.events.register(f"before-call.s3.{operation}", strip)
        return client

    monkeypatch.setattr(s3, "make_client", patched)


def test_a_store_without_conditional_writes_is_noticed_once_and_asked_first(
    versitygw: VersityGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_conditions(monkeypatch)
    lake = lake_at(versitygw, new_bucket(versitygw))

    lake.put_if_absent(KEY, b"first")
    lake.put_if_absent(KEY, b"first")
    for content in (b"other", LARGE):
        with pytest.raises(StoreCorrupt):
            lake.put_if_absent(KEY, content)

    assert lake.read(KEY) == b"first"


def test_probing_leaves_one_small_object_that_no_reader_sees(versitygw: VersityGateway) -> None:
    bucket = new_bucket(versitygw)
    lake = lake_at(versitygw, bucket, prefix="p")

    lake.put_if_absent(KEY, b"x")

    names = [found["Key"] for found in lake.client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert sorted(names) == sorted([f"p/{PROBE_NAME}", f"p/{KEY}"])
    assert [info.key for info in lake.list("")] == [KEY]


def on_call(lake: S3Lake, operation: str, action: Callable[[], None], *, moment: str = "after-call") -> None:
    """Run `action` once at the next call of the operation."""
    pending = [action]

    def once(**_: Any) -> None:
        if pending:
            pending.pop()()

    lake.client.meta.events.register(f"{moment}.s3.{operation}", once)


def lose_the_answer() -> None:
    raise botocore.exceptions.ConnectionClosedError(endpoint_url="http://store")


@pytest.mark.parametrize(
    ("operation", "content"), [("PutObject", b"small"), ("CompleteMultipartUpload", LARGE)], ids=["small", "large"]
)
def test_a_lost_answer_is_found_out_at_the_second_try(real: S3Lake, operation: str, content: bytes) -> None:
    real.put_if_absent("warm", b"")
    on_call(real, operation, lose_the_answer)

    try:
        info = real.put_if_absent(KEY, content)
    except SinkUnavailable:
        info = real.put_if_absent(KEY, content)

    assert info.sha256 == sha256_of(content)
    assert real.read(KEY) == content


def test_a_completed_upload_whose_answer_was_lost_is_success_at_once(real: S3Lake) -> None:
    real.put_if_absent("warm", b"")
    on_call(real, "CompleteMultipartUpload", lose_the_answer)
    writer = real.writer(KEY)
    writer.write(LARGE)

    assert writer.commit().sha256 == sha256_of(LARGE)


class Refusals:
    """Answers of the store itself for the first calls of an operation, before the real ones."""

    def __init__(self, lake: S3Lake, operation: str, *, status: int, code: str, count: int) -> None:
        self.left = count
        self.sent_count = 0
        self._status = status
        self._body = f"<Error><Code>{code}</Code></Error>".encode()
        lake.client.meta.events.register(f"before-send.s3.{operation}", self._answer)

    def _answer(self, request: Any, **_: Any) -> AWSResponse | None:
        self.sent_count += 1
        if not self.left:
            return None
        self.left -= 1
        answer = AWSResponse(request.url, self._status, HeadersDict(), None)
        answer._content = self._body
        return answer


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.endpoint.time, "sleep", lambda _: None)


@pytest.mark.usefixtures("no_pauses")
def test_a_store_that_asks_to_slow_down_is_asked_again_but_not_for_ever(real: S3Lake) -> None:
    real.put_if_absent("warm", b"")
    some = Refusals(real, "PutObject", status=503, code="SlowDown", count=2)
    real.put_if_absent(KEY, b"x")
    sent_count = some.sent_count

    some.left = 99
    with pytest.raises(SinkUnavailable) as caught:
        real.put_if_absent("other", b"x")

    assert sent_count == 3
    assert some.sent_count - sent_count <= 5
    assert "SlowDown" in str(caught.value)


@pytest.mark.usefixtures("no_pauses")
def test_two_writers_at_the_same_instant_are_sorted_out(real: S3Lake) -> None:
    real.put_if_absent("warm", b"")
    refused = Refusals(real, "PutObject", status=409, code="ConditionalRequestConflict", count=2)

    real.put_if_absent(KEY, b"x")
    refused.left = 99

    with pytest.raises(SinkUnavailable):
        real.put_if_absent("other", b"x")
    assert real.read(KEY) == b"x"


def test_damage_on_the_way_is_refused_by_the_store(real: S3Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_base64", lambda _: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")

    with pytest.raises(IngestError) as caught:
        real.put_if_absent(KEY, b"x")

    assert isinstance(caught.value, (ConfigError, SinkUnavailable))
    assert real.head(KEY) is None


def test_a_store_that_keeps_other_bytes_is_caught_after_the_upload(versitygw: VersityGateway) -> None:
    lake = lake_at(versitygw, new_bucket(versitygw), checksum="when_required")

    def spoil() -> None:
        name = f"head gate/lake/{KEY}"
        lake.client.put_object(Bucket=lake._options.bucket, Key=name, Body=b"evil", Metadata={})

    lake.put_if_absent("warm", b"")
    on_call(lake, "HeadObject", spoil, moment="before-call")

    with pytest.raises(SinkUnavailable):
        lake.put_if_absent(KEY, b"good")

    assert lake.head(KEY) is None
    lake.put_if_absent(KEY, b"good")


def overtake(lake: S3Lake, other: S3Lake, key: str) -> None:
    """Let another writer replace the object after ours was accepted and before it is looked at."""
    on_call(lake, "HeadObject", lambda: other.put(key, b"theirs") and None, moment="before-call")


def test_a_pointer_that_another_writer_moves_at_the_same_time_stays_theirs(versitygw: VersityGateway) -> None:
    bucket = new_bucket(versitygw)
    lake, other = lake_at(versitygw, bucket), lake_at(versitygw, bucket)
    overtake(lake, other, "latest.json")

    lake.put("latest.json", b"ours")

    assert lake.read("latest.json") == b"theirs"


def test_without_conditional_writes_an_object_that_another_writer_made_stays_theirs(
    versitygw: VersityGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_conditions(monkeypatch)
    bucket = new_bucket(versitygw)
    lake, other = lake_at(versitygw, bucket), lake_at(versitygw, bucket)
    lake.put_if_absent("warm", b"")
    # The first HEAD asks whether the object is there, the second looks at what was stored.
    on_call(lake, "PutObject", lambda: overtake(lake, other, KEY))

    with pytest.raises(StoreCorrupt) as caught:
        lake.put_if_absent(KEY, b"ours")

    assert caught.value.code == "store.conflict"
    assert lake.read(KEY) == b"theirs"


@pytest.mark.parametrize("checksum", ["when_supported", "when_required"])
def test_both_ways_of_checksums_store_the_same(server: S3Server, checksum: str) -> None:
    lake = lake_at(server, new_bucket(server), checksum=checksum)

    lake.put_if_absent("small", b"x")
    lake.put_if_absent("large", LARGE)

    assert lake.read("small") == b"x"
    assert sha256_of(lake.read("large")) == sha256_of(LARGE)


STORAGE = StorageOptions(encryption="AES256", tags={"team": "materials", "cost centre": "47/1"})


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["one request", "many parts"])
def test_objects_are_encrypted_and_tagged_as_asked(moto: Moto, content: bytes) -> None:
    bucket = new_bucket(moto)
    url = address(moto, bucket)
    lake = open_lake(url, access_key=moto.access_key, secret_key=moto.secret_key, storage=STORAGE)
    assert isinstance(lake, S3Lake)

    lake.put_if_absent(KEY, content)

    found = lake.client.head_object(Bucket=bucket, Key=KEY)
    tags = lake.client.get_object_tagging(Bucket=bucket, Key=KEY)["TagSet"]
    assert found["ServerSideEncryption"] == "AES256"
    assert {tag["Key"]: tag["Value"] for tag in tags} == STORAGE.tags


def test_a_key_of_a_key_service_goes_with_every_object_and_the_probe() -> None:
    storage = StorageOptions(encryption="aws:kms", kms_key="arn:aws:kms:eu-west-1:1:key/2")

    assert storage.arguments() == {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "arn:aws:kms:eu-west-1:1:key/2",
    }
    assert StorageOptions().arguments() == {}


def test_a_real_server_keeps_the_tags(versitygw: VersityGateway) -> None:
    bucket = new_bucket(versitygw)
    storage = StorageOptions(tags=STORAGE.tags)
    lake = open_lake(
        address(versitygw, bucket),
        access_key=versitygw.access_key,
        secret_key=versitygw.secret_key,
        storage=storage,
    )
    assert isinstance(lake, S3Lake)

    lake.put_if_absent(KEY, LARGE)

    tags = lake.client.get_object_tagging(Bucket=bucket, Key=KEY)["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == STORAGE.tags


def test_a_checksum_of_the_whole_is_kept_by_the_store(real: S3Lake) -> None:
    real.put_if_absent(KEY, LARGE)

    found = real.client.head_object(Bucket=real._options.bucket, Key=f"head gate/lake/{KEY}", ChecksumMode="ENABLED")
    assert found["ChecksumSHA256"].endswith("-3")
    assert found["Metadata"]["sha256"] == sha256_of(LARGE)


def test_an_answer_that_breaks_off_is_read_again(real: S3Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    real.put_if_absent(KEY, b"x" * 1000)
    broken = [2]
    read = botocore.response.StreamingBody.read

    def breaking(body: Any, *args: Any, **kwargs: Any) -> bytes:
        if broken[0]:
            broken[0] -= 1
            raise botocore.exceptions.ResponseStreamingError(error="cut")
        data: bytes = read(body, *args, **kwargs)
        return data

    monkeypatch.setattr(botocore.response.StreamingBody, "read", breaking)

    assert real.read(KEY) == b"x" * 1000
    broken[0] = 99
    with pytest.raises(SinkUnavailable):
        real.read(KEY)


def test_a_signed_address_reads_one_object_until_it_expires(real: S3Lake) -> None:
    real.put_if_absent(KEY, b"signed")

    url = real.presign(KEY, expires_s=60)

    assert "X-Amz-Signature=" in url
    assert httpx.get(url).content == b"signed"
    assert httpx.get(url.replace("000001", "000002")).status_code == httpx.codes.FORBIDDEN


def test_wrong_credentials_are_a_matter_for_a_person(versitygw: VersityGateway) -> None:
    canary = "canary-7f3a91-secret"
    bucket = new_bucket(versitygw)
    wrong = [(versitygw.access_key, canary), (canary, versitygw.secret_key)]

    for access_key, secret_key in wrong:
        lake = open_lake(address(versitygw, bucket), access_key=access_key, secret_key=secret_key)
        for attempt in (lambda lake=lake: lake.put_if_absent(KEY, b"x"), lambda lake=lake: lake.head(KEY)):
            with pytest.raises(AuthError) as caught:
                attempt()
            assert caught.value.code == "store.auth"
            assert canary not in f"{caught.value} {caught.value!r} {lake!r} {caught.value.__cause__!r}"


def test_a_bucket_that_is_not_there_is_a_setting_to_correct(server: S3Server) -> None:
    lake = lake_at(server, "no-such-bucket")

    for attempt in (lambda: lake.put_if_absent(KEY, b"x"), lambda: lake.head(KEY), lambda: list(lake.list(""))):
        with pytest.raises(ConfigError) as caught:
            attempt()
        assert "no such bucket" in str(caught.value)


def test_a_store_that_does_not_listen_is_tried_again_later() -> None:
    lake = open_lake("s3://bucket?endpoint=http://127.0.0.1:9", access_key="a", secret_key="b")

    with pytest.raises(SinkUnavailable) as caught:
        lake.head(KEY)

    assert "127.0.0.1:9" in str(caught.value)


def test_a_child_process_gets_a_client_of_its_own(real: S3Lake) -> None:
    mine = real.client
    real._made = (os.getpid() + 1, mine)

    assert real.client is not mine


def test_giants_get_parts_that_stay_below_the_allowed_number() -> None:
    assert s3_upload.part_bytes(100 << 20) == 8 << 20
    for size_bytes in (100 << 30, 5 << 40):
        assert size_bytes / s3_upload.part_bytes(size_bytes) <= 9_000


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://a/b",
        "s3://bucket/../x",
        "s3://bucket?colour=canary",
        "s3://bucket?region=a&region=canary",
        "s3://bucket?endpoint=canary",
        "s3://bucket?endpoint=ftp://canary",
        "s3://bucket?endpoint=http://user:canary@host",
        "s3://bucket?endpoint=http://host:99999999",
        "s3://bucket?path_style=canary",
        "s3://bucket?checksum=canary",
        "s3://bucket?access_key=canary",
        "s3://canary:canary@bucket/x",
    ],
)
def test_an_address_with_a_mistake_is_refused_without_repeating_its_values(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_lake(url)

    assert "canary" not in f"{caught.value} {caught.value!r} {caught.value.values}"


def test_options_say_what_the_address_says() -> None:
    options = parse_s3_url("s3://bucket/a/b/?endpoint=http://h:9000/&access_key=k%2F1&secret_key=s%2B2&path_style=0")

    assert (options.bucket, options.prefix, options.endpoint) == ("bucket", "a/b", "http://h:9000")
    assert (options.access_key, options.secret_key, options.path_style) == ("k/1", "s+2", False)
    assert "s+2" not in repr(options)
    assert "s+2" not in repr(S3Lake(options))
    assert parse_s3_url("s3://bucket").region is None


CODES = {
    "AccessDenied": "store.auth",
    "InvalidAccessKeyId": "store.auth",
    "SignatureDoesNotMatch": "store.auth",
    "ExpiredToken": "store.auth",
    "RequestTimeTooSkewed": "store.auth",
    "403": "store.auth",
    "NoSuchBucket": "store.config",
    "PermanentRedirect": "store.config",
    "AuthorizationHeaderMalformed": "store.config",
    "EntityTooLarge": "store.config",
    "301": "store.config",
    "400": "store.config",
    "501": "store.config",
    "InternalError": "store.unavailable",
    "SlowDown": "store.unavailable",
    "ServiceUnavailable": "store.unavailable",
    "RequestTimeout": "store.unavailable",
    "ConditionalRequestConflict": "store.unavailable",
    "NoSuchUpload": "store.unavailable",
    "429": "store.unavailable",
    "503": "store.unavailable",
    "NoSuchKey": "store.missing",
    "404": "store.missing",
    "PreconditionFailed": "store.conflict",
    "XMinioStorageFull": "store.no_space",
    "507": "store.no_space",
    "SomethingNew": "store.unavailable",
    "": "store.unavailable",
}


@pytest.mark.parametrize(("code", "expected"), CODES.items())
def test_every_code_of_a_store_has_one_of_ours(code: str, expected: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "canary"}}, "PutObject")

    ours = translate(error, key=KEY, where="http://store")

    assert ours.code == expected
    assert "canary" not in str(ours)
    assert "?" not in str(ours)


@pytest.mark.parametrize("status", range(300, 600))
def test_an_unknown_code_is_judged_by_its_status(status: int) -> None:
    answer: Any = {"Error": {"Code": "<html>canary"}, "ResponseMetadata": {"HTTPStatusCode": status}}

    ours = translate(ClientError(answer, "PutObject"), key=KEY, where="http://store")

    assert ours.code in {"store.auth", "store.config", "store.unavailable", "store.no_space"}
    assert isinstance(ours, SinkUnavailable) or status < 500 or status == 501
    assert "canary" not in str(ours)


def test_every_code_that_the_model_of_s3_names_is_known() -> None:
    lake = open_lake("s3://bucket?region=us-east-1", access_key="a", secret_key="b")
    assert isinstance(lake, S3Lake)

    for shape in lake.client.meta.service_model.error_shapes:
        ours = translate(ClientError({"Error": {"Code": shape.name}}, "GetObject"), key=KEY, where="x")
        assert ours.code.startswith("store.")


def example(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, "canary")
    return error


def test_every_error_class_of_botocore_has_one_of_ours() -> None:
    classes = [kind for _, kind in inspect.getmembers(botocore.exceptions, inspect.isclass)]
    seen = {}
    for kind in classes:
        if issubclass(kind, BotoCoreError):
            ours = translate(example(kind), key=KEY, where="http://store")
            assert ours.code in {"store.auth", "store.config", "store.unavailable"}
            assert "canary" not in str(ours)
            seen[kind.__name__] = ours.code

    assert seen["NoCredentialsError"] == seen["SSOTokenLoadError"] == "store.auth"
    assert seen["EndpointConnectionError"] == seen["ReadTimeoutError"] == seen["IncompleteReadError"]
    assert seen["IncompleteReadError"] == "store.unavailable"
    assert seen["NoRegionError"] == seen["SSLError"] == seen["ParamValidationError"] == "store.config"
    for other in (HTTPError("x"), ProtocolError("x")):
        assert translate(other, key=KEY, where="x").code == "store.unavailable"
