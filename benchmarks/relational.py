"""A million rows into PostgreSQL, appended, merged and brought again, against `psql \\copy` of the same rows."""

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.measurements import CONTRACT, make_frame
from benchmarks.measuring import Cost, interleave, peak_bytes_of
from benchmarks.places import Place, find_postgres
from benchmarks.table import Row

if TYPE_CHECKING:
    import polars as pl

    from ingestion.ports.context import Context
    from ingestion.ports.publication import DeliveryView, Manifest, Receipt

PART_ROWS = 500_000
ROUNDS = 5
APPEND_GOAL, MERGE_GOAL = 1.3, 2.5
COLUMNS = (
    "id bigint, ts timestamptz, category text, site text, qty bigint, price double precision, score double precision, "
    "code text, active boolean, note text"
)


def measure_relational(*, quick: bool) -> Iterator[Row]:
    """Yield the wall seconds of an append, a merge and a repeated load; each round has a yardstick of its own."""
    row_count = 20_000 if quick else 1_000_000
    with Place() as place:
        bench = _Bench(place, make_frame(row_count))
        sides = (bench.append, bench.copy_plainly, bench.copy_keyed, bench.merge, bench.load_again)
        appended, plain, keyed, merged, again = interleave(1 if quick else ROUNDS, *sides)
        peak_bytes = peak_bytes_of(os.getpid())
    name = f"{row_count:,} rows into PostgreSQL"
    yield Row(
        f"{name}, appended, wall",
        appended.wall_s,
        yardstick=plain.wall_s,
        goal=APPEND_GOAL,
        peak_bytes=peak_bytes,
        note=f"{row_count / appended.wall_s:,.0f} rows/s, CPU {appended.cpu_s:.1f} s in this process; yardstick: "
        "psql \\copy of a CSV file of the ten data columns into a table without a key",
    )
    yield Row(
        f"{name}, merged, half the keys present, wall",
        merged.wall_s,
        yardstick=keyed.wall_s,
        goal=MERGE_GOAL,
        note=f"CPU {merged.cpu_s:.1f} s in this process; all rows of the present keys differ; yardstick: psql \\copy "
        "of all rows into an empty table with a primary key",
    )
    yield Row(f"{name}, verified by content after the merge, wall", bench.verified_s, yardstick=merged.wall_s)
    yield Row(f"{name}, brought again unchanged, wall", again.wall_s, yardstick=keyed.wall_s)
    yield Row(f"{name}, brought again unchanged, touched", bench.touched, unit="rows", goal=0)


