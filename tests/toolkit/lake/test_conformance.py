"""One contract for all stores: a folder, a real S3 server, and those that are nearly like one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.lake.local import LocalLake
from ingestion.toolkit.lake.opening import ObjectStore
from ingestion.toolkit.lake.s3 import PROBE_NAME, S3Lake
from tests.conformance.lake import KEY, MEGABYTE, SMALL, CreateOnceConformance, LakeConformance
from tests.servers import S3Server
from tests.toolkit.lake.buckets import lake_at


class TestFolder(CreateOnceConformance):
    """A folder of this machine."""

    writer_sizes: ClassVar[tuple[int, ...]] = (0, 5, 40 * MEGABYTE)
    told_of_large = 17
    rivals = 8

    @pytest.fixture
    def renewed(self, tmp_path: Path) -> None:
        self.root = tmp_path / "lake"

    def make_lake(self) -> LocalLake:
        return LocalLake(self.root)

    def traces(self, lake: ObjectStore) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())

    def reopen(self, lake: ObjectStore) -> LocalLake:
        return LocalLake(self.root)

    def leave_unfinished(self, lake: ObjectStore) -> None:
        lake.writer(KEY).write(SMALL)


class InABucket(LakeConformance):
    """A bucket of one of the servers."""

    server_name: ClassVar[str]

    @pytest.fixture
    def renewed(self, request: pytest.FixtureRequest) -> None:
        self.server: S3Server = request.getfixturevalue(self.server_name)

    def make_lake(self) -> S3Lake:
        return lake_at(self.server)

    def traces(self, lake: ObjectStore) -> list[str]:
        """Return every object of the bucket but the one that probing leaves, and every upload that goes on."""
        assert isinstance(lake, S3Lake)
        found = lake.client.list_objects_v2(Bucket=lake._options.bucket).get("Contents", [])
        names = sorted(entry["Key"].removeprefix(lake._base) for entry in found)
        uploads = lake.abort_stale_uploads(datetime.now(UTC) + timedelta(hours=1), dry_run=True)
        return [name for name in names if name != PROBE_NAME] + ["upload"] * uploads

    def test_nothing_of_it_is_a_local_file(self, lake: ObjectStore) -> None:
        lake.put_if_absent(KEY, SMALL)

        assert lake.local_path(KEY) is None

    def test_two_lakes_of_one_bucket_do_not_see_each_other(self, lake: S3Lake) -> None:
        one, other = (lake_at(self.server, lake._options.bucket, prefix=prefix) for prefix in ("one", "one2"))

        one.put_if_absent(KEY, b"1")

        assert other.head(KEY) is None
        assert list(other.list("")) == []

    def test_a_bucket_that_is_not_there_is_a_setting_to_correct(self, renewed: None) -> None:
        lake = lake_at(self.server, "no-such-bucket")

        for attempt in (lambda: lake.put_if_absent(KEY, b"x"), lambda: lake.head(KEY), lambda: list(lake.list(""))):
            with pytest.raises(ConfigError) as caught:
                attempt()
            assert "no such bucket" in str(caught.value)


class TestVersityGateway(InABucket, CreateOnceConformance):
    """A real S3 server, which does all that S3 promises."""

    server_name = "versitygw"

    def reopen(self, lake: ObjectStore) -> S3Lake:
        assert isinstance(lake, S3Lake)
        return lake_at(self.server, lake._options.bucket)

    def leave_unfinished(self, lake: ObjectStore) -> None:
        assert isinstance(lake, S3Lake)
        lake.start_upload(KEY, sha256=None).add(b"half")


class TestMoto(InABucket):
    """Moto, on which many tests stand."""

    server_name = "moto"


class TestRclone(InABucket):
    """A clone that takes If-None-Match and overwrites all the same, and whose checksums are odd."""

    server_name = "rclone"
