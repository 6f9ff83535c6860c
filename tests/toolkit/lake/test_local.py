"""The lake in a folder: atomic, durable, immutable."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingestion.ports.context import ObjectInfo
from ingestion.ports.errors import Cancelled, ConfigError, IngestError, SinkUnavailable, StoreCorrupt
from ingestion.toolkit.lake.keys import sha256_of
from ingestion.toolkit.lake.local import LocalLake, translate_os_error
from ingestion.toolkit.lake.opening import local_path, open_lake

KEY = "raw/samples/7/0-0/000001-0123456789abcdef.zst"


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(tmp_path / "lake")


def files(lake: LocalLake) -> list[str]:
    return sorted(str(path.relative_to(lake.root)) for path in lake.root.rglob("*") if path.is_file())


def test_an_object_reads_back_as_it_was_written(lake: LocalLake) -> None:
    info = lake.put_if_absent(KEY, b"hello world")

    assert (info.size_bytes, info.sha256) == (11, sha256_of(b"hello world"))
    assert lake.read(KEY) == b"hello world"
    assert lake.read(KEY, offset=6) == b"world"
    assert lake.read(KEY, offset=2, length=3) == b"llo"
    assert lake.read(KEY, offset=50, length=3) == b""
    with lake.open(KEY) as stream:
        stream.seek(-5, os.SEEK_END)
        assert stream.read() == b"world"
    assert files(lake) == [KEY]


def test_a_file_is_stored_as_bytes_are(lake: LocalLake, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"x" * 3_000_000)

    info = lake.put_if_absent(KEY, source, sha256=sha256_of(source))

    assert info.size_bytes == 3_000_000
    assert lake.read(KEY) == source.read_bytes()


def test_the_same_content_a_second_time_is_success(lake: LocalLake) -> None:
    first = lake.put_if_absent(KEY, b"same")
    second = lake.put_if_absent(KEY, b"same")

    assert (second.size_bytes, second.sha256) == (first.size_bytes, first.sha256)


def test_other_content_under_the_same_key_is_refused_and_changes_nothing(lake: LocalLake) -> None:
    lake.put_if_absent(KEY, b"first")

    with pytest.raises(StoreCorrupt) as caught:
        lake.put_if_absent(KEY, b"other")

    assert caught.value.code == "store.conflict"
    assert lake.read(KEY) == b"first"
    assert files(lake) == [KEY]


def test_bytes_that_are_not_those_recorded_are_never_stored(lake: LocalLake) -> None:
    with pytest.raises(StoreCorrupt) as caught:
        lake.put_if_absent(KEY, b"bytes", sha256="0" * 64)

    assert caught.value.code == "store.corrupt"
    assert files(lake) == []


def test_a_pointer_moves(lake: LocalLake) -> None:
    lake.put("latest.json", b"1")
    lake.put("latest.json", b"2")

    assert lake.read("latest.json") == b"2"
    assert files(lake) == ["latest.json"]


def test_a_writer_shows_nothing_before_its_commit(lake: LocalLake) -> None:
    writer = lake.writer(KEY)
    for _ in range(40):
        writer.write(b"a" * 1_000_000)
    before = (lake.head(KEY), list(lake.list("")))

    info = writer.commit()
    writer.abort()

    assert before == (None, [])
    assert info == lake_head_with(lake, sha256_of(b"a" * 40_000_000))
    assert writer.commit() is info
    assert files(lake) == [KEY]


def lake_head_with(lake: LocalLake, sha256: str) -> ObjectInfo:
    info = lake.head(KEY)
    assert info is not None
    return ObjectInfo(info.key, info.size_bytes, sha256, info.modified_at)


def test_an_aborted_writer_leaves_nothing(lake: LocalLake) -> None:
    writer = lake.writer(KEY)
    writer.write(b"half")

    writer.abort()
    writer.abort()

    assert files(lake) == []


def test_a_writer_meets_the_same_content_as_success_and_other_content_as_conflict(lake: LocalLake) -> None:
    lake.put_if_absent(KEY, b"same")
    same, other = lake.writer(KEY), lake.writer(KEY)
    same.write(b"same")
    other.write(b"else")

    assert same.commit().sha256 == sha256_of(b"same")
    with pytest.raises(StoreCorrupt):
        other.commit()
    assert lake.read(KEY) == b"same"
    assert files(lake) == [KEY]


def test_a_missing_object_is_missing_and_not_empty(lake: LocalLake) -> None:
    for attempt in (lambda: lake.open(KEY), lambda: lake.read(KEY)):
        with pytest.raises(StoreCorrupt) as caught:
            attempt()
        assert caught.value.code == "store.missing"
    assert lake.head(KEY) is None
    lake.delete(KEY)


def test_list_follows_the_order_of_keys_and_hides_what_is_ours(lake: LocalLake) -> None:
    keys = ["a", "a-b/c", "a.b", "a/b", "a/b.c", "ab/1", "ab/2", "b"]
    for key in ["ab/1", "b", "a/b.c", "a-b/c", "ab/2", "a.b"]:
        lake.put_if_absent(key, b"")
    lake.writer("ab/3")

    assert [info.key for info in lake.list("")] == [key for key in keys if key not in {"a", "a/b"}]
    assert [info.key for info in lake.list("ab/")] == ["ab/1", "ab/2"]
    assert [info.key for info in lake.list("a")] == ["a-b/c", "a.b", "a/b.c", "ab/1", "ab/2"]
    assert list(lake.list("zzz/deep")) == []


def test_delete_takes_away_the_folders_that_became_empty(lake: LocalLake) -> None:
    lake.put_if_absent("a/b/c", b"1")
    lake.put_if_absent("a/d", b"2")

    lake.delete("a/b/c")

    assert not (lake.root / "a/b").exists()
    assert lake.read("a/d") == b"2"


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".w-1", "a/.b", "a\nb", "a\x00", "a\\b", "x" * 201]
)
def test_a_key_that_could_leave_its_place_is_refused(lake: LocalLake, key: str) -> None:
    for attempt in (lake.head, lake.open, lake.writer, lake.delete, lake.local_path):
        with pytest.raises(ConfigError) as caught:
            attempt(key)
        assert caught.value.code == "store.bad_key"
        assert "?" not in str(caught.value)


def test_unicode_and_spaces_are_allowed_in_keys(lake: LocalLake) -> None:
    lake.put_if_absent("uploads/1/Größe 1.csv", b"x")

    assert [info.key for info in lake.list("uploads/1/Gr")] == ["uploads/1/Größe 1.csv"]


def test_of_many_writers_exactly_one_wins(lake: LocalLake) -> None:
    contents = [bytes([65 + number]) * 100_000 for number in range(8)]
    outcomes: list[str] = []
    barrier = threading.Barrier(len(contents))

    def write(content: bytes) -> None:
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

    assert sorted(outcomes) == ["store.conflict"] * 7 + ["won"]
    assert lake.read(KEY) in contents
    assert files(lake) == [KEY]


def test_a_folder_without_hard_links_still_has_one_winner(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    first, second = lake.writer(KEY), lake.writer(KEY)
    first.write(b"first")
    second.write(b"second")

    first.commit()
    with pytest.raises(StoreCorrupt):
        second.commit()

    assert lake.read(KEY) == b"first"
    assert [info.key for info in lake.list("")] == [KEY]


WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from ingestion.toolkit.lake.local import LocalLake
writer = LocalLake(Path(sys.argv[1])).writer(sys.argv[2])
for _ in range(40):
    writer.write(b"k" * 1_000_000)
print("written", flush=True)
time.sleep(60)
"""


