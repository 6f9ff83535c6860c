"""The ground of the tests of all relational sinks: parts of any shape, deliveries, and a reader from outside."""

import hashlib
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.ports.batch import PAGE, PART, ROW, RUN
from ingestion.ports.context import Context, Lake
from ingestion.ports.publication import DeliveryView, Manifest, PartView, Receipt, WriteMode
from ingestion.ports.schema import Column, ColumnType, ContractBody
from sinks.relational.sink import RelationalSink
from tests.conformance.context import MemoryLake, RecordingContext
from tests.conformance.parts import delivery_of, manifest_of

Rows = Sequence[Mapping[str, Any]]


def contract_of(*columns: Column, key: Sequence[str] = ("id",), **changes: Any) -> ContractBody:
    """Return a contract with an integer id and these columns."""
    identity = Column(name="id", type=ColumnType.INTEGER, nullable=False)
    return ContractBody(name="samples", key=tuple(key), columns=(identity, *columns), **changes)


def number(name: str, **changes: Any) -> Column:
    return Column(name=name, type=ColumnType.NUMBER, **changes)


def text(name: str, **changes: Any) -> Column:
    return Column(name=name, type=ColumnType.STRING, **changes)


def integer(name: str, **changes: Any) -> Column:
    return Column(name=name, type=ColumnType.INTEGER, **changes)


PRICED = contract_of(text("name"), number("price"))


def priced(*pairs: tuple[int, float | None], name: str = "x") -> list[dict[str, Any]]:
    """Return rows of (id, price) for PRICED."""
    return [{"id": number_, "name": f"{name}{number_}", "price": price} for number_, price in pairs]


