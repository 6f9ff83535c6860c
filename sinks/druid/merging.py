"""Runs met with runs: which rows readers should see, in which time chunks Druid shows others, and what to write there.

Druid cannot change a row, only write whole chunks again. So chunks are written from the parts of every run that has
rows there, of each key the version that counts: the first of the last row of equal ones, so that a row that came again
unchanged keeps the run that brought it.

What the runs say is compared with what Druid holds, by the number of rows of each run in each chunk: a chunk whose
rows are not those that belong there (a run was withdrawn, a task was torn, a datasource was dropped) is written again,
too, whether this run has rows in it or not.

Keys, contents and times are told by the hashes beside the parts; of the parts themselves only those are opened that
have rows in the touched chunks.

This module imports numpy, polars and pyarrow; so it is imported by the functions that hold data.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from ingestion.ports.batch import RUN
from ingestion.ports.context import Context
from ingestion.ports.publication import Manifest, PartView
from ingestion.toolkit.clean.current import fresh_hashes, merged_records, merged_type
from ingestion.toolkit.clean.keys import NO_MOMENT, HashedPart, Records, moments_of, read_header
from ingestion.toolkit.clean.reader import open_part
from ingestion.toolkit.frames import frame_of
from ingestion.toolkit.scratch import scratch_folder
from sinks.druid.columns import RESERVED, DruidColumn, DruidType, types_of_part
from sinks.druid.config import Granularity
from sinks.druid.intervals import Interval, chunk_of, merge_intervals, milliseconds, widen
from sinks.druid.rows import WIDE_BATCH_ROWS, PartStats, frame_as_json, read_stats

TIME_KEY = f"{RESERVED}_time"
"""Name under which a merged row carries the time that Druid is to give it."""
_CHUNK_ROWS = 1_000_000
_PLACE = np.dtype([("row", "<i8"), ("moment", "<i8")])
_HOURS = {Granularity.HOUR: 1, Granularity.DAY: 24}
_UNITS = {Granularity.MONTH: "datetime64[M]", Granularity.YEAR: "datetime64[Y]"}
Places: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MergeResult:
    """Outcome of a merge: counts of its own rows, the chunks it touches (merged), and the rows they hold then."""

    inserted: int
    updated: int
    unchanged: int
    intervals: tuple[Interval, ...]
    handed: int


@dataclass(frozen=True, slots=True)
class _Source:
    """One part of a run: its facts, and its hashes where rows meet by key. `run` is the place of its manifest."""

    run: int
    manifest: Manifest
    part: PartView
    stats: PartStats
    hashed: HashedPart | None = None
    keyed: int = 0


@dataclass(frozen=True, slots=True)
class _Versions:
    """Rows of all runs by key, those of one key in the order of runs: place of run and part, row, moment, content."""

    run: Places
    part: Places
    row: Places
    moment: Places
    content: npt.NDArray[np.uint64]
    key: Places

    def seen(self, among: Places) -> Places:
        """Return the versions that readers see, of these: of each key the first of the last row of equal ones."""
        if not len(among):
            return among
        key, content = self.key[among], self.content[among]
        is_first = np.append(True, key[1:] != key[:-1])
        counts = is_first | np.append(True, content[1:] != content[:-1])
        last = np.maximum.accumulate(np.where(counts, np.arange(len(among)), 0))
        seen: Places = among[last[np.append(is_first[1:], True)]]
        return seen


class Merge:
    """One run's rows met with those of all others. Used as a context; keeps its work in a folder below `ctx.scratch`."""

    def __init__(self, manifests: Sequence[Manifest], *, run_id: int, key: Sequence[str], ctx: Context) -> None:
        """Take the manifests of all runs whose rows are to be seen, the run's own among them, and what they meet by."""
        self._manifests = sorted(manifests, key=lambda manifest: manifest.run_id)
        self._own = next(place for place, manifest in enumerate(self._manifests) if manifest.run_id == run_id)
        self._key = tuple(key)
        self._ctx = ctx

    def __enter__(self) -> "Merge":
        """Find the hashes of all parts."""
        with ExitStack() as stack:
            # A folder of its own: two processes that work in one would take each other's files away.
            self._folder = stack.enter_context(scratch_folder(self._ctx.scratch, "druid-merge"))
            self._sources: list[_Source] = []
            for run, manifest in enumerate(self._manifests):
                for part in manifest.parts:
                    self._sources.append(self._source(run, manifest, part))
                    self._ctx.beat()
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def part_types(self) -> list[dict[str, DruidType]]:
        """Return the types of every part's columns, in order, each under the contract of its run."""
        return [types_of_part(source.manifest.contract, source.stats.types) for source in self._sources]

    def span(self) -> tuple[int, int]:
        """Return the first and the last moment of all rows, in milliseconds."""
        moments = [moment for source in self._sources for moment in _moments_of(source)]
        return (min(moments), max(moments)) if moments else (0, 0)

    def resolve(
        self, granularity: Granularity, held: Mapping[tuple[int, int], int], *, again: Iterable[Interval] = ()
    ) -> MergeResult:
        """Return what the merge comes to, over what Druid holds: {(start of a chunk, run): rows}.

        Without a key every row counts, and the chunks of the run's own rows are written again. So are those of `again`,
        whatever is held there.
        """
        starts: set[int] = set()
        expected: Counter[tuple[int, int]] = Counter()
        shown = updated = 0
        for found in self._versions():
            seen = found.seen(np.arange(len(found.run)))
            before = found.seen(np.flatnonzero(found.run != self._own))
            # What readers should see with these rows and without them: where that differs, the chunk is written again.
            changed = np.setxor1d(seen, before)
            starts |= set(np.unique(_starts(found.moment[changed], granularity)).tolist())
            places = pl.DataFrame({"start": _starts(found.moment[before], granularity), "run": found.run[before]})
            for start, run, count in places.group_by("start", "run").len().iter_rows():
                expected[start, self._manifests[run].run_id] += count
            own = seen[found.run[seen] == self._own]
            shown += len(own)
            updated += int(np.isin(found.key[own], found.key[before]).sum())
        starts |= {place[0] for place in expected.keys() | held.keys() if expected[place] != held.get(place, 0)}
        once_more = [widen(interval, granularity) for interval in again]
        intervals = merge_intervals([*(chunk_of(start, granularity) for start in starts), *once_more])
        return MergeResult(
            inserted=shown - updated,
            updated=updated,
            unchanged=sum(part.rows for part in self._manifests[self._own].parts) - shown,
            intervals=tuple(intervals),
            handed=self._note(intervals) if intervals else 0,
        )

    def rows(self, columns: Sequence[DruidColumn]) -> Iterator[tuple[bytes, pl.DataFrame]]:
        """Yield the rows of the touched chunks, as JSON Lines and as they are.

        Each carries the run it belongs to, and under TIME_KEY its time: that of its own run's contract.
        """
        timed = [*columns, DruidColumn(TIME_KEY, TIME_KEY, DruidType.LONG)]
        for number, source in enumerate(self._sources):
            path = self._noted(number)
            if path.exists():
                places = np.sort(np.fromfile(path, dtype=_PLACE), order="row")
                chosen = pl.DataFrame({"row": places["row"], "moment": places["moment"]})
                yield from self._chosen(source.manifest, source.part, chosen, timed)

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

    def _source(self, run: int, manifest: Manifest, part: PartView) -> _Source:
        """Return the part with its stored hashes; they are made anew where those are not of this key and this time."""
        time = manifest.contract.time
        if not self._key:
            return _Source(run, manifest, part, read_stats(self._ctx.lake, part, time_column=time))
        number = len(self._sources)
        hashed = HashedPart(number, 0, partial(self._ctx.lake.open, part.hashes))
        header = read_header(hashed) if part.is_hashed else None
        if header is None or header.key != self._key or header.time != (time if time in header.columns else None):
            path = self._folder / f"hashes-{number}"
            path.write_bytes(fresh_hashes(self._ctx.lake, part, key=self._key, time=time))
            hashed = HashedPart(number, 0, cast("partial[BinaryIO]", partial(path.open, "rb")))
            header = read_header(hashed)
        stats = PartStats(part.rows, header.columns, {}, header.first_ms, header.last_ms, header.untimed)
        return _Source(run, manifest, part, stats, hashed, header.rows)

    def _versions(self) -> Iterator[_Versions]:
        """Yield all rows, those of one key together; memory does not grow with their number."""
        run_of = np.array([source.run for source in self._sources], dtype=np.int64)
        logical = np.array([milliseconds(source.manifest.logical_time) for source in self._sources], dtype=np.int64)
        for records in self._records():
            part = records["part"].astype(np.int64)
            moment = np.where(records["moment"] == NO_MOMENT, logical[part], records["moment"])
            key = np.cumsum(~records["same"])
            yield _Versions(run_of[part], part, records["row"].astype(np.int64), moment, records["content"], key)
            self._ctx.beat()

    def _records(self) -> Iterator[Records]:
        hashed = [source.hashed for source in self._sources if source.hashed is not None]
        if hashed:
            yield from merged_records(hashed, chunk_rows=_CHUNK_ROWS, with_facts=True)
        for number, source in enumerate(self._sources):
            # A row without a whole key, from the time of another contract, replaces none and is replaced by none.
            if source.keyed < source.part.rows:
                yield self._alone(number, source)

    def _alone(self, number: int, source: _Source) -> Records:
        """Return the rows of the part that have no whole key."""
        rows = np.arange(source.part.rows)
        if source.hashed is not None:
            for records in merged_records([source.hashed]):
                rows = np.setdiff1d(rows, records["row"])
        records = np.zeros(len(rows), dtype=merged_type(with_facts=True))
        records["part"], records["row"], records["moment"] = number, rows, NO_MOMENT
        time = source.manifest.contract.time
        if time is not None and time in source.stats.types:
            with open_part(self._ctx.lake, source.part) as file:
                read = [frame_of(batch)[time] for _, batch in file.batches([time], rows=WIDE_BATCH_ROWS)]
            records["moment"] = moments_of(pl.concat(read)).fill_null(NO_MOMENT).to_numpy()[rows]
        return records

    # noting

    def _note(self, intervals: Sequence[Interval]) -> int:
        """Write down, part by part, which rows the chunks are to hold, and return how many."""
        begins, ends = (np.array(bounds, dtype=np.int64) for bounds in zip(*intervals, strict=True))
        count = 0
        for found in self._versions():
            seen = found.seen(np.arange(len(found.run)))
            chunk = np.searchsorted(begins, found.moment[seen], side="right") - 1
            inside = seen[(chunk >= 0) & (found.moment[seen] < ends[chunk])]
            places = np.empty(len(inside), dtype=_PLACE)
            places["row"], places["moment"] = found.row[inside], found.moment[inside]
            part = found.part[inside]
            for number in np.unique(part).tolist():
                with self._noted(number).open("ab") as file:
                    file.write(places[part == number].tobytes())
            count += len(inside)
        return count

    def _noted(self, number: int) -> Path:
        return self._folder / f"rows-{number}"


def _moments_of(source: _Source) -> Iterator[int]:
    """Yield the first and the last moment of a part's rows, and that of its run where rows have none."""
    stats = source.stats
    if stats.first_ms is not None and stats.last_ms is not None:
        yield from (stats.first_ms, stats.last_ms)
    if stats.untimed:
        yield milliseconds(source.manifest.logical_time)


def _starts(moments: Places, granularity: Granularity) -> Places:
    """Return where the chunk of each moment begins."""
    hours = _HOURS.get(granularity)
    if hours is not None:
        return moments - moments % (hours * 3_600_000)
    return moments.astype("datetime64[ms]").astype(_UNITS[granularity]).astype("datetime64[ms]").astype(np.int64)
