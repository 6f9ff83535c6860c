"""Copies of parts that lie in a bucket: bounded, whole, and used again."""

import os
from pathlib import Path

import pytest

from ingestion.ports.errors import ConfigError, StoreCorrupt
from ingestion.ports.publication import PartView
from ingestion.toolkit.duck.files import local_files
from ingestion.toolkit.lake.local import LocalLake
from tests.toolkit.rows.material import numbered, put_part


class Bucket(LocalLake):
    """A store whose objects have no local files, and which counts how often one is read."""

    opened = 0

    def local_path(self, key: str) -> Path | None:
        return None

    def open(self, key: str):  # type: ignore[no-untyped-def]
        self.opened += 1
        return super().open(key)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path / "bucket")


def put(bucket: Bucket, number: int) -> PartView:
    return put_part(bucket, numbered(100, first=number * 100), link=number)


def test_a_local_part_is_read_where_it_lies(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path / "lake")
    part = put_part(lake, numbered(3))

    assert local_files(lake, [part], folder=tmp_path / "copies", limit_bytes=0) == [lake.local_path(part.key)]
    assert not (tmp_path / "copies").exists()


def test_a_copy_is_made_once_whoever_asks(bucket: Bucket, tmp_path: Path) -> None:
    part = put(bucket, 0)

    first = local_files(bucket, [part, part], folder=tmp_path / "copies", limit_bytes=10_000)
    second = local_files(bucket, [part], folder=tmp_path / "copies", limit_bytes=10_000)

    assert bucket.opened == 1
    assert first == [*second, *second]
    assert first[0].read_bytes() == bucket.read(part.key)


def test_the_longest_unused_copies_make_room(bucket: Bucket, tmp_path: Path) -> None:
    parts = [put(bucket, number) for number in range(4)]
    limit = 2 * max(part.size_bytes for part in parts)
    folder = tmp_path / "copies"
    for age, part in ((9000, parts[0]), (8000, parts[1])):
        (copy,) = local_files(bucket, [part], folder=folder, limit_bytes=limit)
        os.utime(copy, (copy.stat().st_mtime - age,) * 2)

    (third,) = local_files(bucket, [parts[2]], folder=folder, limit_bytes=limit)

    assert {path.stem for path in folder.iterdir()} == {parts[1].sha256, third.stem}
    local_files(bucket, parts[2:], folder=folder, limit_bytes=limit)
    assert {path.stem for path in folder.iterdir()} == {parts[2].sha256, parts[3].sha256}


def test_more_than_may_be_held_is_refused_before_it_is_copied(bucket: Bucket, tmp_path: Path) -> None:
    parts = [put(bucket, number) for number in range(2)]

    with pytest.raises(ConfigError) as caught:
        local_files(bucket, parts, folder=tmp_path / "copies", limit_bytes=parts[0].size_bytes)

    assert caught.value.code == "query.too_large"
    assert bucket.opened == 0


def test_other_bytes_than_were_recorded_are_no_copy(bucket: Bucket, tmp_path: Path) -> None:
    part = put(bucket, 0)
    other = PartView(part.key, 0, 0, 0, rows=part.rows, size_bytes=part.size_bytes, sha256="0" * 64)

    with pytest.raises(StoreCorrupt):
        local_files(bucket, [other], folder=tmp_path / "copies", limit_bytes=10_000)

    assert list((tmp_path / "copies").iterdir()) == []
