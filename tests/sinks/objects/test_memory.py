"""A part of any size passes through little memory, measured in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.objects import TEXT_FORMS, write_part
from tests.servers import ROOT, Server

MOST_MB = 100


class NullStore(Server):
    """A store that throws away what it is sent."""

    name = "null-s3"

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-m", "benchmarks.null_s3", str(self.port)]

    def environment(self) -> dict[str, str]:
        """Return the process's variables."""
        return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def store() -> Iterator[NullStore]:
    with NullStore() as server:
        yield server


def upload(store: NullStore, path: Path, *, rows: int, settings: dict[str, Any]) -> dict[str, float]:
    asked = {
        "endpoint": f"http://127.0.0.1:{store.port}",
        "path": str(path),
        "prefix": path.parent.name,
        "rows": rows,
        "settings": settings,
    }
    words = [sys.executable, "-m", "benchmarks.uploading", "sink", json.dumps(asked)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_a_large_part_is_copied_in_less_than_a_hundred_megabytes_all_in_all(store: NullStore, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        for _ in range(160):
            file.write(os.urandom(1 << 20))

    found = upload(store, path, rows=1, settings={})

    assert found["peak_mb"] < MOST_MB


@pytest.mark.slow
@pytest.mark.parametrize("form", TEXT_FORMS)
def test_rows_are_written_anew_in_less_than_a_hundred_megabytes_beside_the_libraries(
    store: NullStore, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "rows.parquet"
    write_part(path, row_count=400_000)

    found = upload(store, path, rows=400_000, settings=TEXT_FORMS[form])

    assert found["peak_mb"] - found["before_mb"] < MOST_MB