class _Bench:
    """A database, and the rows as a CSV file and as the parts of a run."""

    def __init__(self, place: Place, frame: "pl.DataFrame") -> None:
        from pydantic import SecretStr

        from ingestion.toolkit.lake.local import LocalLake
        from sinks.relational.postgres.sink import PostgresConfig, PostgresSink

        self._url = place.start_postgres("shared_buffers=512MB", "max_wal_size=4GB")
        port = int(self._url.rpartition(":")[2])
        self._sink: PostgresSink = PostgresSink(
            PostgresConfig(
                host="127.0.0.1", port=port, database="postgres", user="postgres", password=SecretStr("unused")
            )
        )
        self._ctx = _context(LocalLake(place.folder / "lake"))
        self._frame, self._file = frame, place.folder / "rows.csv"
        frame.write_csv(self._file, include_header=False)
        half = frame.head(frame.height // 2)
        self._whole = self._manifest(frame, run_id=2)
        self._present = self._manifest(half.with_columns(site=half["site"] + "x"), run_id=1)
        self.touched = 0
        self.verified_s = 0.0

    def copy_plainly(self) -> Cost:
        """Return what psql needs for the rows without a key."""
        return self._copy(f"CREATE TABLE plain ({COLUMNS})")

    def copy_keyed(self) -> Cost:
        """Return what psql needs for the rows with a primary key."""
        return self._copy(f"CREATE TABLE plain ({COLUMNS}, PRIMARY KEY (id))")

    def append(self) -> Cost:
        """Return what an append of the rows costs."""
        from ingestion.ports.publication import WriteMode

        self._clear()
        keyless = self._whole.contract.model_copy(update={"key": ()})
        cost, receipt = self._deliver(replace(self._whole, mode=WriteMode.APPEND, contract=keyless))
        assert receipt.inserted == self._frame.height, receipt
        return cost

    def merge(self) -> Cost:
        """Return what it costs to merge the rows where half of them are there, with other values."""
        self._clear()
        self._deliver(self._present)
        cost, receipt = self._deliver(self._whole)
        half = self._frame.height // 2
        assert (receipt.inserted, receipt.updated) == (self._frame.height - half, half), receipt
        began = time.perf_counter()
        assert not self._sink.differences(self._whole, self._view(self._whole), self._ctx)
        self.verified_s = time.perf_counter() - began
        return cost

    def load_again(self) -> Cost:
        """Return what it costs to bring the same rows in another run."""
        cost, receipt = self._deliver(replace(self._whole, run_id=3))
        self.touched = max(self.touched, self._frame.height - receipt.unchanged)
        return cost

    def _clear(self, *creating: str) -> None:
        """Drop all tables and have what was written so far put on disk, so that no side pays for another's writes."""
        import psycopg

        self._sink.drop("benchmark", self._ctx)
        with psycopg.connect(f"{self._url}/postgres", autocommit=True) as connection:
            for statement in ("DROP TABLE IF EXISTS plain", *creating, "CHECKPOINT"):
                connection.execute(statement.encode())

    def _copy(self, creating: str) -> Cost:
        binaries = find_postgres()
        assert binaries is not None
        self._clear(creating)
        command = f"\\copy plain from '{self._file}' (format csv)"
        began = time.perf_counter()
        subprocess.run([binaries / "psql", "-q", "-c", command, f"{self._url}/postgres"], check=True)
        return Cost(time.perf_counter() - began, 0.0)

    def _view(self, manifest: "Manifest") -> "DeliveryView":
        from ingestion.ports.publication import DeliveryState, DeliveryView

        return DeliveryView(
            id=manifest.run_id,
            run_id=manifest.run_id,
            pipeline=manifest.pipeline,
            pipeline_id=1,
            destination="postgres",
            mode=manifest.mode,
            contract=manifest.contract,
            state=DeliveryState.PLANNED,
            attempt=1,
            logical_time=manifest.logical_time,
        )

    def _deliver(self, manifest: "Manifest") -> "tuple[Cost, Receipt]":
        delivery = self._view(manifest)
        began, own_began = time.perf_counter(), time.process_time()
        for part in manifest.parts:
            self._sink.stage(part, delivery, self._ctx)
        receipt = self._sink.commit(manifest, delivery, self._ctx).receipt
        cost = Cost(time.perf_counter() - began, time.process_time() - own_began)
        assert receipt is not None
        return cost, receipt

    def _manifest(self, frame: "pl.DataFrame", *, run_id: int) -> "Manifest":
        import io

        import polars as pl

        from ingestion.ports.publication import Manifest, PartView, WriteMode
        from ingestion.ports.schema import ContractBody
        from ingestion.quality.parts import write_clean

        parts = []
        for lane, first in enumerate(range(0, frame.height, PART_ROWS)):
            rows = frame.slice(first, PART_ROWS).with_columns(
                pl.col("ts").dt.replace_time_zone("UTC"),
                pl.lit(run_id, pl.Int64).alias("_run"),
                pl.lit(f"{lane}-0").alias("_part"),
                pl.int_range(first, first + PART_ROWS, dtype=pl.Int64).head(pl.len()).alias("_row"),
                pl.lit(None, pl.Int32).alias("_page"),
            )
            data = io.BytesIO()
            write_clean(rows.to_arrow(), data)
            key = f"clean/benchmark/{run_id}/{lane}.parquet"
            info = self._ctx.lake.put_if_absent(key, data.getvalue())
            parts.append(PartView(key, lane, 0, 0, rows.height, info.size_bytes, info.sha256 or ""))
        return Manifest(
            run_id=run_id,
            pipeline="benchmark",
            mode=WriteMode.MERGE,
            contract=ContractBody.model_validate(CONTRACT),
            contract_version=1,
            parts=tuple(parts),
            rows=frame.height,
            logical_time="2026-01-01T00:00:00+00:00",
        )


def _context(lake: Any) -> "Context":
    from datetime import UTC, datetime

    from ingestion.ports.context import Context

    unused: Any = None
    return Context(http=unused, limiter=unused, lake=lake, clock=lambda: datetime.now(UTC))
