"""A destination to deliver into: a fake Druid, a lake, a clock that moves by itself, and the runs that were published.

`Bench.deliver` calls the sink as the engine does: polls first, then one step after another with the notes kept and the
times kept by moving the clock, so that no test waits.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.ports.batch import PAGE, PART, ROW, RUN
from ingestion.ports.context import Context, Lake
from ingestion.ports.errors import Cancelled, IngestError, SinkUnavailable
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, PartView, WriteMode
from ingestion.ports.schema import Column, ColumnType, ContractBody
from ingestion.ports.sink import CommitStep
from ingestion.toolkit.http.client import Http
from ingestion.toolkit.http.egress import EgressPolicy
from ingestion.toolkit.lake.local import LocalLake
from sinks.druid.config import DruidConfig
from sinks.druid.sink import DruidSink
from tests.conformance.context import MemoryLake
from tests.fakes.druid import FakeDruid

Row = Mapping[str, Any]
PIPELINE = "samples"
LOGICAL_TIME = "2026-01-02T03:04:05.678901+00:00"
CONTRACT = ContractBody(
    name="samples",
    key=("id",),
    columns=(
        Column(name="id", type=ColumnType.INTEGER, nullable=False),
        Column(name="name", type=ColumnType.STRING),
        Column(name="at", type=ColumnType.DATETIME),
    ),
    time="at",
)
KEYLESS = CONTRACT.model_copy(update={"key": ()})
ARROW = {
    ColumnType.INTEGER: pa.int64(),
    ColumnType.NUMBER: pa.float64(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.DATE: pa.date32(),
    ColumnType.DATETIME: pa.timestamp("us", "UTC"),
}
MOST_STEPS = 400
"""Steps of one delivery before a test says that it goes in a circle."""
COMMITTED = (DeliveryState.PUBLISHED, DeliveryState.AVAILABLE)


def day(number: int, hour: int = 6) -> datetime:
    """Return a moment on a day of January 2026."""
    return datetime(2026, 1, 1, hour, tzinfo=UTC) + timedelta(days=number - 1)


def ms(moment: datetime) -> int:
    """Return a moment in milliseconds."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def http_client() -> Http:
    """Return a client that may reach loopback, and does not sleep between tries."""
    policy = EgressPolicy(allow=("127.0.0.0/8",), ports=frozenset(range(1, 65536)))
    return Http(policy, sleep=lambda _: None)


def table_of(rows: Sequence[Row], contract: ContractBody, *, run_id: int, part: str) -> pa.Table:
    """Return rows as cleaning leaves them: declared columns in their types, others as found, then those of our own."""
    declared = {column.name: ARROW.get(column.type, pa.string()) for column in contract.columns}
    extra = sorted({name for row in rows for name in row} - set(declared))
    columns = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in declared.items()}
    columns |= {name: pa.array([row.get(name) for row in rows]) for name in extra}
    return pa.table(
        {
            **columns,
            ROW: pa.array(range(len(rows)), pa.int64()),
            PAGE: pa.array([None] * len(rows), pa.int32()),
            RUN: pa.array([run_id] * len(rows), pa.int64()),
            PART: pa.array([part] * len(rows), pa.string()),
        }
    )


def parquet_of(table: pa.Table) -> bytes:
    """Return a table as a clean part is written."""
    target = io.BytesIO()
    pq.write_table(table, target, compression="zstd", coerce_timestamps="us", version="2.6")
    return target.getvalue()


def put_part(lake: Lake, table: pa.Table, *, run_id: int, lane: int = 0) -> PartView:
    """Return a table stored as a clean part."""
    content = parquet_of(table)
    sha256 = hashlib.sha256(content).hexdigest()
    key = f"clean/{PIPELINE}/{run_id}/{lane}-0/000000-{sha256[:16]}.parquet"
    lake.put_if_absent(key, content)
    return PartView(key, lane, 0, 0, rows=table.num_rows, size_bytes=len(content), sha256=sha256)


@dataclass
class Runs:
    """The runs of a pipeline as the engine would tell a sink of them; None stands for one that was withdrawn."""

    verified: dict[int, Manifest] = field(default_factory=dict)
    others: dict[int, Manifest | None] = field(default_factory=dict)

    def delivered(self, delivery: DeliveryView) -> Sequence[Manifest]:
        """Return what was verified beside this delivery, since the last full refresh."""
        found: list[Manifest] = []
        for run_id in sorted(self.verified, reverse=True):
            if run_id != delivery.run_id:
                found.append(self.verified[run_id])
                if found[-1].mode is WriteMode.REPLACE:
                    break
        return found[::-1]

    def manifests(self, run_ids: Any, *, pipeline_id: int) -> Mapping[int, Manifest | None]:
        """Return what these runs have published, or are about to."""
        known = {**self.verified, **self.others}
        return {run_id: known[run_id] for run_id in run_ids if run_id in known}


