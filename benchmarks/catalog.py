"""A million rows merged into the catalog, half of their keys present, against the database's own upsert."""

import io
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measurements import CONTRACT, make_frame
from benchmarks.measuring import Cost, peak_bytes_of
from benchmarks.places import SQLITE, Place
from benchmarks.table import Row

if TYPE_CHECKING:
    import polars as pl

PART_ROWS = 500_000


def measure_catalog(*, quick: bool, database: str) -> Iterator[Row]:
    """Yield the seconds that staging, merging and showing the rows take."""
    import os

    import polars as pl

    row_count = 20_000 if quick else 1_000_000
    with Place() as place:
        url = f"sqlite:///{place.folder / 'headgate.sqlite3'}" if database == SQLITE else None
        url = url or f"{place.start_postgres()}/postgres"
        place.run("manage.py", "migrate", "--verbosity", "0", DATABASE_URL=url)
        place.enter_django(DATABASE_URL=url)
        wanted = make_frame(row_count)
        present = wanted.head(row_count // 2).with_columns(pl.col("site") + "x")
        plain = _merge_plainly(present, wanted, url=url, folder=place.folder)
        merging = _Merging()
        merging.publish(present)
        cost = merging.publish(wanted)
        peak_bytes = peak_bytes_of(os.getpid())
    rate = row_count / cost.wall_s
    note = (
        f"{rate:,.0f} rows/s, CPU {cost.cpu_s:.1f} s in this process; "
        "yardstick: the same rows as JSON by one statement, INSERT .. ON CONFLICT DO UPDATE"
    )
    name = f"{row_count:,} rows merged into the catalog, {database}, wall"
    yield Row(name, cost.wall_s, yardstick=plain.wall_s, peak_bytes=peak_bytes, note=note)


class _Merging:
    """A pipeline whose runs go into the catalog."""

    def __init__(self) -> None:
        from ingestion.models import Pipeline, Source

        source = Source.objects.create(name="benchmark", kind="files")
        self._pipeline = Pipeline.objects.create(name="benchmark", source=source, stream="rows")

    def publish(self, frame: "pl.DataFrame") -> Cost:
        """Return what it costs to stage the rows in parts and to commit them; the parts are written before."""
        from ingestion.catalog import DatabaseCatalog
        from ingestion.models import Run, RunState
        from ingestion.ports.publication import DeliveryState, DeliveryView, WriteMode
        from ingestion.ports.schema import ContractBody

        run = Run.objects.create(
            pipeline=self._pipeline, state=RunState.DELIVERING, trigger=Run.Trigger.CLI, mode="incremental"
        )
        delivery = DeliveryView(
            id=run.pk,
            run_id=run.pk,
            pipeline=self._pipeline.name,
            pipeline_id=self._pipeline.pk,
            destination="catalog",
            mode=WriteMode.MERGE,
            contract=ContractBody.model_validate(CONTRACT),
            state=DeliveryState.PLANNED,
            attempt=1,
            logical_time=run.created_at.isoformat(),
        )
        parts = [
            _part(frame.slice(first, PART_ROWS), lane=lane)
            for lane, first in enumerate(range(0, frame.height, PART_ROWS))
        ]
        catalog = DatabaseCatalog()
        began, own_began = time.perf_counter(), time.process_time()
        for part, open_part in parts:
            catalog.stage(part, delivery, open_part=open_part)
        receipt = catalog.commit(delivery)
        cost = Cost(time.perf_counter() - began, time.process_time() - own_began)
        assert receipt.inserted + receipt.updated == frame.height, receipt
        Run.objects.filter(pk=run.pk).update(state=RunState.SUCCEEDED)
        return cost


def _part(frame: "pl.DataFrame", *, lane: int) -> Any:
    from ingestion.ports.publication import PartView

    file = io.BytesIO()
    frame.with_row_index("_row").write_parquet(file)
    data = file.getvalue()
    part = PartView(key=f"clean/{lane}", lane=lane, link=0, seq=0, rows=frame.height, size_bytes=len(data), sha256="0")
    return part, partial(io.BytesIO, data)


def _merge_plainly(present: "pl.DataFrame", wanted: "pl.DataFrame", *, url: str, folder: Path) -> Cost:
    """Return what the same merge costs as one upsert of (key, record) into a table of its own."""
    if url.startswith("sqlite"):
        return _merge_into_sqlite(present, wanted, path=folder / "plain.sqlite3")
    return _merge_into_postgres(present, wanted, url=url)


def _records(frame: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    return frame.select("id", pl.struct(pl.all()).struct.json_encode().alias("record"))


def _merge_into_sqlite(present: "pl.DataFrame", wanted: "pl.DataFrame", *, path: Path) -> Cost:
    import sqlite3

    upsert = "INSERT INTO plain VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record"
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, record TEXT)")
    with connection:
        connection.executemany(upsert, _records(present).iter_rows())
    began, own_began = time.perf_counter(), time.process_time()
    with connection:
        connection.executemany(upsert, _records(wanted).iter_rows())
    cost = Cost(time.perf_counter() - began, time.process_time() - own_began)
    connection.close()
    return cost


def _merge_into_postgres(present: "pl.DataFrame", wanted: "pl.DataFrame", *, url: str) -> Cost:
    import psycopg

    def merge(frame: "pl.DataFrame") -> None:
        with connection.transaction():
            connection.execute("CREATE TEMP TABLE staged (LIKE plain) ON COMMIT DROP")
            with connection.cursor() as cursor, cursor.copy("COPY staged FROM STDIN (FORMAT csv)") as copy:
                for batch in _records(frame).iter_slices(100_000):
                    copy.write(batch.write_csv(include_header=False).encode())
            connection.execute(
                "INSERT INTO plain SELECT * FROM staged ON CONFLICT (id) DO UPDATE SET record = excluded.record"
            )

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE plain (id bigint PRIMARY KEY, record jsonb)")
        merge(present)
        began, own_began = time.perf_counter(), time.process_time()
        merge(wanted)
        cost = Cost(time.perf_counter() - began, time.process_time() - own_began)
        connection.execute("DROP TABLE plain")
    return cost
