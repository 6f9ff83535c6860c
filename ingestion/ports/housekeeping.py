"""The optional abilities of a sink, beside deliveries: removing, compacting, changing tables, showing tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ingestion.ports.context import Context
from ingestion.ports.schema import ContractBody
from ingestion.ports.sink import Sink


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """The outcome of a piece of housekeeping, done or only planned in a dry run: a line each, and what it comes to."""

    actions: tuple[str, ...] = ()
    object_count: int = 0
    size_bytes: int = 0
    is_dry_run: bool = False


@runtime_checkable
class DroppingSink(Sink, Protocol):
    """A sink that can remove all it holds of a pipeline; a person has confirmed it by name before."""

    def drop(self, pipeline: str, ctx: Context, *, dry_run: bool = False) -> Housekeeping:
        """Remove everything of the pipeline from the destination. Idempotent."""
        ...


@runtime_checkable
class StoringSink(Sink, Protocol):
    """A sink of files, which pile up."""

    def compact(self, pipeline: str, ctx: Context, *, dry_run: bool = False) -> Housekeeping:
        """Write the small files of the published state together into larger ones; readers see the same rows."""
        ...

    def retain(
        self, pipeline: str, ctx: Context, *, keep_runs: int | None, keep_days: int | None, dry_run: bool = False
    ) -> Housekeeping:
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
