"""What a delivery will load, decided before anything is handed over, in a form that can be stored and taken up again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ingestion.ports.batch import RUN
from ingestion.ports.context import Context
from ingestion.ports.errors import StoreCorrupt, count_mismatch
from ingestion.ports.publication import DeliveryView, Manifest, Receipt, WriteMode
from sinks.druid.client import DruidClient
from sinks.druid.columns import RESERVED, DruidColumn, as_notes, druid_columns, from_notes
from sinks.druid.config import DruidConfig, Engine, Granularity, InputWay
from sinks.druid.intervals import FIRST_MS, LAST_MS, Interval, choose_granularity, granularity_of, listable, widen
from sinks.druid.present import Others, Present, Unsettled, known_runs, look_at, other_runs
from sinks.druid.questions import rows_held
from sinks.druid.spec import JSON, PARQUET, LoadPlan, plan_hash, plan_replacement
from sinks.druid.staging import StagedObject, Staging

if TYPE_CHECKING:
    from sinks.druid.rows import PartStats

BLOCK_BYTES = 32 << 20
SQL_PREFIX = "query-"
_PLANNED_BY = ("datasource", "segment_granularity", "engine", "input", "shares_disk", "staging", "discover_schema")
"""Settings that a plan depends on: one made under others is not handed over any more."""
_NOT_YET: dict[str, Any] = {
    **dict.fromkeys(("submitted_at", "published_at", "failed_at", "unsettled_at", "stored")),
    "failed_looks": 0,
    "is_final": False,
    "is_foreign": False,
    "is_used_up": False,
    "task_message": "",
}


@dataclass(frozen=True, slots=True)
class Planned:
    """Notes that a load can be made from, and a sentence about it."""

    refs: dict[str, Any]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans one delivery."""

    config: DruidConfig
    client: DruidClient
    staging: Staging
    manifest: Manifest
    delivery: DeliveryView
    ctx: Context

    def plan(self, *, attempt: int, is_late: bool) -> Planned:
        """Return the notes of the load that brings the run's rows in, under the id of this attempt.

        Unsettled while it cannot be told what is there; `is_late` says that this has been so for long.
        """
        present = look_at(self.client, self.datasource, is_late=is_late, destination=self.delivery.destination)
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

    def _load(self, present: Present, ours: frozenset[int], attempt: int) -> Planned:
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
        if not is_clean and self.staging.way.input is not InputWay.INLINE:
            for part, found in zip(self.manifest.parts, stats, strict=True):
                self.staging.staged_rows(part, found, columns)
        return self._planned(
            attempt,
            columns=columns,
            granularity=granularity,
            intervals=intervals,
            is_append=is_append,
            is_clean=is_clean,
            handed=staged,
            receipt=Receipt(inserted=staged),
            nulls=expected_nulls(stats, columns),
            run_id=self.manifest.run_id,
            objects=None,
        )

    # a load of whole chunks, other runs' rows included

    def _rewrite(self, present: Present, others: Others, attempt: int) -> Planned:
        from sinks.druid.merging import TIME_KEY, Merge  # noqa: PLC0415 (duckdb and polars, only where rows meet)

        if present.unloaded:
            # Rows that nobody sees may be those of a run that nobody has counted; to write over them would lose them.
            raise Unsettled(f"{present.unloaded} published segments of it are not served")
        manifests = [*others.manifests, self.manifest]
        key = self.manifest.contract.key if self.manifest.mode is WriteMode.MERGE else ()
        with Merge(manifests, run_id=self.manifest.run_id, key=key, ctx=self.ctx) as merge:
            first, last = merge.span()
            granularity = self._granularity(present, first, last)
            held = rows_held(self.client, self.datasource, granularity) if present.chunks else {}
            result = merge.resolve_duplicates(granularity, held, again=self._rewritten())
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
            attempt,
            columns=columns,
            granularity=granularity,
            intervals=intervals,
            is_append=False,
            is_clean=False,
            handed=result.handed,
            receipt=receipt,
            nulls=nulls,
            run_id=None,
            objects=objects,
            time_key=TIME_KEY,
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

    def objects(self, refs: Mapping[str, Any]) -> list[StagedObject]:
        """Return the objects that the noted load reads, in order; what is missing of the run's own rows is written.

        StoreCorrupt where objects of a merge are gone: what they hold must be decided anew.
        """
        if refs["objects"] is not None:
            found = [StagedObject(**item) for item in refs["objects"]]
            if not self.staging.are_there(found):
                raise StoreCorrupt("store.missing", key=found[0].key)
            return found
        if refs["clean"]:
            return [self.staging.clean_object(part) for part in self.manifest.parts]
        columns = from_notes(refs["columns"])
        return [
            self.staging.staged_rows(part, stats, columns)
            for part, stats in zip(self.manifest.parts, self._stats(), strict=True)
        ]

    def source(self, refs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the noted load's inputSource; every object was looked up.

        The source may hold signed addresses, so it is handed over and kept nowhere.
        """
        if not refs["handed"]:
            return {"type": "inline", "data": f'{{"{RESERVED}_time":{_outside(refs["intervals"])}}}\n'}
        if refs["inline"] and refs["objects"] is None:
            text = self.staging.inline_text(self.manifest.parts, from_notes(refs["columns"]))
            return {"type": "inline", "data": text}
        objects = self.objects(refs)
        self.staging.look_up(objects, is_clean=refs["clean"])
        if refs["inline"]:
            return {"type": "inline", "data": self.staging.inline_objects(objects)}
        return self.staging.input_source(objects, is_clean=refs["clean"])

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
        refs = self.delivery.refs
        if refs.get("append") is not False or refs["datasource"] != self.datasource:
            return []
        return [(int(start), int(end)) for start, end in refs["intervals"]]

    def _granularity(self, present: Present | None, first_ms: int, last_ms: int) -> Granularity:
        """Return the granularity of what is there, else the configured one, else one that suits the rows."""
        found = granularity_of(present.chunks) if present is not None else None
        if found is not None:
            return found
        if self.config.segment_granularity is not Granularity.AUTO:
            return self.config.segment_granularity
        return choose_granularity(first_ms, last_ms)

    def _stats(self) -> list["PartStats"]:
        time = self.manifest.contract.time
        return [self.staging.prepare(part, time_column=time, with_rows=False) for part in self.manifest.parts]

    def _check_count(self, found: int, expected: int) -> None:
        if found != expected:
            raise count_mismatch(self.delivery.destination, stage="staging", found=found, expected=expected)

    # notes

    def settings_hash(self) -> str:
        """Return what tells the settings that a plan was made under from others: eight hex digits, of no secrets."""
        told = self.config.model_dump(mode="json", include=set(_PLANNED_BY))
        way = self.staging.way
        text = json.dumps([told, way.input.value, way.format], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def _nothing_to_load(self, attempt: int, receipt: Receipt) -> Planned:
        refs: dict[str, Any] = {
            **_NOT_YET,
            "task": "",
            "attempt": attempt,
            "datasource": self.datasource,
            "intervals": [],
            "handed": 0,
            "receipt": _counts(receipt),
            "nulls": {},
            "published_at": self.ctx.clock().isoformat(),
        }
        return Planned(refs, "" if self.is_emptying else "Nothing has changed, so nothing is loaded.")

    def _planned(
        self,
        attempt: int,
        *,
        columns: Sequence[DruidColumn],
        granularity: Granularity,
        intervals: Sequence[Interval],
        is_append: bool,
        is_clean: bool,
        handed: int,
        receipt: Receipt,
        nulls: Mapping[str, int],
        run_id: int | None,
        objects: Sequence[StagedObject] | None,
        time_key: str | None = None,
    ) -> Planned:
        prefix = SQL_PREFIX if self.config.engine is Engine.SQL else ""
        names = [part.sha256 for part in self.manifest.parts]
        refs: dict[str, Any] = {
            **_NOT_YET,
            "task": f"{prefix}hg.{self.datasource}.{self.manifest.run_id}.{self.delivery.id}.a{attempt}",
            "attempt": attempt,
            "datasource": self.datasource,
            "columns": as_notes(columns),
            "granularity": granularity.value,
            "intervals": [list(interval) for interval in intervals],
            "append": is_append,
            "clean": is_clean,
            "format": PARQUET if is_clean else JSON,
            "time": self.manifest.contract.time,
            "time_key": time_key,
            "logical_time": self.manifest.logical_time,
            "run": run_id,
            "handed": handed,
            "receipt": _counts(receipt),
            "nulls": dict(nulls),
            "inputs": names if objects is None else [item.sha256 for item in objects],
            "objects": None if objects is None else [asdict(item) for item in objects],
            "inline": self.staging.way.input is InputWay.INLINE,
            "discovers": self.config.discover_schema,
            "settings": self.settings_hash(),
        }
        return Planned({**refs, "hash": plan_hash(restore_plan(refs))})


def _counts(receipt: Receipt) -> dict[str, int]:
    return {name: getattr(receipt, name) for name in ("inserted", "updated", "unchanged")}


def _outside(intervals: Sequence[Sequence[int]]) -> int:
    """Return a moment in none of the intervals: a row there lets Druid read something, and leave the chunks empty."""
    candidates = [end for _, end in intervals] + [start - 1 for start, _ in intervals]
    return next(at for at in candidates if FIRST_MS <= at < LAST_MS)


def restore_plan(refs: Mapping[str, Any], *, source: Mapping[str, Any] | None = None) -> LoadPlan:
    """Return the plan that the notes describe, reading from `source`."""
    columns = from_notes(refs["columns"])
    time = next((column.name for column in columns if column.source == refs["time"]), None)
    return LoadPlan(
        datasource=refs["datasource"],
        task_id=refs["task"],
        columns=columns,
        time_column=refs["time_key"] or time,
        logical_time=refs["logical_time"],
        granularity=Granularity(refs["granularity"]),
        intervals=tuple((int(start), int(end)) for start, end in refs["intervals"]),
        format=refs["format"],
        run_id=refs["run"],
        is_append=refs["append"],
        discovers=refs["discovers"],
        is_emptying=not refs["handed"],
        input_names=tuple(refs["inputs"]),
        source=source or {},
    )