_ARROW = {
    ColumnType.INTEGER: pa.int64(),
    ColumnType.NUMBER: pa.float64(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.DATE: pa.date32(),
    ColumnType.DATETIME: pa.timestamp("us", tz="UTC"),
}


def table_of(rows: Rows, contract: ContractBody, *, types: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    """Return clean rows: the contract's columns in its types, others in those given or inferred."""
    names = list(
        dict.fromkeys([*(column.name for column in contract.columns), *(name for row in rows for name in row)])
    )
    arrays = {}
    for name in names:
        column = contract.column(name)
        declared = _ARROW.get(column.type, pa.string()) if column else (types or {}).get(name)
        arrays[name] = pa.array([row.get(name) for row in rows], declared)
    return pa.table(arrays)


def store(lake: Lake, table: pa.Table, *, run_id: int, lane: int = 0, link: int = 0, seq: int = 0) -> PartView:
    """Put a clean table into the lake as a part of a run."""
    count = table.num_rows
    whole = table
    for name, values in (
        (RUN, pa.array([run_id] * count, pa.int64())),
        (PART, pa.array([f"{lane}-{link}"] * count, pa.string())),
        (ROW, pa.array(range(count), pa.int64())),
        (PAGE, pa.array([None] * count, pa.int32())),
    ):
        whole = whole.append_column(name, values)
    buffer = io.BytesIO()
    pq.write_table(whole, buffer, compression="zstd")
    content = buffer.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    key = f"clean/{run_id}/{lane}-{link}/{seq:06d}-{sha256[:16]}.parquet"
    lake.put_if_absent(key, content)
    return PartView(key, lane, link, seq, rows=count, size_bytes=len(content), sha256=sha256)


@dataclass
class Published:
    """What the runs of one pipeline have published."""

    runs: dict[int, Manifest] = field(default_factory=dict)

    def seen(self, manifest: Manifest) -> DeliveryView:
        """Return the delivery of a run, which counts as published from then on."""
        self.runs[manifest.run_id] = manifest
        newest = self.runs[max(self.runs)]
        if newest.run_id == manifest.run_id:
            return delivery_of(manifest)
        return replace(delivery_of(manifest), newer_contract=newest.contract, newer_run=newest.run_id)

    def state(self, pipeline_id: int) -> list[Manifest]:
        ordered = [self.runs[run_id] for run_id in sorted(self.runs)]
        refreshes = [place for place, manifest in enumerate(ordered) if manifest.mode is WriteMode.REPLACE]
        return ordered[max(refreshes, default=0) :]

    def delivered(self, delivery: DeliveryView) -> list[Manifest]:
        return [manifest for manifest in self.state(delivery.pipeline_id) if manifest.run_id != delivery.run_id]

    def manifests(self, run_ids: Collection[int], *, pipeline_id: int) -> dict[int, Manifest | None]:
        return {run_id: self.runs[run_id] for run_id in run_ids if run_id in self.runs}


@dataclass
class Told:
    """A delivery's own report."""

    manifest: Manifest
    receipt: Receipt

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Return inserted, updated, unchanged, rejected."""
        return self.receipt.inserted, self.receipt.updated, self.receipt.unchanged, self.receipt.rejected


class RelationalPlace:
    """A database under test. `read` and `run` look at it and change it as a person would, in ANSI quotes."""

    __test__ = False
    recording: RecordingContext

    def renew(self) -> None:
        raise NotImplementedError

    def make_relational(self, **settings: Any) -> RelationalSink:
        raise NotImplementedError

    def run(self, *statements: str) -> None:
        raise NotImplementedError

    def read(self, query: str) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def read_rows(self, manifest: Manifest) -> list[dict[str, Any]]:
        if not self.has_table("samples"):
            return []
        found = self.read(f"SELECT id, formula, energy FROM samples WHERE _run = {manifest.run_id} ORDER BY id")  # noqa: S608
        return [dict(zip(("id", "formula", "energy"), row, strict=True)) for row in found]

    def has_table(self, name: str) -> bool:
        raise NotImplementedError

    def own_tables(self) -> list[str]:
        """Return the names of all tables that begin as ours do."""
        raise NotImplementedError

    # --- deliveries

    def begin(self) -> None:
        """Turn to an empty destination and a context of its own."""
        self.renew()
        self.recording = RecordingContext(lake=MemoryLake())
        self.published = Published()
        self.recording.context = replace(self.recording.context, published=self.published)

    @property
    def lake(self) -> MemoryLake:
        return self.recording.lake

    @property
    def ctx(self) -> Context:
        return self.recording.context

    def manifest(
        self,
        run_id: int,
        *tables: pa.Table | Rows,
        mode: WriteMode = WriteMode.MERGE,
        contract: ContractBody = PRICED,
        pipeline: str = "samples",
    ) -> Manifest:
        """Return a run with a part for each table, stored in the lake."""
        parts = [
            store(
                self.lake, table if isinstance(table, pa.Table) else table_of(table, contract), run_id=run_id, lane=lane
            )
            for lane, table in enumerate(tables)
        ]
        return replace(manifest_of(parts, pipeline=pipeline, run_id=run_id, mode=mode), contract=contract)

    def deliver(self, run_id: int, *tables: pa.Table | Rows, sink: RelationalSink | None = None, **of: Any) -> Told:
        """Deliver a run and check its control totals: every row accounted for, and as many to be seen as it says."""
        return self.publish(self.manifest(run_id, *tables, **of), sink=sink)

    def publish(
        self, manifest: Manifest, *, sink: RelationalSink | None = None, differences: Sequence[str] = ()
    ) -> Told:
        """Stage and commit a run, and check its control totals."""
        sink = sink or self.make_relational()
        delivery = self.published.seen(manifest)
        for part in manifest.parts:
            sink.stage(part, delivery, self.ctx)
        receipt = sink.commit(manifest, delivery, self.ctx).receipt
        assert receipt is not None
        told = Told(manifest, receipt)
        assert sum(told.counts) == manifest.rows
        assert len(receipt.rejections) == receipt.rejected
        assert sink.count(manifest, delivery, self.ctx) == receipt.visible
        assert sink.differences(manifest, delivery, self.ctx) == list(differences)
        return told

    def later(self, **period: float) -> None:
        """Let time pass."""
        self.recording.now += timedelta(**period)

    @contextmanager
    def seen_on_beats(self, look: Callable[[], Any]) -> Iterator[list[Any]]:
        """Collect what `look` returns at every beat."""
        seen: list[Any] = []
        kept = self.ctx
        self.recording.context = replace(kept, beat=lambda: seen.append(look()))
        try:
            yield seen
        finally:
            self.recording.context = kept
