"""The contract of a sink: how a published run reaches a place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from ingestion.ports.connector import CheckReport
from ingestion.ports.context import Context
from ingestion.ports.schema import ContractBody


class WriteMode(StrEnum):
    """What a publication does with the rows of earlier ones."""

    REPLACE = "replace"
    APPEND = "append"
    MERGE = "merge"


class DeliveryState(StrEnum):
    """How far one run is on its way into one destination."""

    PLANNED = "planned"
    STAGED = "staged"
    SUBMITTED = "submitted"
    PUBLISHED = "published"
    AVAILABLE = "available"
    VERIFIED = "verified"
    PUBLISHED_NOT_LOADED = "published_not_loaded"
    FAILED = "failed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a sink can do, so that the engine asks for it and not for its name."""

    write_modes: frozenset[WriteMode]
    formats: frozenset[str] = frozenset({"parquet"})
    is_transactional: bool = False
    needs_lake: bool = True
    orders_runs: bool = False
    """Whether it takes several runs of a pipeline at once, in any order, and lets none of them undo a newer one."""
    resumes_commit: bool = True
    """Whether a commit that stops half way goes on there when it is called again. One that begins anew (a single
    transaction) must not be stopped at the end of a worker slot: it would never be done."""


@dataclass(frozen=True, slots=True)
class PartView:
    """One clean part: an immutable Parquet object in the lake."""

    key: str
    lane: int
    link: int
    seq: int
    rows: int
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Return "<lane>-<link>-<seq>", unique within the run and stable over retries."""
        return f"{self.lane}-{self.link}-{self.seq:06d}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a run publishes: every clean part, in (lane, link, seq) order, and how to understand it.

    The column `_run` in the parts names the run that read the rows. That is another one where a publication is made
    again (a roll back), so a destination that tells runs apart writes `run_id` in its place.
    """

    run_id: int
    pipeline: str
    mode: WriteMode
    contract: ContractBody
    contract_version: int
    parts: tuple[PartView, ...]
    rows: int
    logical_time: str
    """ISO time of the run's slot, or of its creation: the event time of rows whose contract names none."""


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """One run on its way into one destination, as its sink sees it.

    `refs` is the sink's own notebook (task ids, keys): JSON, given back by CommitStep and kept between calls.
    `looks` counts the looks at its commit so far. `observed` is what `ObservingSink.observe` saw of it just now.
    """

    id: int
    run_id: int
    pipeline: str
    pipeline_id: int
    destination: str
    mode: WriteMode
    contract: ContractBody
    state: DeliveryState
    attempt: int
    logical_time: str
    refs: Mapping[str, Any] = field(default_factory=dict)
    looks: int = 0
    observed: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row that the destination would not take: where it stands, which rule of the destination it broke, and why."""

    part: str
    """Name of the part (PartView.name)."""
    index: int
    """Position in the part, from 0."""
    rule: str
    message: str
    column: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a destination took: rows by what became of them; accepted = the sum of the four counts.

    `refusals` names the refused rows, one each, in the receipt of a commit; they go to quarantine.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    refusals: tuple[Refusal, ...] = ()

    @property
    def visible(self) -> int:
        """Return the rows that a reader must see as this run's."""
        return self.inserted + self.updated


@dataclass(frozen=True, slots=True)
class CommitStep:
    """One step of a commit: the state reached, when to look again, and the receipt once there is one.

    `refs` are added to the delivery's and stored before anything is done on the strength of the step: a sink that is
    about to cause an outside effect returns what names it first, with look_again_s 0, and causes it in the next call.
    PUBLISHED_NOT_LOADED ends the delivery for its run: the rows are there and no reader sees them; a retry looks again.
    """

    state: DeliveryState
    look_again_s: float | None = None
    receipt: Receipt | None = None
    refs: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    """What a person should read about it in the run's log."""


