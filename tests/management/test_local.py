"""Commands as a person types them, with no stack running before."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT, product_environment, wait_until
from tests.stacks import Stack, processes_of

pytestmark = pytest.mark.worker


def manage(data: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Return how a command of a data directory ended."""
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *words],
        env=product_environment(data),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.slow
def test_local_starts_what_it_needs_and_leaves_nothing_running(tmp_path: Path) -> None:
    data, sample = tmp_path / "data", ROOT / "sample"

    done = manage(
        data, "ingest", "upload", str(sample / "measurements.csv"), "--contract", str(sample / "measurements.yaml"),
        "--local", "--json",
    )  # fmt: skip
    known = manage(data, "ingest", "rejected", "1", "--format", "jsonl")

    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (told["state"], told["accepted"], told["destinations"]) == ("succeeded", 988, {"lake": 988, "catalog": 988})
    assert len(known.stdout.splitlines()) == 12
    wait_until(lambda: not processes_of(data), what="the end of the short-lived stack")


@pytest.mark.slow
def test_local_works_on_the_stack_that_is_there(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (tmp_path / "rows.csv").write_text("id,name\n1,a\n2,b\n")
    with Stack(data, services="broker,worker") as stack:
        done = stack.manage("ingest", "upload", str(tmp_path / "rows.csv"), "--local", "--json")

        assert json.loads(done.stdout)["accepted"] == 2
        assert stack.process is not None
        assert stack.process.poll() is None
    assert not (data / "run" / "local.log").exists()


def test_without_local_a_fresh_folder_gets_its_tables_and_keeps_the_work(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (tmp_path / "rows.csv").write_text("id,name\n1,a\n2,b\n")

    stored = manage(data, "ingest", "upload", str(tmp_path / "rows.csv"), "--json")

    assert (stored.returncode, json.loads(stored.stdout)["state"]) == (0, "pending")
    assert len(stored.stderr.splitlines()) == 1
    assert "manage.py up" in stored.stderr


@pytest.mark.slow
def test_convert_needs_neither_database_nor_broker(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,name\n1,a\n")

    done = manage(tmp_path / "data", "ingest", "convert", str(tmp_path / "rows.csv"), "--out", str(tmp_path / "out"))

    assert done.returncode == 0
    assert (tmp_path / "out" / "rows_converted.csv").read_bytes() == b"id,name\r\n1,a\r\n"
    assert not (tmp_path / "data" / "headgate.sqlite3").exists()
