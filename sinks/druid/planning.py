"""Plan of a delivery's load, made before anything is handed over, in a form that can be stored and taken up again."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ingestion.ports.batch import RUN
from ingestion.ports.context import Context
from ingestion.ports.errors import StoreCorrupt, count_mismatch
from ingestion.ports.publication import DeliveryView, Manifest, Receipt, WriteMode
from sinks.druid.client import DruidClient
from sinks.druid.columns import RESERVED, DruidColumn, druid_columns
from sinks.druid.config import DruidConfig, Granularity, InputKind
from sinks.druid.datasource_state import (
    DatasourceState,
    OtherRuns,
    UnclearError,
    known_runs,
    other_runs,
    read_state,
    rows_held,
)
from sinks.druid.intervals import FIRST_MS, LAST_MS, Interval, choose_granularity, granularity_of, listable, widen
from sinks.druid.spec import JSON, PARQUET, plan_hash, plan_replacement
from sinks.druid.staging import StagedObject, Staging
from sinks.druid.state import Load

if TYPE_CHECKING:
    from sinks.druid.rows import PartStats

BLOCK_BYTES = 32 << 20
_PLANNED_BY = ("datasource", "segment_granularity", "input", "shares_disk", "staging", "discover_schema")
"""Settings that a plan depends on: one made under others is not handed over any more."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Planner of one delivery's load."""

    config: DruidConfig
    client: DruidClient
    staging: Staging
    manifest: Manifest
    delivery: DeliveryView
    ctx: Context
    previous: Load | None
    """Load that an earlier attempt has planned."""

    def plan(self, *, attempt: int, is_late: bool) -> Load:
        """Return the load that brings the run's rows in, under the id of this attempt; one without a task if none has to.

        UnclearError while it cannot be told what is there; `is_late` says that this has been so for long.
        """
        present = read_state(self.client, self.datasource, is_late=is_late, destination=self.delivery.destination)
        ours = known_runs(present, self.datasource, delivery=self.delivery, ctx=self.ctx)
        if self.manifest.mode is WriteMode.REPLACE:
            return (
                self._load(present, ours, attempt) if self.manifest.rows else self._nothing_to_load(attempt, Receipt())
            )
        others = other_runs(present, delivery=self.delivery, ctx=self.ctx)
        # Rows of its own are there, so to append them again would double them; or rows that may not be seen any more; or
        # an attempt has written chunks anew, and what it did to rows of others there is not known.
        is_torn = bool(others.withdrawn) or self.manifest.run_id in present.runs or bool(self._rewritten())
        if not self.manifest.rows and not is_torn:
            return self._nothing_to_load(attempt, Receipt())
        if is_torn or (self.manifest.mode is WriteMode.MERGE and self.manifest.contract.key):
            return self._rewrite(present, others, attempt)
        return self._load(present, ours, attempt)

    # a load of the run's own rows

    def _load(self, present: DatasourceState, ours: frozenset[int], attempt: int) -> Load:
        from sinks.druid.rows import expected_nulls, span_ms  # noqa: PLC0415 (polars, only where there are rows)

        stats = self._stats()
        staged = sum(part.rows for part in stats)
        self._check_count(staged, self.manifest.rows)
        first, last = span_ms(stats, logical_time=self.manifest.logical_time) or (0, 0)
        is_append = self.manifest.mode is not WriteMode.REPLACE
        granularity = self._granularity(present if is_append else None, first, last)
        # What is listed is listed by Overlord and task chunk by chunk, so a far-off moment makes the chunks longer.
        wanted = [(first, last + 1)] if is_append else [*present.chunks, (first, last + 1)]
        granularity = listable(granularity, wanted, replaced=() if is_append else present.chunks)
        intervals: tuple[Interval, ...] = (widen((first, last + 1), granularity),)
        if not is_append:
            whole = widen((min(start for start, _ in wanted), max(end for _, end in wanted)), granularity)
            intervals = plan_replacement(
                wanted,
                granularity=granularity,
                held_runs={whole: present.runs},
                reread_runs=frozenset({self.manifest.run_id}),
                given_up_runs=ours,
                datasource=self.datasource,
            )
        columns = self.staging.columns(stats)
        is_clean = self.staging.reads_parquet(stats)
        if not is_clean and self.staging.input.kind is not InputKind.INLINE:
            for part, found in zip(self.manifest.parts, stats, strict=True):
                self.staging.staged_rows(part, found, columns)
        return self._planned(
            Load(
                task="",
                attempt=attempt,
                datasource=self.datasource,
                columns=columns,
                granularity=granularity,
                intervals=intervals,
                is_append=is_append,
                is_clean=is_clean,
                format=PARQUET if is_clean else JSON,
                handed=staged,
                receipt=Receipt(inserted=staged),
                nulls=expected_nulls(stats, columns),
                run_id=self.manifest.run_id,
                input_names=tuple(part.sha256 for part in self.manifest.parts),
            )
        )

    # a load of whole chunks, other runs' rows included

    def _rewrite(self, present: DatasourceState, others: OtherRuns, attempt: int) -> Load:
        from sinks.druid.merging import TIME_KEY, Merge  # noqa: PLC0415 (duckdb and polars, only where rows meet)

        if present.unloaded:
            # Rows that nobody sees may be those of a run that nobody has counted; to write over them would lose them.
            raise UnclearError(f"{present.unloaded} published segments of it are not served")
        manifests = [*others.manifests, self.manifest]
        key = self.manifest.contract.key if self.manifest.mode is WriteMode.MERGE else ()
        with Merge(manifests, run_id=self.manifest.run_id, key=key, ctx=self.ctx) as merge:
            first, last = merge.span()
            granularity = self._granularity(present, first, last)
            held = rows_held(self.client, self.datasource, granularity) if present.chunks else {}
            result = merge.resolve(granularity, held, again=self._rewritten())
            receipt = Receipt(inserted=result.inserted, updated=result.updated, unchanged=result.unchanged)
            if not result.intervals:
                return self._nothing_to_load(attempt, receipt)
            intervals = plan_replacement(
                result.intervals,
                granularity=granularity,
                held_runs={
                    (start, end): frozenset(run for (at, run) in held if start <= at < end)
                    for start, end in result.intervals
                },
                reread_runs=frozenset({self.manifest.run_id, *(found.run_id for found in others.manifests)}),
                given_up_runs=others.withdrawn,
                datasource=self.datasource,
            )
            columns = druid_columns(self.manifest.contract, merge.part_types())
            objects, nulls, written = self._write_merged(merge, columns, attempt)
        self._check_count(written, result.handed)
        return self._planned(
            Load(
                task="",
                attempt=attempt,
                datasource=self.datasource,
                columns=columns,
                granularity=granularity,
                intervals=intervals,
                handed=result.handed,
                receipt=receipt,
                nulls=nulls,
                time_key=TIME_KEY,
                input_names=tuple(item.sha256 for item in objects),
                objects=tuple(objects),
            )
        )

    def _write_merged(
        self, merge: Any, columns: Sequence[DruidColumn], attempt: int
    ) -> tuple[list[StagedObject], dict[str, int], int]:
        """Write the rows of the touched chunks as objects of about 32 MB, and count the nulls of the run's own rows."""
        from sinks.druid.rows import gzipped  # noqa: PLC0415

        objects: list[StagedObject] = []
        nulls = dict.fromkeys((column.name for column in columns), 0)
        blocks: list[bytes] = []
        rows = total = 0

        def close() -> None:
            nonlocal blocks, rows
            if rows:
                name = f"merged-a{attempt}-{len(objects):04d}"
                objects.append(self.staging.staged_blocks(name, gzipped(blocks), rows=rows))
            blocks, rows = [], 0

        for text, frame in merge.rows(columns):
            own = frame.filter(frame[RUN] == self.manifest.run_id)
            for column in columns:
                missing = column.source not in own.columns
                nulls[column.name] += own.height if missing else own[column.source].null_count()
            blocks.append(text)
            rows, total = rows + frame.height, total + frame.height
            if sum(map(len, blocks)) > BLOCK_BYTES:
                close()
        close()
        return objects, nulls, total

    # what is read

    def objects(self, load: Load) -> Sequence[StagedObject]:
        """Return the objects that the load reads, in order; what is missing of the run's own rows is written.

        StoreCorrupt where objects of a merge are gone: what they hold must be decided anew.
        """
        if load.objects is not None:
            if not self.staging.are_there(load.objects):
                raise StoreCorrupt("store.missing", key=load.objects[0].key)
            return load.objects
        if load.is_clean:
            return [self.staging.clean_object(part) for part in self.manifest.parts]
        return [
            self.staging.staged_rows(part, stats, load.columns)
            for part, stats in zip(self.manifest.parts, self._stats(), strict=True)
        ]

    def source(self, load: Load) -> dict[str, Any]:
        """Return the load's inputSource; every object was looked up.

        The source may hold signed addresses, so it is handed over and kept nowhere.
        """
        if not load.handed:
            return {"type": "inline", "data": f'{{"{RESERVED}_time":{_outside(load.intervals)}}}\n'}
        if load.is_inline and load.objects is None:
            return {"type": "inline", "data": self.staging.inline_text(self.manifest.parts, load.columns)}
        objects = self.objects(load)
        self.staging.look_up(objects, is_clean=load.is_clean)
        if load.is_inline:
            return {"type": "inline", "data": self.staging.inline_objects(objects)}
        return self.staging.input_source(objects, is_clean=load.is_clean)

    @property
    def is_emptying(self) -> bool:
        """Return whether the run leaves nothing: a full refresh without rows."""
        return self.manifest.mode is WriteMode.REPLACE and not self.manifest.rows

    @property
    def datasource(self) -> str:
        """Return the name of the pipeline's datasource."""
        return self.config.datasource_of(self.manifest.pipeline)

    def _rewritten(self) -> list[Interval]:
        """Return what an earlier attempt of this delivery has written anew, or has begun to."""
        load = self.previous
        if load is None or load.is_append or load.datasource != self.datasource:
            return []
        return list(load.intervals)

    def _granularity(self, present: DatasourceState | None, first_ms: int, last_ms: int) -> Granularity:
        """Return the granularity of what is there, else the configured one, else one that suits the rows."""
        found = granularity_of(present.chunks) if present is not None else None
        if found is not None:
            return found
        if self.config.segment_granularity is not Granularity.AUTO:
            return self.config.segment_granularity
        return choose_granularity(first_ms, last_ms)

    def _stats(self) -> list["PartStats"]:
        return [self.staging.stats(part) for part in self.manifest.parts]

    def _check_count(self, found: int, expected: int) -> None:
        if found != expected:
            raise count_mismatch(self.delivery.destination, stage="staging", found=found, expected=expected)

    def settings_hash(self) -> str:
        """Return what tells the settings that a plan was made under from others: eight hex digits, of no secrets."""
        # The engine stands in it since there was a choice of two.
        told = {**self.config.model_dump(mode="json", include=set(_PLANNED_BY)), "engine": "native"}
        found = self.staging.input
        text = json.dumps([told, found.kind.value, found.format], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def _nothing_to_load(self, attempt: int, receipt: Receipt) -> Load:
        return Load(task="", attempt=attempt, datasource=self.datasource, receipt=receipt)

    def _planned(self, load: Load) -> Load:
        """Return the load with what is alike for all that have a task."""
        named = replace(
            load,
            task=f"hg.{self.datasource}.{self.manifest.run_id}.{self.delivery.id}.a{load.attempt}",
            time_source=self.manifest.contract.time,
            logical_time=self.manifest.logical_time,
            is_inline=self.staging.input.kind is InputKind.INLINE,
            discovers=self.config.discover_schema,
            settings=self.settings_hash(),
        )
        return replace(named, hash=plan_hash(named.plan()))


def _outside(intervals: Sequence[Interval]) -> int:
    """Return a time in none of the intervals: a row there lets Druid read something, and leave the chunks empty."""
    candidates = [end for _, end in intervals] + [start - 1 for start, _ in intervals]
    return next(at for at in candidates if FIRST_MS <= at < LAST_MS)
