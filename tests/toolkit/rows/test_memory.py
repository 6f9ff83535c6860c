"""A million rows leave in as much memory as a few: measured in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ingestion.toolkit.rows.formats import MEDIA_TYPES

ROOT = Path(__file__).resolve().parents[3]
ROWS, PARTS = 1_000_000, 4
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
import numpy as np, pyarrow as pa
from ingestion.toolkit.lake.opening import open_lake
from ingestion.toolkit.rows.formats import write
from tests.toolkit.rows.material import put_part, sequence

folder, file_format, rows, parts = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
lake, each = open_lake(str(folder / "lake")), rows // parts
if len(sys.argv) > 5:
    for number in range(parts):
        ids = np.arange(each) + number * each
        put_part(lake, {
            "id": pa.array(ids), "energy": pa.array(ids / 7), "formula": pa.array([f"Fe{i}O{i % 97}" for i in ids]),
            "at": pa.array(ids * 1_000_000).cast(pa.timestamp("us", tz="UTC")), "stable": pa.array(ids % 2 == 0),
            "note": pa.array([f"row {i} of a table that is long enough" for i in ids]),
        }, link=number, group_rows=each)
else:
    from ingestion.ports.publication import PartView
    found = []
    for info in lake.list("clean/"):
        link = int(info.key.split("/")[3].split("-")[1])
        found.append(PartView(info.key, 0, link, 0, rows=each, size_bytes=info.size_bytes, sha256=info.key))
    chosen = sequence(lake, sorted(found, key=lambda part: part.link))
    list(write(chosen, file_format=file_format, limit=10, scratch=folder / "scratch"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, size = time.perf_counter(), 0
    for block in write(chosen, file_format=file_format, scratch=folder / "scratch"):
        size += len(block)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"size": size, "grown_kib": grown, "seconds": time.perf_counter() - started}))
"""
ALLOWED_KIB = {"csv": 150_000, "jsonl": 150_000, "parquet": 250_000, "xlsx": 150_000}


def run(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("million")
    run(folder, "none", ROWS, PARTS, "make")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("file_format", sorted(MEDIA_TYPES))
def test_a_million_rows_need_no_more_memory_than_a_block_of_them(million: Path, file_format: str) -> None:
    told = json.loads(run(million, file_format, ROWS, PARTS))

    print(f"{file_format}: {told}")  # noqa: T201 - what `-s` shows
    assert told["size"] > 10_000_000
    assert told["grown_kib"] < ALLOWED_KIB[file_format]
