"""A sink that can do everything a destination can be asked for, in memory; what it was asked stands in `plugins.CALLS`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError
from ingestion.ports.housekeeping import Housekeeping, OutsideTask, SchemaChange
from ingestion.ports.publication import DeliveryView, Manifest, Receipt, Rejection
from ingestion.ports.schema import ContractBody
from ingestion.ports.sink import CommitStep
from tests.fakes import plugins

ADDED = SchemaChange("colour", "The column is added.", "ALTER TABLE items ADD COLUMN colour TEXT")
WIDENED = SchemaChange("size", "The column is widened.", "ALTER TABLE items ...", "c1", "2030-01-08T00:00:00+00:00")
TASK = OutsideTask(
    id="hg.items.1.1.a1",
    state="RUNNING",
    dataset="items",
    created_at="2026-01-01T00:00:00Z",
    duration_ms=None,
    message="reads https://store/key?X-Amz-Signature=canary-1",
    link="http://console/hg.items.1.1.a1",
)


class KeepingSink(plugins.MemorySink):
    """The memory sink with all that a person may ask for; `refuse.first` lets it refuse the first row of a run."""

    Config: ClassVar[type] = plugins.MemorySink.Config

    def commit(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        """Commit as the memory sink does, less a row that it refuses where asked for."""
        step = super().commit(manifest, delivery, ctx)
        if step.receipt is None or not plugins.trouble("refuse.first"):
            return step
        self.committed[manifest.run_id] -= 1
        rejection = Rejection(manifest.parts[0].name, 0, "too_long", "The name is too long for the table.", "name")
        receipt = Receipt(inserted=step.receipt.inserted - 1, rejected=1, rejections=(rejection,))
        return replace(step, receipt=receipt)

    def drop(self, pipeline: str, ctx: Context, *, dry_run: bool = False) -> Housekeeping:
        """Note that all of it is to go."""
        return _done(f"drop {pipeline}", dry_run=dry_run)

    def compact(self, pipeline: str, ctx: Context, *, dry_run: bool = False) -> Housekeeping:
        """Note that it is to be compacted."""
        return _done(f"compact {pipeline}", dry_run=dry_run)

    def retain(
        self, pipeline: str, ctx: Context, *, keep_runs: int | None, keep_days: int | None, dry_run: bool = False
    ) -> Housekeeping:
        """Note what is to be kept."""
        return _done(f"retain {pipeline} {keep_runs} {keep_days}", dry_run=dry_run)

    def plan_schema(self, pipeline: str, contract: ContractBody, ctx: Context) -> Sequence[SchemaChange]:
        """Return one change to come."""
        return (ADDED,)

    def schema_changes(self, pipeline: str, ctx: Context) -> Sequence[SchemaChange]:
        """Return the one change that was made."""
        return (WIDENED,)

    def revert_schema(self, pipeline: str, change_id: str, ctx: Context) -> SchemaChange:
        """Undo the one change that was made."""
        if change_id != WIDENED.id:
            raise ConfigError("config.invalid", where="memory", detail=f"there is no change {change_id}")
        plugins.CALLS.append(f"revert {pipeline} {change_id}")
        return WIDENED

    def tasks(self, ctx: Context, *, limit: int) -> Sequence[OutsideTask]:
        """Return the one task."""
        return (TASK,)[:limit]

    def task_link(self, task_id: str) -> str:
        """Return where a console would show it."""
        return f"http://console/{task_id}"

    def task_log(self, task_id: str, ctx: Context, *, tail_bytes: int) -> str:
        """Return a log with a secret in it."""
        return f"{task_id} reads https://store/key?X-Amz-Signature=canary-1\nand is done\n"[-tail_bytes:]

    def cancel_task(self, task_id: str, ctx: Context) -> None:
        """Note that it is to end."""
        plugins.CALLS.append(f"cancel {task_id}")


def _done(what: str, *, dry_run: bool) -> Housekeeping:
    if not dry_run:
        plugins.CALLS.append(what)
    return Housekeeping((f"{what}: 3 files",), object_count=3, size_bytes=2048, is_dry_run=dry_run)
