"""A large part sent to a store that throws bytes away, against boto3's own upload of the same file."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring import Cost, interleave
from benchmarks.places import Place, wait_until
from benchmarks.table import Row
from ingest_project.stack.services import accepts

MEGABYTE = 1_000_000
GOAL_RATIO = 1.2
GOAL_PEAK_MB = 100
TEXT_FORMS: dict[str, dict[str, Any]] = {
    "as JSON Lines": {"format": "jsonl"},
    "as packed CSV": {"format": "csv", "gzip": True},
    "by partition": {"partition_by": ["category"]},
}


def measure_objects(*, quick: bool) -> Iterator[Row]:
    """Yield the CPU of an upload as a ratio to boto3's, and the memory of every form of file."""
    from ingest_project.stack.broker import free_port

    size_mb, row_count, rounds = (32, 50_000, 1) if quick else (500, 1_000_000, 5)
    with Place() as place:
        port = free_port()
        server = place.start([sys.executable, "-m", "benchmarks.null_s3", str(port)], name="store")
        wait_until(lambda: accepts(port), what="the start of the store", of=server)
        uploads = _Uploads(place, port)
        random = place.folder / "random.bin"
        with random.open("wb") as file:
            for _ in range(size_mb):
                file.write(os.urandom(MEGABYTE))
        ours, boto3 = interleave(rounds, lambda: uploads.sink(random), lambda: uploads.boto3(random))
        yield Row(
            f"{size_mb} MB part copied to a bucket, CPU",
            ours.cpu_s,
            yardstick=boto3.cpu_s,
            goal=GOAL_RATIO,
            note=f"median of {rounds}; yardstick: boto3.upload_file with SHA-256; wall {ours.wall_s:.2f} s "
            f"against {boto3.wall_s:.2f} s, peak {uploads.peaks_mb['boto3']:.0f} MB there",
        )
        yield Row(
            f"{size_mb} MB part copied to a bucket, peak memory",
            uploads.peaks_mb["sink"],
            "MB",
            goal=GOAL_PEAK_MB,
            note="greatest anonymous memory of the process, libraries included",
        )
        rows = place.folder / "rows.parquet"
        write_part(rows, row_count=row_count)
        for name, settings in TEXT_FORMS.items():
            found = uploads.measure(rows, rows=row_count, **settings)
            yield Row(
                f"{row_count:,} rows {name} to a bucket, peak above the libraries",
                found["peak_mb"] - found["before_mb"],
                "MB",
                goal=GOAL_PEAK_MB,
                note=f"{found['before_mb']:.0f} MB were taken by libraries before; CPU {found['cpu_s']:.1f} s",
            )


class _Uploads:
    """Both sides of the comparison, each upload in a process of its own."""

    def __init__(self, place: Place, port: int) -> None:
        self.place = place
        self.endpoint = f"http://127.0.0.1:{port}"
        self.peaks_mb = {"sink": 0.0, "boto3": 0.0}
        self._number = 0

    def sink(self, path: Path) -> Cost:
        """Let the sink copy the file."""
        return self._cost("sink", self.measure(path, rows=1))

    def boto3(self, path: Path) -> Cost:
        """Let boto3 upload the file."""
        self._number += 1
        return self._cost("boto3", self._run("boto3", {"path": str(path), "key": f"boto3-{self._number}"}))

    def measure(self, path: Path, *, rows: int, **settings: Any) -> dict[str, float]:
        """Return what it costs to stage the file as a part."""
        self._number += 1
        asked = {"path": str(path), "rows": rows, "settings": settings, "prefix": f"sink-{self._number}"}
        return self._run("sink", asked)

    def _cost(self, side: str, found: dict[str, float]) -> Cost:
        self.peaks_mb[side] = max(self.peaks_mb[side], found["peak_mb"])
        return Cost(found["wall_s"], found["cpu_s"])

    def _run(self, side: str, asked: dict[str, Any]) -> dict[str, float]:
        words = json.dumps({**asked, "endpoint": self.endpoint})
        found: dict[str, float] = json.loads(self.place.run("-m", "benchmarks.uploading", side, words))
        return found


def write_part(path: Path, *, row_count: int) -> None:
    """Write measurements as a clean part."""
    import polars as pl

    from benchmarks.measurements import make_frame
    from ingestion.quality.parts import write_clean

    marks = {
        "_run": 7,
        "_part": "0-0",
        "_row": pl.int_range(row_count, dtype=pl.Int64),
        "_page": pl.lit(None, dtype=pl.Int32),
    }
    frame = make_frame(row_count).with_columns(
        pl.col("ts").dt.replace_time_zone("UTC"),
        *((value if isinstance(value, pl.Expr) else pl.lit(value)).alias(name) for name, value in marks.items()),
    )
    write_clean(frame.to_arrow(), path)
