"""Runs met with runs: which rows readers should see, in which time chunks Druid shows others, and what to write there.

Druid cannot change a row, only write whole chunks again. So chunks are written from the parts of every run that has
rows there, of each key the version that counts: the first of the last row of equal ones, so that a row that came again
unchanged keeps the run that brought it.

What the parts say is compared with what Druid holds, by the number of rows of each run in each chunk: a chunk whose
rows are not those that belong there (a run was withdrawn, a task was torn, a datasource was dropped) is written again,
too, whether this run has rows in it or not.

This module imports duckdb, polars and pyarrow; so it is imported by the functions that hold data.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from ingestion.ports.batch import CLEAN_COLUMNS, RUN
from ingestion.ports.context import Context
from ingestion.ports.publication import Manifest, PartView
from ingestion.toolkit.clean.reader import PartFile, open_part
from ingestion.toolkit.frames import frame_of
from ingestion.toolkit.scratch import scratch_folder
from sinks.druid.columns import RESERVED, DruidColumn, DruidType, types_of_part
from sinks.druid.config import Granularity
from sinks.druid.intervals import Interval, chunk_of, merge_intervals, milliseconds, widen
from sinks.druid.rows import WIDE_BATCH_ROWS, PartStats, frame_as_json, milliseconds_of, read_stats

MEMORY_LIMIT = "1GB"
TIME_KEY = f"{RESERVED}_time"
"""Name under which a merged row carries the time that Druid is to give it."""
_KEY_TYPE = "VARCHAR"
"""Keys meet as text: a type that changed between two runs must not keep equal keys apart."""
_SETTINGS: Mapping[str, str | bool | int | float | list[str]] = {
    "threads": 2,
    "memory_limit": MEMORY_LIMIT,
    # It must not look for extensions in the world: what is needed is built in.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "preserve_insertion_order": False,
}


@dataclass(frozen=True, slots=True)
class MergeResult:
    """Outcome of a merge: counts of its own rows, the chunks it touches (merged), and the rows they hold then."""

    inserted: int
    updated: int
    unchanged: int
    intervals: tuple[Interval, ...]
    handed: int


class Merge:
    """One run's rows met with those of all others. Used as a context; keeps its work in a folder below `ctx.scratch`."""

    def __init__(self, manifests: Sequence[Manifest], *, run_id: int, key: Sequence[str], ctx: Context) -> None:
        """Take the manifests of all runs whose rows are to be seen, the run's own among them, and what they meet by."""
        self._manifests = sorted(manifests, key=lambda manifest: manifest.run_id)
        self._own = next(manifest for manifest in manifests if manifest.run_id == run_id)
        self._key = tuple(key)
        self._ctx = ctx
        self._stats: dict[tuple[int, int], PartStats] = {}
        self._row_count = 0

    def __enter__(self) -> "Merge":
        """Read place, time, content and key of every row."""
        with ExitStack() as stack:
            # A folder of its own: two processes that spill into one would take each other's files away.
            folder = stack.enter_context(scratch_folder(self._ctx.scratch, "druid-merge"))
            self._connection = duckdb.connect(config={**_SETTINGS, "temp_directory": str(folder)})
            stack.callback(self._connection.close)
            self._read_all()
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def part_types(self) -> list[dict[str, DruidType]]:
        """Return the types of every part's columns, in order, each under the contract of its run."""
        return [
            types_of_part(self._manifests[number].contract, stats.types)
            for (number, _), stats in sorted(self._stats.items(), key=lambda item: item[0])
        ]

    def span(self) -> tuple[int, int]:
        """Return the first and the last moment of all rows, in milliseconds."""
        found = self._connection.execute("SELECT min(moment), max(moment) FROM versions").fetchone()
        return (int(found[0]), int(found[1])) if found and found[0] is not None else (0, 0)

    def resolve(
        self, granularity: Granularity, held: Mapping[tuple[int, int], int], *, again: Iterable[Interval] = ()
    ) -> MergeResult:
        """Return what the merge comes to, over what Druid holds: {(start of a chunk, run): rows}.

        Without a key every row counts, and the chunks of the run's own rows are written again. So are those of `again`,
        whatever is held there.
        """
        own = self._manifests.index(self._own)
        run = self._connection.execute
        run(f"CREATE TABLE visible AS {self._visible()}")
        run(f"CREATE TABLE before AS {self._visible(but=own)}")
        # What readers should see with these rows and without them: where that differs, the chunk is written again.
        changed = run(
            f"""SELECT DISTINCT {_start(granularity)} FROM (
                (SELECT run, part, row, moment FROM visible EXCEPT SELECT run, part, row, moment FROM before)
                UNION ALL (SELECT run, part, row, moment FROM before EXCEPT SELECT run, part, row, moment FROM visible)
            )"""  # noqa: S608
        ).fetchall()
        starts = {int(start) for (start,) in changed} | self._unlike(held, granularity)
        once_more = [widen(interval, granularity) for interval in again]
        intervals = merge_intervals([*(chunk_of(start, granularity) for start in starts), *once_more])
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
        with open_part(self._ctx.lake, part) as file:
            present = set(file.schema.names)
            wanted = [column for column in columns if column.source in present and column.source != TIME_KEY]
            for start, batch in file.batches([column.source for column in wanted], rows=WIDE_BATCH_ROWS):
                inside = chosen.filter((chosen["row"] >= start) & (chosen["row"] < start + batch.num_rows))
                if inside.height:
                    rows = frame_of(batch)[inside["row"] - start].with_columns(
                        pl.lit(manifest.run_id, dtype=pl.Int64).alias(RUN), inside["moment"].alias(TIME_KEY)
                    )
                    yield frame_as_json(rows, [*wanted, columns[-1]]), rows
                self._ctx.beat()

    # reading

    def _read_all(self) -> None:
        for number, manifest in enumerate(self._manifests):
            for position, part in enumerate(manifest.parts):
                self._stats[number, position] = read_stats(self._ctx.lake, part, time_column=None)
                self._ctx.beat()
        names = sorted({name for stats in self._stats.values() for name in stats.types} - set(CLEAN_COLUMNS))
        keys = "".join(f", {name} {_KEY_TYPE}" for name in self._key_names())
        self._connection.execute(
            f"CREATE TABLE versions (run INT, part INT, row BIGINT, moment BIGINT, content UHUGEINT, alone BIGINT{keys})"
        )
        for number, manifest in enumerate(self._manifests):
            for position, part in enumerate(manifest.parts):
                self._take_in(number, position, manifest, part, names)

    def _take_in(self, number: int, position: int, manifest: Manifest, part: PartView, names: Sequence[str]) -> None:
        """Write place, time, content and key of each of the part's rows into the table of versions."""
        # By place and not by name: names of columns differ in case only, and DuckDB does not see that.
        places = {name: f"c{place}" for place, name in enumerate(self._stats[number, position].types)}
        content = ", ".join(places.get(name, "NULL") for name in names) or "NULL"
        # Two hashes, made of the same values in another order: 128 bits tell equal rows from changed ones.
        hashes = f"hash({content})::UHUGEINT * 18446744073709551616::UHUGEINT + hash('headgate', {content})::UHUGEINT"
        key = [f"{places.get(name, 'NULL')}::{_KEY_TYPE}" for name in self._key]
        # A row without a whole key, from the time of another contract, replaces none and is replaced by none.
        lacks = " OR ".join(f"{value} IS NULL" for value in key) or "TRUE"
        values = ", ".join(["row", "moment", hashes, f"CASE WHEN {lacks} THEN number ELSE -1 END", *key])
        with open_part(self._ctx.lake, part) as file:
            # Not as one stream: what the lake or a cancel raises inside of it would be an error of DuckDB's outside.
            for batch in self._placed(file, manifest, places):
                self._connection.register("batch", pa.Table.from_batches([batch]))
                self._connection.execute(f"INSERT INTO versions SELECT {number}, {position}, {values} FROM batch")  # noqa: S608
                self._connection.unregister("batch")
                self._ctx.beat()

    def _placed(self, file: PartFile, manifest: Manifest, places: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        """Yield the part's batches with the place and the time of every row."""
        time, logical = manifest.contract.time, milliseconds(manifest.logical_time)
        own = [pa.field(name, pa.int64()) for name in ("row", "number", "moment")]
        fields = [pa.field(places[field.name], field.type) for field in file.schema]
        schema = pa.schema(fields + own)
        for start, batch in file.batches(rows=WIDE_BATCH_ROWS):
            row = pl.int_range(start, start + batch.num_rows, dtype=pl.Int64, eager=True)
            moment = pl.repeat(logical, batch.num_rows, dtype=pl.Int64, eager=True)
            if time is not None and time in places:
                # As the rows themselves are written: DuckDB would round where Druid and we cut off.
                times = pl.from_arrow(batch.column(batch.schema.get_field_index(time)))
                assert isinstance(times, pl.Series)  # noqa: S101 (a column)
                moment = milliseconds_of(times).cast(pl.Int64).fill_null(logical)
            number = row + (self._row_count - start)
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, row.to_arrow(), number.to_arrow(), moment.to_arrow()], schema=schema
            )
            self._row_count += batch.num_rows

    # comparing

    def _unlike(self, held: Mapping[tuple[int, int], int], granularity: Granularity) -> set[int]:
        """Return the starts of the chunks that hold other numbers of the runs' rows than they should before this run."""
        query = f"SELECT {_start(granularity)} AS start, run, count(*) FROM before GROUP BY 1, 2"  # noqa: S608
        expected = {
            (int(start), self._manifests[number].run_id): int(count)
            for start, number, count in self._connection.execute(query).fetchall()
        }
        places = expected.keys() | held.keys()
        return {place[0] for place in places if expected.get(place, 0) != held.get(place, 0)}

    def _updated(self, own: int) -> int:
        same = " AND ".join(f"b.{name} IS NOT DISTINCT FROM v.{name}" for name in ("alone", *self._key_names()))
        meets = f"SELECT count(*) FROM visible v WHERE run = ? AND EXISTS (SELECT 1 FROM before b WHERE {same})"  # noqa: S608
        return self._one(meets, own)

    def _visible(self, *, but: int | None = None) -> str:
        """Return the question for the version of each key that readers see, without one run's rows where asked for.

        A version counts where it differs from the one before; the last that counts is seen.
        """
        others = "" if but is None else f"WHERE run <> {but}"
        if not self._key:
            return f"SELECT run, part, row, moment FROM versions {others}"  # noqa: S608
        keys = ", ".join(("alone", *self._key_names()))
        of_key = f"PARTITION BY {keys} ORDER BY run, part, row"
        return f"""
            SELECT run, part, row, moment, {keys} FROM (
                SELECT *, lead(run) OVER ({of_key}) IS NULL AS is_last FROM (
                    SELECT *, lag(run) OVER ({of_key}) IS NOT NULL
                        AND lag(content) OVER ({of_key}) = content AS is_equal FROM versions {others}
                ) WHERE NOT is_equal
            ) WHERE is_last
        """  # noqa: S608

    def _key_names(self) -> list[str]:
        return [f"k{number}" for number, _ in enumerate(self._key)]

    def _one(self, query: str, *values: Any) -> int:
        row = self._connection.execute(query, list(values)).fetchone()
        return int(row[0]) if row else 0


def _start(granularity: Granularity) -> str:
    return f"epoch_ms(date_trunc('{granularity}', make_timestamp_ms(moment)))"