def test_a_killed_writer_leaves_nothing_visible_and_its_rest_is_swept(lake: LocalLake) -> None:
    command = [sys.executable, "-c", WRITE_AND_WAIT, str(lake.root), KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)

    assert lake.head(KEY) is None
    assert list(lake.list("")) == []
    assert len(files(lake)) == 1
    assert lake.abort_stale_uploads(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert lake.abort_stale_uploads(datetime.now(UTC) + timedelta(seconds=1)) == 1
    assert files(lake) == []
    lake.put_if_absent(KEY, b"again")


def test_commit_after_a_long_stream_has_little_left_to_write(lake: LocalLake) -> None:
    writer = lake.writer(KEY)
    block = os.urandom(1 << 20)
    for _ in range(200):
        writer.write(block)

    before = time.perf_counter()
    writer.commit()
    elapsed_s = time.perf_counter() - before

    assert elapsed_s < 1.0


def test_every_error_of_the_file_system_has_one_of_ours() -> None:
    for number in errno.errorcode:
        error = translate_os_error(OSError(number, os.strerror(number)))

        assert isinstance(error, IngestError)
        assert error.code in {"store.no_space", "store.config", "store.unavailable"}
    assert translate_os_error(OSError(errno.ENOSPC, "full")).code == "store.no_space"
    assert isinstance(translate_os_error(OSError(errno.EIO, "broken")), SinkUnavailable)


def test_a_full_disk_leaves_no_half_object(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(SinkUnavailable) as caught:
        lake.put_if_absent("full.bin", b"x")

    assert caught.value.code == "store.no_space"
    assert files(lake) == []


def test_a_lake_that_is_a_file_is_a_setting_to_correct(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("not a folder")

    with pytest.raises(ConfigError) as caught:
        LocalLake(tmp_path / "lake").put_if_absent(KEY, b"x")

    assert caught.value.code == "store.config"


def test_addresses_of_local_lakes(tmp_path: Path) -> None:
    by_path, by_url = open_lake(str(tmp_path / "my lake")), open_lake((tmp_path / "my lake").as_uri())
    by_path.put_if_absent(KEY, b"x")

    assert by_url.read(KEY) == b"x"
    assert local_path(by_url, KEY) == tmp_path / "my lake" / KEY
    assert by_url.presign(KEY, expires_s=60).startswith("file:///")
    for url in ["", "ftp://host/x", "file://host/x", "gs://bucket"]:
        with pytest.raises(ConfigError):
            open_lake(url)


def test_who_waits_for_a_large_object_hears_of_progress_and_can_end_it(lake: LocalLake) -> None:
    told: list[int] = []

    def end_it() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        lake.put_if_absent(KEY, b"x" * 3_000_000, beat=end_it)
    left = files(lake)
    lake.put_if_absent(KEY, b"x" * 3_000_000, beat=lambda: told.append(1))

    assert left == []
    assert len(told) == 3


def test_unfinished_writes_can_be_counted_without_removing_them(lake: LocalLake) -> None:
    writer = lake.writer(KEY)
    later = datetime.now(UTC) + timedelta(hours=1)

    counted = [lake.abort_stale_uploads(later, dry_run=dry_run) for dry_run in (True, True, False, False)]

    assert counted == [1, 1, 1, 0]
    writer.abort()
