"""The lake in a bucket, beside the contract of all stores (`test_conformance.py`): races, checksums, tags, parts."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from ingestion.ports.errors import ConfigError, IngestError, SinkUnavailable, StoreCorrupt
from ingestion.toolkit.lake import s3, s3_upload
from ingestion.toolkit.lake.keys import sha256_of
from ingestion.toolkit.lake.opening import open_lake
from ingestion.toolkit.lake.s3 import PROBE_NAME, S3Lake
from ingestion.toolkit.lake.s3_options import StorageOptions
from tests.conformance.lake import KEY, LARGE
from tests.servers import Moto, S3Server, VersityGateway
from tests.toolkit.lake.buckets import lake_at, new_bucket


@pytest.fixture
def real(versitygw: VersityGateway) -> S3Lake:
    return lake_at(versitygw)


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


def test_damage_on_the_way_is_refused_by_the_store(real: S3Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_base64", lambda _: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")

    with pytest.raises(IngestError) as caught:
        real.put_if_absent(KEY, b"x")

    assert isinstance(caught.value, (ConfigError, SinkUnavailable))
    assert real.head(KEY) is None


def test_a_store_that_keeps_other_bytes_is_caught_after_the_upload(versitygw: VersityGateway) -> None:
    lake = lake_at(versitygw, checksum="when_required")

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


@pytest.mark.parametrize(
    ("kind", "checksum"),
    [("moto", "when_required"), ("versitygw", "when_required"), ("rclone", "when_supported")],
)
def test_the_other_way_of_checksums_stores_the_same(kind: str, checksum: str, request: pytest.FixtureRequest) -> None:
    """The contract of all stores goes the way that each server has by itself."""
    server: S3Server = request.getfixturevalue(kind)
    lake = lake_at(server, checksum=checksum)

    lake.put_if_absent("small", b"x")
    lake.put_if_absent("large", LARGE)

    assert lake.read("small") == b"x"
    assert sha256_of(lake.read("large")) == sha256_of(LARGE)


STORAGE = StorageOptions(encryption="AES256", tags={"team": "materials", "cost centre": "47/1"})


def tags_of(lake: S3Lake, key: str) -> dict[str, str]:
    """Return the tags that the store keeps with an object."""
    name = f"head gate/lake/{key}"
    found = lake.client.get_object_tagging(Bucket=lake._options.bucket, Key=name)["TagSet"]
    return {tag["Key"]: tag["Value"] for tag in found}


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["one request", "many parts"])
def test_objects_are_encrypted_and_tagged_as_asked(moto: Moto, content: bytes) -> None:
    lake = lake_at(moto, storage=STORAGE)

    lake.put_if_absent(KEY, content)

    found = lake.client.head_object(Bucket=lake._options.bucket, Key=f"head gate/lake/{KEY}")
    assert found["ServerSideEncryption"] == "AES256"
    assert tags_of(lake, KEY) == STORAGE.tags


def test_a_key_of_a_key_service_goes_with_every_object_and_the_probe() -> None:
    storage = StorageOptions(encryption="aws:kms", kms_key="arn:aws:kms:eu-west-1:1:key/2")

    assert storage.arguments() == {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "arn:aws:kms:eu-west-1:1:key/2",
    }
    assert StorageOptions().arguments() == {}


def test_a_real_server_keeps_the_tags(versitygw: VersityGateway) -> None:
    lake = lake_at(versitygw, storage=StorageOptions(tags=STORAGE.tags))

    lake.put_if_absent(KEY, LARGE)

    assert tags_of(lake, KEY) == STORAGE.tags


def test_a_checksum_of_the_whole_is_kept_by_the_store(real: S3Lake) -> None:
    real.put_if_absent(KEY, LARGE)

    found = real.client.head_object(Bucket=real._options.bucket, Key=f"head gate/lake/{KEY}", ChecksumMode="ENABLED")
    assert found["ChecksumSHA256"].endswith("-3")
    assert found["Metadata"]["sha256"] == sha256_of(LARGE)


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
