"""What a delivery will load, decided before anything is handed over, in a form that can be stored and taken up again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ingestion.ports.batch import RUN
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, SinkRejected
from ingestion.ports.sink import DeliveryView, Manifest, Receipt, WriteMode
from sinks.druid.client import DruidClient
from sinks.druid.columns import DruidColumn, DruidType, druid_columns
from sinks.druid.config import DruidConfig, Engine, Granularity, InputWay
from sinks.druid.intervals import Interval, choose_granularity, granularity_of, widen
from sinks.druid.questions import moments_of, runs_held
from sinks.druid.spec import JSON, PARQUET, LoadPlan, plan_replacement
from sinks.druid.staging import StagedObject, Staging

if TYPE_CHECKING:
    from sinks.druid.rows import PartStats

BLOCK_BYTES = 32 << 20
NOBODY = 0
"""Stands for the run of rows that name none."""
_NOT_YET: dict[str, Any] = {
    **dict.fromkeys(("submitted_at", "published_at", "failed_at", "stored")),
    "failed_looks": 0,
    "is_final": False,
}


@dataclass(frozen=True, slots=True)
class Planned:
    """Notes that a load can be made from, and a sentence about it."""

    refs: dict[str, Any]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Present:
    """What a datasource holds: its chunks, and the runs whose rows lie there (0: rows that name no run)."""

    chunks: tuple[Interval, ...]
    runs: frozenset[int]


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans one delivery."""

    config: DruidConfig
    client: DruidClient
    staging: Staging
    manifest: Manifest
    delivery: DeliveryView
    ctx: Context

    def plan(self, *, attempt: int) -> Planned:
        """Return the notes of the load that brings the run's rows in, under the id of this attempt."""
        present = self._present()
        if self.manifest.mode is WriteMode.REPLACE and not self.manifest.rows:
            return self._empty(attempt)
        if not self.manifest.rows:
            return self._nothing_to_load(attempt, Receipt())
        if self.manifest.mode is WriteMode.MERGE and self.manifest.contract.key:
            return self._rewrite(present, attempt)
        if self.manifest.mode is WriteMode.APPEND and self.manifest.run_id in present.runs:
            # Some of its rows are there, so to append it again would double them: its chunks are written anew.
            return self._rewrite(present, attempt)
        return self._load(present, attempt)

    # a load of the run's own rows

    def _load(self, present: Present, attempt: int) -> Planned:
        from sinks.druid.rows import expected_nulls, span_ms  # noqa: PLC0415 (polars, only where there are rows)

        stats = self._stats()
        staged = sum(part.rows for part in stats)
        if staged != self.manifest.rows:
            raise SinkRejected(
                "sink.count_mismatch",
                destination=self.delivery.destination,
                found=staged,
                expected=self.manifest.rows,
                short=self.manifest.rows - staged,
                stage="staging",
            )
        span = span_ms(stats, logical_time=self.manifest.logical_time)
        first, last = span if span else (0, 0)
        is_append = self.manifest.mode is WriteMode.APPEND
        granularity = self._granularity(present if is_append else None, first, last)
        own = widen((first, last + 1), granularity)
        if is_append:
            intervals: tuple[Interval, ...] = (own,)
        else:
            everything = [*present.chunks, own]
            span_of_all = min(start for start, _ in everything), max(end for _, end in everything)
            intervals = plan_replacement(
                everything,
                granularity=granularity,
                held_runs=self._held([widen(span_of_all, granularity)], present),
                reread_runs=frozenset({self.manifest.run_id}),
                given_up_runs=self._known_runs(present),
                datasource=self.datasource,
            )
        columns = druid_columns(self.manifest.contract, [part.types for part in stats])
        is_clean = self.staging.reads_parquet(stats) and self.config.engine is Engine.NATIVE
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

    def _rewrite(self, present: Present, attempt: int) -> Planned:
        from sinks.druid.merging import TIME_KEY, Merge  # noqa: PLC0415 (duckdb and polars, only where rows meet)

        manifests, withdrawn = self._others(present)
        logical_ms = {
            manifest.run_id: int(datetime.fromisoformat(manifest.logical_time).timestamp() * 1000)
            for manifest in [*manifests, self.manifest]
        }
        leftovers = moments_of(self.client, self.datasource, sorted(withdrawn)) if withdrawn else []
        with Merge(
            [*manifests, self.manifest], run_id=self.manifest.run_id, logical_ms=logical_ms, ctx=self.ctx
        ) as merge:
            first, last = merge.span()
            granularity = self._granularity(present, first, last)
            extra = [widen(moments, granularity) for moments in leftovers]
            result = merge.settle(granularity, extra)
            receipt = Receipt(inserted=result.inserted, updated=result.updated, unchanged=result.unchanged)
            if not result.intervals:
                return self._nothing_to_load(attempt, receipt)
            intervals = plan_replacement(
                result.intervals,
                granularity=granularity,
                held_runs=self._held(result.intervals, present),
                reread_runs=frozenset({self.manifest.run_id, *(manifest.run_id for manifest in manifests)}),
                given_up_runs=withdrawn,
                datasource=self.datasource,
            )
            columns = druid_columns(self.manifest.contract, merge.part_types())
            objects, nulls, written = self._write_merged(merge, columns, attempt)
        if written != result.handed:
            raise SinkRejected(
                "sink.count_mismatch",
                destination=self.delivery.destination,
                found=written,
                expected=result.handed,
                short=result.handed - written,
                stage="staging",
            )
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
        """Return the objects that the noted load reads, in order; what is missing of them is written."""
        if refs["objects"] is not None:
            return [StagedObject(**item) for item in refs["objects"]]
        if refs["clean"]:
            return [self.staging.clean_object(part) for part in self.manifest.parts]
        return [
            self.staging.staged_rows(part, stats)
            for part, stats in zip(self.manifest.parts, self._stats(), strict=True)
        ]

    def source(self, refs: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the noted load's inputSource, and what names its content; every object was looked up.

        The source may hold signed addresses, so it is handed over and kept nowhere.
        """
        if refs["inline"] and refs["objects"] is None:
            columns = [DruidColumn(source, name, DruidType(kind), own) for source, name, kind, own in refs["columns"]]
            text = self.staging.inline_text(self.manifest.parts, columns)
            return {"type": "inline", "data": text}, [part.sha256 for part in self.manifest.parts]
        objects = self.objects(refs)
        self.staging.look_up(objects, is_clean=refs["clean"])
        names = [item.sha256 for item in objects]
        if refs["inline"]:
            return {"type": "inline", "data": self.staging.inline_objects(objects)}, names
        return self.staging.input_source(objects, is_clean=refs["clean"]), names

    # what is there

    @property
    def datasource(self) -> str:
        """Return the name of the pipeline's datasource."""
        return self.config.datasource_of(self.manifest.pipeline)

    def _present(self) -> Present:
        """Return what the datasource holds; SinkRejected where rows lie there that are not the pipeline's."""
        chunks = tuple(self.client.chunks(self.datasource))
        if not chunks or not self.client.has_table(self.datasource):
            return Present(chunks, frozenset())
        if RUN not in self.client.table_columns(self.datasource):
            raise SinkRejected("sink.foreign_rows", destination=self.delivery.destination, where=self.datasource)
        everything = min(start for start, _ in chunks), max(end for _, end in chunks)
        present = Present(chunks, runs_held(self.client, self.datasource, [everything])[everything])
        foreign = present.runs - self._known_runs(present)
        if foreign:
            raise SinkRejected("sink.foreign_rows", destination=self.delivery.destination, where=self.datasource)
        return present

    def _known_runs(self, present: Present) -> frozenset[int]:
        """Return those of the runs with rows there that are runs of this pipeline."""
        if self.ctx.published is None:
            return present.runs - {NOBODY}
        ours = self.ctx.published.manifests(sorted(present.runs - {NOBODY}), pipeline_id=self.delivery.pipeline_id)
        return frozenset(ours)

    def _others(self, present: Present) -> tuple[list[Manifest], frozenset[int]]:
        """Return what other runs have brought, and the runs whose rows may not be there."""
        if self.ctx.published is None:
            if present.runs - {self.manifest.run_id}:
                raise ConfigError("config.invalid", where="the delivery", detail="this process knows no other runs")
            return [], frozenset()
        delivered = {found.run_id: found for found in self.ctx.published.delivered(self.delivery)}
        unknown = sorted(present.runs - set(delivered) - {self.manifest.run_id})
        resolved = self.ctx.published.manifests(unknown, pipeline_id=self.delivery.pipeline_id) if unknown else {}
        # Rows of a delivery that was never verified are the run's all the same; rows of a withdrawn run must go.
        delivered |= {run_id: manifest for run_id, manifest in resolved.items() if manifest is not None}
        withdrawn = frozenset(run_id for run_id, manifest in resolved.items() if manifest is None)
        return [delivered[run_id] for run_id in sorted(delivered)], withdrawn

    def _held(self, intervals: Sequence[Interval], present: Present) -> dict[Interval, frozenset[int]]:
        """Return whose rows lie in each of the intervals, asked for just these."""
        if not present.chunks:
            return {interval: frozenset() for interval in intervals}
        return runs_held(self.client, self.datasource, intervals)

    def _granularity(self, present: Present | None, first_ms: int, last_ms: int) -> Granularity:
        """Return the granularity of what is there, else the configured one, else one that suits the rows."""
        found = granularity_of(present.chunks) if present is not None else None
        if found is not None:
            return found
        if self.config.segment_granularity is not Granularity.AUTO:
            return self.config.segment_granularity
        return choose_granularity(first_ms, last_ms)

    # notes

    def _stats(self) -> list["PartStats"]:
        time = self.manifest.contract.time
        return [self.staging.prepare(part, time_column=time, with_rows=False) for part in self.manifest.parts]

    def _empty(self, attempt: int) -> Planned:
        self.client.mark_all_unused(self.datasource)
        return self._nothing_to_load(attempt, Receipt(), note=f"Datasource {self.datasource} was emptied.")

    def _nothing_to_load(self, attempt: int, receipt: Receipt, *, note: str = "") -> Planned:
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
        return Planned(refs, note or "Nothing has changed, so nothing is loaded.")

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
        prefix = "query-" if self.config.engine is Engine.SQL else ""
        task_id = f"{prefix}hg.{self.datasource}.{self.manifest.run_id}.{self.delivery.id}.a{attempt}"
        return Planned(
            {
                **_NOT_YET,
                "task": task_id,
                "attempt": attempt,
                "datasource": self.datasource,
                "columns": [[item.source, item.name, item.type.value, item.is_declared] for item in columns],
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
                "objects": None if objects is None else [asdict(item) for item in objects],
                "inline": self.staging.way.input is InputWay.INLINE,
            }
        )


def _counts(receipt: Receipt) -> dict[str, int]:
    return {name: getattr(receipt, name) for name in ("inserted", "updated", "unchanged")}


def restore_plan(
    refs: Mapping[str, Any], *, source: Mapping[str, Any], input_names: Sequence[str], discovers: bool
) -> LoadPlan:
    """Return the plan that the notes describe, reading from `source`."""
    columns = tuple(DruidColumn(source, name, DruidType(kind), own) for source, name, kind, own in refs["columns"])
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
        discovers=discovers,
        input_names=tuple(input_names),
        source=source,
    )
