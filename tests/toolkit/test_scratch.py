"""Folders of a process: there while it lives, gone afterwards, and swept where it was killed."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingestion.toolkit import scratch
from ingestion.toolkit.scratch import scratch_folder, sweep_scratch

DAY_S = 86_400
KILLED = """
import sys, time
from pathlib import Path
from ingestion.toolkit.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), "druid-merge") as folder:
    (folder / "spill").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(600)
"""


def a_day_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=1)


def age(folder: Path, *, by_s: float = 2 * DAY_S) -> None:
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() - by_s,) * 2)


def test_a_folder_is_the_process_s_own_and_gone_afterwards(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "scratch", "query") as first, scratch_folder(tmp_path / "scratch", "query") as other:
        (first / "file").write_bytes(b"x")

        assert first != other
        assert first.name.startswith("query-")
        assert first.stat().st_mode & 0o777 == 0o700

    assert list((tmp_path / "scratch").iterdir()) == []


def test_it_is_gone_after_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), scratch_folder(tmp_path, "query"):
        raise RuntimeError

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_what_a_live_one_uses_stays_however_old(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        age(left)
        try:
            assert sweep_scratch(tmp_path, before=a_day_ago()) == 0
            assert (left / "spill").exists()
        finally:
            process.send_signal(signal.SIGKILL)
    age(left, by_s=0)

    with scratch_folder(tmp_path, "query") as own:
        assert sweep_scratch(tmp_path, before=a_day_ago()) == 1
        assert list(tmp_path.iterdir()) == [own]


def test_a_dead_process_that_nobody_has_waited_for_yet_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert sweep_scratch(tmp_path, before=a_day_ago()) == 1


def test_another_process_that_has_the_number_now_is_not_taken_for_the_owner(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, "query") as own:
        purpose, machine, pid, start, mark = own.name.split("-")
        left = tmp_path / f"{purpose}-{machine}-{pid}-{int(start) - 1}-{mark}"
        left.mkdir()

        assert sweep_scratch(tmp_path, before=a_day_ago()) == 1
        assert own.exists()


def test_what_another_machine_or_an_earlier_version_left_goes_once_it_is_unused_for_long(tmp_path: Path) -> None:
    names = [
        "query-0000000f-1-1-0000000f",
        "druid-merge-a1b2c3d4",
        "objects-a1b2c3d4",
        "workbook-a_2c3d4e",
        "parts",
        "mine",
    ]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
        age(tmp_path / name)
    (tmp_path / "objects-a1b2c3d4" / "file").write_bytes(b"y")

    assert sweep_scratch(tmp_path, before=a_day_ago()) == 3

    assert {path.name for path in tmp_path.iterdir()} == {"objects-a1b2c3d4", "parts", "mine"}


def test_where_no_process_can_be_looked_up_age_alone_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_start_of", lambda pid: None)

    with scratch_folder(tmp_path, "query") as own:
        assert sweep_scratch(tmp_path, before=a_day_ago()) == 0
        age(own)
        assert sweep_scratch(tmp_path, before=a_day_ago()) == 1


def test_there_may_be_no_scratch_folder_yet(tmp_path: Path) -> None:
    assert sweep_scratch(tmp_path / "scratch", before=a_day_ago()) == 0