@dataclass
class Outcome:
    """Outcome of a delivery: its last step or the error that ended it, its notes, states and what was said on the way."""

    delivery: DeliveryView
    step: CommitStep | None = None
    error: IngestError | None = None
    states: list[DeliveryState] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    @property
    def receipt(self) -> tuple[int, int, int]:
        """Return inserted, updated, unchanged."""
        assert self.error is None, self.error
        assert self.step is not None
        assert self.step.receipt is not None, self.step
        return self.step.receipt.inserted, self.step.receipt.updated, self.step.receipt.unchanged

    @property
    def code(self) -> str:
        """Return the code of the error that ended it, "" where none did."""
        return self.error.code if self.error else ""


class Bench:
    """One destination with all that belongs to it."""

    def __init__(self, druid: FakeDruid, folder: Path, *, lake: Lake | None = None, **settings: Any) -> None:
        self.druid, self.folder = druid, folder
        self.lake: Any = LocalLake(folder / "lake") if lake is None else lake
        self.settings: dict[str, Any] = {"url": druid.overlord_url, **settings}
        self.now = datetime.now(UTC)
        self.runs = Runs()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.http = http_client()
        self.is_stopped = False
        self.destination = "druid"

    @property
    def ctx(self) -> Context:
        """Return what the sink is handed."""
        return Context(
            http=self.http,
            limiter=None,  # type: ignore[arg-type] - no sink asks it
            lake=self.lake,
            clock=lambda: self.now,
            published=self.runs,
            beat=self._beat,
            log=lambda kind, /, **values: self.events.append((kind, values)),
            scratch=self.folder / "scratch",
        )

    @property
    def sink(self) -> DruidSink:
        """Return the sink under the settings as they are now."""
        return DruidSink(DruidConfig(**self.settings))

    def _beat(self) -> None:
        if self.is_stopped:
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    # runs

    def part(self, run_id: int, rows: Sequence[Row], *, lane: int = 0, contract: ContractBody = CONTRACT) -> PartView:
        """Return rows stored as a clean part."""
        return put_part(self.lake, table_of(rows, contract, run_id=run_id, part=f"{lane}-0"), run_id=run_id, lane=lane)

    def manifest(
        self,
        run_id: int,
        *parts: Sequence[Row] | PartView,
        mode: WriteMode = WriteMode.MERGE,
        contract: ContractBody | None = None,
        logical_time: str = LOGICAL_TIME,
    ) -> Manifest:
        """Return what a run publishes: parts of these rows."""
        contract = contract or (CONTRACT if mode is WriteMode.MERGE else KEYLESS)
        views = [
            part if isinstance(part, PartView) else self.part(run_id, part, lane=lane, contract=contract)
            for lane, part in enumerate(parts)
        ]
        return Manifest(
            run_id=run_id,
            pipeline=PIPELINE,
            mode=mode,
            contract=contract,
            contract_version=1,
            parts=tuple(views),
            rows=sum(view.rows for view in views),
            logical_time=logical_time,
        )

    def view(self, manifest: Manifest, **changes: Any) -> DeliveryView:
        """Return a run at the beginning of its way into the destination."""
        view = DeliveryView(
            id=100 + manifest.run_id,
            run_id=manifest.run_id,
            pipeline=manifest.pipeline,
            pipeline_id=1,
            destination=self.destination,
            mode=manifest.mode,
            contract=manifest.contract,
            state=DeliveryState.PLANNED,
            attempt=1,
            logical_time=manifest.logical_time,
        )
        return replace(view, **changes)

    # the engine's part

    def stage(self, manifest: Manifest, view: DeliveryView) -> None:
        """Stage every part."""
        for part in manifest.parts:
            self.sink.stage(part, view, self.ctx)

    def step(self, manifest: Manifest, view: DeliveryView) -> tuple[CommitStep, DeliveryView]:
        """Look at the delivery and take it one step further, as the engine does; return it with its notes."""
        seen = None
        if view.state in (DeliveryState.SUBMITTED, DeliveryState.PUBLISHED):
            seen = self.sink.poll([view], self.ctx).get(view.id)
        step = self.sink.commit(manifest, replace(view, polled=seen), self.ctx)
        return step, replace(view, state=step.state, refs={**view.refs, **step.refs}, polls=view.polls + 1)

    def deliver(
        self,
        manifest: Manifest,
        view: DeliveryView | None = None,
        *,
        until: Callable[[DeliveryView], bool] = lambda _: False,
        goes_on: bool = False,
    ) -> Outcome:
        """Take a run all the way, with the clock moved to each next look; a verified one is known to later runs.

        Ends early where `until` says so, and goes on from there with `goes_on`. An error that the engine would try again
        after is tried again five times.
        """
        view = view or self.view(manifest)
        self.runs.others[manifest.run_id] = manifest
        if not goes_on:
            view = replace(view, state=DeliveryState.STAGED)
            self.stage(manifest, view)
        outcome = Outcome(view)
        failures = 0
        for _ in range(MOST_STEPS):
            try:
                step, view = self.step(manifest, view)
                failures = 0
            except SinkUnavailable as error:
                failures += error.code != "sink.busy"
                self.wait(error.retry_after_s or 2.0**failures)
                if failures < 5:
                    continue
                outcome.error = error
                break
            except IngestError as error:
                outcome.error = error
                break
            outcome.step, outcome.delivery = step, view
            outcome.states.append(step.state)
            outcome.notes += [step.note] if step.note else []
            if until(view) or step.state is DeliveryState.PUBLISHED_NOT_LOADED:
                break
            if step.state in COMMITTED and step.receipt is not None:
                self._verify(manifest, view, step)
                break
            if step.next_poll_s:
                outcome.waits.append(step.next_poll_s)
                self._pass(view, step.next_poll_s)
        else:
            raise AssertionError(f"{MOST_STEPS} steps and no end: {outcome.step}")
        return outcome

    def withdraw(self, run_id: int) -> None:
        """Let a run be cancelled: what it has brought may not be seen any more."""
        self.runs.verified.pop(run_id, None)
        self.runs.others[run_id] = None

    def retry(self, manifest: Manifest, outcome: Outcome) -> Outcome:
        """Deliver again what a person asks for again: its notes stay, its state begins anew."""
        return self.deliver(manifest, replace(outcome.delivery, state=DeliveryState.PLANNED, polls=0))

    def publish(
        self,
        run_id: int,
        *parts: Sequence[Row] | PartView,
        mode: WriteMode = WriteMode.MERGE,
        contract: ContractBody | None = None,
        logical_time: str = LOGICAL_TIME,
    ) -> Outcome:
        """Deliver rows as a run."""
        return self.deliver(self.manifest(run_id, *parts, mode=mode, contract=contract, logical_time=logical_time))

    def _verify(self, manifest: Manifest, view: DeliveryView, step: CommitStep) -> None:
        assert step.receipt is not None
        receipt = step.receipt
        assert receipt.inserted + receipt.updated + receipt.unchanged == manifest.rows
        assert self.sink.count(manifest, view, self.ctx) == receipt.visible
        self.runs.verified[manifest.run_id] = manifest

    def _pass(self, view: DeliveryView, seconds: float) -> None:
        self.wait(seconds)
        task_id = str(view.refs.get("task") or "")
        if self.druid.can_end(task_id):
            self.druid.await_task(task_id)

    # what readers see

    def rows(self, *names: str) -> list[tuple[Any, ...]]:
        """Return these columns of all rows that are published, in order."""
        return sorted((tuple(row.get(name) for name in names) for row in self.druid.rows(PIPELINE)), key=repr)

    def ids(self) -> list[tuple[int, int]]:
        """Return run and id of all rows that are published, in order."""
        return sorted((int(run), int(number)) for run, number in self.rows(RUN, "id"))

    def tasks(self, kind: str = "index_parallel") -> list[dict[str, Any]]:
        """Return the tasks of a kind that were handed over, as they were."""
        found = [
            request.json()
            for request in self.druid.requests
            if (request.method, request.path) == ("POST", "/druid/indexer/v1/task")
        ]
        return [task for task in found if task["type"] == kind]

    def staged(self) -> list[str]:
        """Return what lies in the zone for rows on their way."""
        return [found.key for found in self.lake.list("staged/")]


def memory_bench(druid: FakeDruid, folder: Path, **settings: Any) -> Bench:
    """Return a bench over a lake in memory, from where rows go inline."""
    return Bench(druid, folder, lake=MemoryLake(), **settings)
