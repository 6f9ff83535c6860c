"""The lake in a folder, beside the contract of all stores (`test_conformance.py`): links, kills, full disks, addresses."""

import errno
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingestion.ports.errors import ConfigError, IngestError, SinkUnavailable, StoreCorrupt
from ingestion.toolkit.lake.local import LocalLake, translate_os_error
from ingestion.toolkit.lake.opening import open_lake
from tests.conformance.lake import KEY


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(tmp_path / "lake")


def files(lake: LocalLake) -> list[str]:
    return sorted(str(path.relative_to(lake.root)) for path in lake.root.rglob("*") if path.is_file())


def test_delete_takes_away_the_folders_that_became_empty(lake: LocalLake) -> None:
    lake.put_if_absent("a/b/c", b"1")
    lake.put_if_absent("a/d", b"2")

    lake.delete("a/b/c")

    assert not (lake.root / "a/b").exists()
    assert lake.read("a/d") == b"2"


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
    assert by_url.local_path(KEY) == tmp_path / "my lake" / KEY
    assert by_url.presign(KEY, expires_s=60).startswith("file:///")
    for url in ["", "ftp://host/x", "file://host/x", "gs://bucket"]:
        with pytest.raises(ConfigError):
            open_lake(url)