@runtime_checkable
class Sink(Protocol):
    """Writes one kind of destination. Built with its validated Config; every call may come twice."""

    kind: ClassVar[str]
    Config: ClassVar[type[BaseModel]]
    capabilities: ClassVar[Capabilities]

    def check(self, ctx: Context) -> CheckReport:
        """Return whether a delivery could succeed now, each finding with its fix."""
        ...

    def stage(self, part: PartView, delivery: DeliveryView, ctx: Context) -> Receipt:
        """Bring one part's rows to the destination where no reader counts them yet. Idempotent."""
        ...

    def commit(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        """Make the staged rows visible, or look how far that is. Idempotent."""
        ...

    def count(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> int:
        """Return how many of this run's rows a reader of the destination sees."""
        ...

    def abort(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> None:
        """Remove what was staged and is not visible. Idempotent."""
        ...


@runtime_checkable
class ObservingSink(Sink, Protocol):
    """A sink that can look at many deliveries with one question to the destination."""

    def observe(self, deliveries: Sequence[DeliveryView], ctx: Context) -> Mapping[int, Mapping[str, Any]]:
        """Return what the destination says of these deliveries now, by delivery id; one it does not know is left out."""
        ...


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What a piece of upkeep did, or in a dry run would do: a line each, and what it comes to."""

    actions: tuple[str, ...] = ()
    object_count: int = 0
    size_bytes: int = 0
    is_dry_run: bool = False


@runtime_checkable
class DroppingSink(Sink, Protocol):
    """A sink that can remove all it holds of a pipeline; a person has confirmed it by name before."""

    def drop(self, pipeline: str, ctx: Context, *, dry_run: bool = False) -> Upkeep:
        """Remove everything of the pipeline from the destination. Idempotent."""
        ...


@runtime_checkable
class StoringSink(Sink, Protocol):
    """A sink of files, which pile up."""

    def compact(self, pipeline: str, ctx: Context, *, dry_run: bool = False) -> Upkeep:
        """Write the small files of the published state together into larger ones; readers see the same rows."""
        ...

    def retain(
        self, pipeline: str, ctx: Context, *, keep_runs: int | None, keep_days: int | None, dry_run: bool = False
    ) -> Upkeep:
        """Remove publications that are neither part of the published state nor to be kept."""
        ...


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """One difference between a table and a contract, and what bringing them together does.

    `id` names an applied change, which can be reverted until `revertible_until` (ISO time); both are empty in a plan.
    """

    column: str
    what: str
    statement: str
    id: str = ""
    revertible_until: str = ""


@runtime_checkable
class TableSink(Sink, Protocol):
    """A sink into tables, whose columns follow the contract."""

    def plan_schema(self, pipeline: str, contract: ContractBody, ctx: Context) -> Sequence[SchemaChange]:
        """Return what the next delivery under this contract would change in the pipeline's table, in order."""
        ...

    def schema_changes(self, pipeline: str, ctx: Context) -> Sequence[SchemaChange]:
        """Return the applied changes that can still be reverted, newest first."""
        ...

    def revert_schema(self, pipeline: str, change_id: str, ctx: Context) -> SchemaChange:
        """Undo one applied change with the data it set aside, and return it; ConfigError where it cannot be any more."""
        ...


@dataclass(frozen=True, slots=True)
class OutsideTask:
    """A task that a destination runs for us."""

    id: str
    state: str
    dataset: str
    created_at: str
    duration_ms: int | None
    message: str = ""
    link: str = ""


@runtime_checkable
class TaskSink(Sink, Protocol):
    """A sink whose destination works in tasks of its own, which a person may want to see."""

    def tasks(self, ctx: Context, *, limit: int) -> Sequence[OutsideTask]:
        """Return our tasks there, newest first."""
        ...

    def task_link(self, task_id: str) -> str:
        """Return the address at which the destination's own console shows the task; nothing is asked for it."""
        ...

    def task_log(self, task_id: str, ctx: Context, *, tail_bytes: int) -> str:
        """Return the end of the task's log; empty where there is none yet."""
        ...

    def cancel_task(self, task_id: str, ctx: Context) -> None:
        """Stop the task; ConfigError where it is none of ours."""
        ...
