"""A merge by key: which rows are new, changed or as before, which time chunks that touches, and what they hold then.

Druid cannot change a row, only write whole chunks again. So the chunks that a merge touches are written from the
parts of every run that has rows there, of each key the version that counts: the first of the last row of equal ones,
so that a row that came again unchanged keeps the run that brought it.

This module imports duckdb, polars and pyarrow; so it is imported by the functions that hold data.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.ports.batch import CLEAN_COLUMNS, RUN
from ingestion.ports.context import Context
from ingestion.ports.errors import Cancelled, StoreCorrupt
from ingestion.ports.sink import Manifest, PartView
from sinks.druid.columns import DruidColumn, DruidType
from sinks.druid.config import Granularity
from sinks.druid.intervals import Interval, chunk_of, merge_intervals
from sinks.druid.rows import BATCH_ROWS, PartStats, frame_as_json, read_stats

MEMORY_LIMIT = "1GB"
TIME_KEY = "__headgate_time"
"""Where a merged row carries the time that Druid is to give it."""
_INDEX = "__headgate_index"


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a merge comes to: counts of its own rows, the chunks it touches (merged), and the rows they hold then."""

    inserted: int
    updated: int
    unchanged: int
    intervals: tuple[Interval, ...]
    handed: int


class Merge:
    """One run's rows met with those of the runs before it. Used as a context; keeps its work below `ctx.scratch`."""

    def __init__(
        self, manifests: Sequence[Manifest], *, run_id: int, logical_ms: Mapping[int, int], ctx: Context
    ) -> None:
        """Take the manifests of all runs with rows there, the run's own among them, and the logical time of each."""
        self._manifests = sorted(manifests, key=lambda manifest: manifest.run_id)
        self._own = next(manifest for manifest in manifests if manifest.run_id == run_id)
        self._key = self._own.contract.key
        self._logical_ms, self._ctx = logical_ms, ctx
        self._stats: dict[tuple[int, int], PartStats] = {}
        self._scratch = ctx.scratch / "merge" if ctx.scratch else None
        if self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
        settings: dict[str, str | bool | int | float | list[str]] = {
            "threads": 2,
            "memory_limit": MEMORY_LIMIT,
            # It must not look for extensions in the world: what is needed is built in.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "preserve_insertion_order": False,
        }
        if self._scratch is not None:
            settings["temp_directory"] = str(self._scratch)
        self._connection = duckdb.connect(config=settings)

    def __enter__(self) -> "Merge":
        """Read place, time, content and key of every row."""
        for number, manifest in enumerate(self._manifests):
            for position, part in enumerate(manifest.parts):
                self._stats[number, position] = self._read_stats(part)
        names = sorted({name for stats in self._stats.values() for name in stats.types} - set(CLEAN_COLUMNS))
        keys = "".join(f", k{number} {_KEY_TYPE}" for number, _ in enumerate(self._key))
        self._connection.execute(
            f"CREATE TABLE versions (run INT, part INT, row BIGINT, moment BIGINT, content UHUGEINT{keys})"
        )
        for number, manifest in enumerate(self._manifests):
            for position, part in enumerate(manifest.parts):
                self._take_in(number, position, manifest, part, names)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def part_types(self) -> list[dict[str, str]]:
        """Return the Arrow types of every part, in order."""
        return [self._stats[place].types for place in sorted(self._stats)]

    def span(self) -> tuple[int, int]:
        """Return the first and the last moment of all rows, in milliseconds."""
        found = self._connection.execute("SELECT min(moment), max(moment) FROM versions").fetchone()
        return (int(found[0]), int(found[1])) if found and found[0] is not None else (0, 0)

    def settle(self, granularity: Granularity, extra_chunks: Sequence[Interval] = ()) -> MergeResult:
        """Return what the merge comes to; `extra_chunks` are written again as well, whatever lies in them.

        Without a key every row counts, and the chunks of the run's own rows are written again.
        """
        own = self._manifests.index(self._own)
        run = self._connection.execute
        run(f"CREATE TABLE visible AS {self._visible()}")
        run(f"CREATE TABLE before AS {self._visible(but=own)}")
        # What readers see with these rows and without them: where that differs, the chunk has to be written again.
        changed = run(
            f"""SELECT DISTINCT epoch_ms(date_trunc('{granularity}', make_timestamp_ms(moment))) FROM (
                (SELECT run, part, row, moment FROM visible EXCEPT SELECT run, part, row, moment FROM before)
                UNION ALL (SELECT run, part, row, moment FROM before EXCEPT SELECT run, part, row, moment FROM visible)
            )"""  # noqa: S608
        ).fetchall()
        touched = {chunk_of(int(start), granularity) for (start,) in changed}
        intervals = merge_intervals({*touched, *extra_chunks})
        run("CREATE TABLE chunks (start BIGINT, stop BIGINT)")
        ends = [[start for start, _ in intervals], [stop for _, stop in intervals]]
        run("INSERT INTO chunks SELECT unnest(?::BIGINT[]), unnest(?::BIGINT[])", ends)
        run(
            "CREATE TABLE written AS SELECT run, part, row, moment FROM visible JOIN chunks ON moment >= start AND moment < stop"
        )
        shown = self._one("SELECT count(*) FROM visible WHERE run = ?", own)
        updated = self._updated(own) if self._key else 0
        return MergeResult(
            inserted=shown - updated,
            updated=updated,
            unchanged=self._one("SELECT count(*) FROM versions WHERE run = ?", own) - shown,
            intervals=tuple(intervals),
            handed=self._one("SELECT count(*) FROM written"),
        )

    def rows(self, columns: Sequence[DruidColumn]) -> Iterator[tuple[bytes, pl.DataFrame]]:
        """Yield the rows of the touched chunks, as JSON Lines and as they are.

        Each carries the run it belongs to, and under TIME_KEY its time: that of its own run's contract.
        """
        timed = [*columns, DruidColumn(TIME_KEY, TIME_KEY, DruidType.LONG)]
        for number, manifest in enumerate(self._manifests):
            for position, part in enumerate(manifest.parts):
                question = "SELECT row, moment FROM written WHERE run = ? AND part = ? ORDER BY row"
                found = self._connection.execute(question, [number, position]).fetchnumpy()
                if len(found["row"]):
                    yield from self._chosen(manifest, part, pl.DataFrame(found), timed)

    def _chosen(
        self, manifest: Manifest, part: PartView, chosen: pl.DataFrame, columns: Sequence[DruidColumn]
    ) -> Iterator[tuple[bytes, pl.DataFrame]]:
        start = 0
        with self._ctx.lake.open(part.key) as source:
            present = {*pq.read_schema(source).names, TIME_KEY}
            wanted = [column for column in columns if column.source in present]
            for batch in _batches(source, [column.source for column in wanted if column.source != TIME_KEY]):
                inside = chosen.filter((chosen["row"] >= start) & (chosen["row"] < start + batch.num_rows))
                if inside.height:
                    frame = pl.from_arrow(batch)
                    assert isinstance(frame, pl.DataFrame)  # noqa: S101 (a batch has columns)
                    rows = frame[inside["row"] - start].with_columns(
                        pl.lit(manifest.run_id, dtype=pl.Int64).alias(RUN), inside["moment"].alias(TIME_KEY)
                    )
                    yield frame_as_json(rows, wanted), rows
                start += batch.num_rows
                self._beat()

    def _read_stats(self, part: PartView) -> PartStats:
        if self._ctx.lake.head(part.key) is None:
            raise StoreCorrupt("store.missing", key=part.key)
        with self._ctx.lake.open(part.key) as source:
            stats = read_stats(source, time_column=None)
        self._beat()
        return stats

    def _take_in(self, number: int, position: int, manifest: Manifest, part: PartView, names: Sequence[str]) -> None:
        """Write place, time, content and key of each of the part's rows into the table of versions."""
        types = self._stats[number, position].types
        content = ", ".join(_quoted(name) if name in types else "NULL" for name in names)
        # Two hashes, made of the same values in another order: 128 bits tell equal rows from changed ones.
        hashes = f"hash({content})::UHUGEINT * 18446744073709551616::UHUGEINT + hash('headgate', {content})::UHUGEINT"
        time = manifest.contract.time
        logical = self._logical_ms[manifest.run_id]
        at = f"coalesce(epoch_ms({_quoted(time)}), {logical})" if time in types else str(logical)
        keys = "".join(f", {_quoted(name)}::{_KEY_TYPE}" for name in self._key)
        with self._ctx.lake.open(part.key) as source:
            schema = pq.read_schema(source).append(pa.field(_INDEX, pa.int64()))

            def numbered() -> Iterator[pa.RecordBatch]:
                start = 0
                for batch in _batches(source, None):
                    index = pl.int_range(start, start + batch.num_rows, dtype=pl.Int64, eager=True).to_arrow()
                    yield pa.RecordBatch.from_arrays([*batch.columns, index], schema=schema)
                    start += batch.num_rows
                    self._beat()

            self._connection.register("part", pa.RecordBatchReader.from_batches(schema, numbered()))
            self._connection.execute(
                f"INSERT INTO versions SELECT {number}, {position}, {_INDEX}, {at}, {hashes}{keys} FROM part"  # noqa: S608
            )
            self._connection.unregister("part")

    def _updated(self, own: int) -> int:
        same = " AND ".join(f"b.k{number} IS NOT DISTINCT FROM v.k{number}" for number, _ in enumerate(self._key))
        meets = f"SELECT count(*) FROM visible v WHERE run = ? AND EXISTS (SELECT 1 FROM before b WHERE {same})"  # noqa: S608
        return self._one(meets, own)

    def _visible(self, *, but: int | None = None) -> str:
        """Return the question for the version of each key that readers see, without one run's rows where asked for.

        A version counts where it differs from the one before; the last that counts is seen.
        """
        others = "" if but is None else f"WHERE run <> {but}"
        if not self._key:
            return f"SELECT run, part, row, moment FROM versions {others}"  # noqa: S608
        keys = ", ".join(f"k{number}" for number, _ in enumerate(self._key))
        of_key = f"PARTITION BY {keys} ORDER BY run, part, row"
        return f"""
            SELECT run, part, row, moment, {keys} FROM (
                SELECT *, lead(run) OVER ({of_key}) IS NULL AS is_last FROM (
                    SELECT *, lag(run) OVER ({of_key}) IS NOT NULL
                        AND lag(content) OVER ({of_key}) = content AS is_equal FROM versions {others}
                ) WHERE NOT is_equal
            ) WHERE is_last
        """  # noqa: S608

    def _one(self, query: str, *values: Any) -> int:
        row = self._connection.execute(query, list(values)).fetchone()
        return int(row[0]) if row else 0

    def _beat(self) -> None:
        self._ctx.progress()
        if self._ctx.should_stop():
            raise Cancelled


_KEY_TYPE = "VARCHAR"
"""Keys meet as text: a type that changed between two runs (an undeclared column) must not keep equal keys apart."""


def _batches(source: BinaryIO, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    yield from pq.ParquetFile(source).iter_batches(BATCH_ROWS * 5, columns=columns)


def _quoted(name: str | None) -> str:
    return '"' + str(name).replace('"', '""') + '"'
