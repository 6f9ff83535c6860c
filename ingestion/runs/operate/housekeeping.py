"""Housekeeping of a destination beside deliveries: looking, tidying up, changing back, removing; for every face."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from django.db import transaction

from ingestion import registry
from ingestion.models import OPEN_DELIVERY_STATES, Delivery, Destination, Pipeline
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, Refused
from ingestion.ports.housekeeping import (
    DroppingSink,
    Housekeeping,
    OutsideTask,
    SchemaChange,
    StoringSink,
    TableSink,
    TaskSink,
)
from ingestion.ports.publication import DeliveryState
from ingestion.ports.schema import ContractBody
from ingestion.runs.deliver.deliveries import LOADING_STATES, is_under_way
from ingestion.runs.record import events
from ingestion.runs.start import contracts
from ingestion.runs.start.places import check_place
from ingestion.runs.work.contexts import sink_context
from ingestion.runs.work.states import move
from ingestion.toolkit.redact import redact

MOST_TASKS = 200
LOG_BYTES = 16_384
MOST_LOG_BYTES = 1 << 20

OPERATIONS: dict[str, type[Any]] = {
    "compact": StoringSink,
    "retain": StoringSink,
    "drop": DroppingSink,
    "schema": TableSink,
    "tasks": TaskSink,
}


def operations_of(kind: str) -> list[str]:
    """Return what can be done with a destination of that kind: of compact, retain, drop, schema and tasks.

    Nothing with one whose kind is not installed any more.
    """
    if kind not in registry.known_kinds("sink"):
        return []
    sink_class = registry.plugin_class("sink", kind)
    return [name for name, port in OPERATIONS.items() if isinstance(sink_class, port)]


def compact(destination: Destination, pipeline: Pipeline, *, dry_run: bool = False) -> Housekeeping:
    """Write the small files of the pipeline's published state together, or say what that would do."""
    with _sink(destination, "compact", pipeline=pipeline) as (sink, ctx):
        found: Housekeeping = sink.compact(pipeline.name, ctx, dry_run=dry_run)
    return found


def retain(
    destination: Destination,
    pipeline: Pipeline,
    *,
    keep_runs: int | None = None,
    keep_days: int | None = None,
    dry_run: bool = False,
) -> Housekeeping:
    """Remove the pipeline's old publications from the destination, or say which these would be."""
    with _sink(destination, "retain", pipeline=pipeline) as (sink, ctx):
        found: Housekeeping = sink.retain(pipeline.name, ctx, keep_runs=keep_runs, keep_days=keep_days, dry_run=dry_run)
    return found


def drop(
    destination: Destination, pipeline: Pipeline, *, confirm: str = "", dry_run: bool = False, by: str = ""
) -> Housekeeping:
    """Remove all of the pipeline from the destination; its deliveries count as removed and can be made again.

    Refused unless `confirm` is the pipeline's name, written out by a person; a dry run needs none.
    """
    if not dry_run and confirm != pipeline.name:
        raise Refused("destination.unconfirmed", pipeline=pipeline.name, destination=destination.name)
    with _sink(destination, "drop", pipeline=pipeline) as (sink, ctx):
        done: Housekeeping = sink.drop(pipeline.name, ctx, dry_run=dry_run)
    if not dry_run:
        _note_removed(destination, pipeline, by=by)
    return done


def plan_schema(destination: Destination, pipeline: Pipeline) -> Sequence[SchemaChange]:
    """Return what the pipeline's next delivery would change in its table, under its newest contract."""
    contract = contracts.latest_version(pipeline.contract) if pipeline.contract else None
    body = ContractBody.model_validate(contract.body) if contract else ContractBody(name=pipeline.name)
    with _sink(destination, "schema") as (sink, ctx):
        found: Sequence[SchemaChange] = sink.plan_schema(pipeline.name, body, ctx)
    return found


def schema_changes(destination: Destination, pipeline: Pipeline) -> Sequence[SchemaChange]:
    """Return the changes of the pipeline's table that can still be reverted, newest first."""
    with _sink(destination, "schema") as (sink, ctx):
        found: Sequence[SchemaChange] = sink.schema_changes(pipeline.name, ctx)
    return found


def revert_schema(destination: Destination, pipeline: Pipeline, change_id: str) -> SchemaChange:
    """Undo one change of the pipeline's table."""
    with _sink(destination, "schema", pipeline=pipeline) as (sink, ctx):
        found: SchemaChange = sink.revert_schema(pipeline.name, change_id, ctx)
    return found


def outside_tasks(destination: Destination, *, limit: int = 50) -> Sequence[OutsideTask]:
    """Return our tasks at the destination, newest first; secrets are taken out of what it says of them."""
    with _sink(destination, "tasks") as (sink, ctx):
        found: Sequence[OutsideTask] = sink.tasks(ctx, limit=min(limit, MOST_TASKS))
    return [replace(task, message=redact(task.message)) for task in found]


def outside_task_log(destination: Destination, task_id: str, *, tail_bytes: int = LOG_BYTES) -> str:
    """Return the end of a task's log without secrets; empty where the destination keeps none."""
    with _sink(destination, "tasks") as (sink, ctx):
        found: str = sink.task_log(task_id, ctx, tail_bytes=min(tail_bytes, MOST_LOG_BYTES))
    # What it was to read stands in it, and with that the signatures of addresses.
    return redact(found)


def outside_task_link(destination: Destination, task_id: str) -> str:
    """Return where the destination's own console shows a task; empty where it has none. Nothing is asked for it."""
    try:
        sink = registry.build_sink(destination)
    except ConfigError:
        return ""
    return sink.task_link(task_id) if isinstance(sink, TaskSink) else ""


def cancel_outside_task(destination: Destination, task_id: str) -> None:
    """Stop one of our tasks at the destination; the delivery it belongs to finds that out by itself."""
    with _sink(destination, "tasks") as (sink, ctx):
        sink.cancel_task(task_id, ctx)


@contextmanager
def _sink(
    destination: Destination, operation: str, *, pipeline: Pipeline | None = None
) -> Iterator[tuple[Any, Context]]:
    """Give the destination's sink if it can do that; with a pipeline, nothing of it may be on its way there."""
    sink = registry.build_sink(destination)
    if not isinstance(sink, OPERATIONS[operation]):
        raise Refused("destination.cannot", destination=destination.name, kind=destination.kind, operation=operation)
    if pipeline is not None:
        # It may have been set up by a version that asked for less.
        check_place(
            kind=destination.kind,
            config=destination.config,
            secrets=destination.secrets,
            name=destination.name,
            own_id=destination.pk,
        )
        under_way = Delivery.objects.filter(
            is_under_way(LOADING_STATES),
            destination=destination,
            run__pipeline=pipeline,
            state__in=OPEN_DELIVERY_STATES,
        )
        first = under_way.values_list("run_id", flat=True).first()
        if first is not None:
            raise Refused("delivery.under_way", destination=destination.name, run=first)
    with sink_context() as ctx:
        yield sink, ctx


def _note_removed(destination: Destination, pipeline: Pipeline, *, by: str) -> None:
    with transaction.atomic():
        rows = Delivery.objects.filter(
            destination=destination, run__pipeline=pipeline, state=DeliveryState.VERIFIED
        ).values_list("pk", "run_id")
        found = list(rows)
        move(
            Delivery.objects.filter(pk__in=[pk for pk, _ in found]),
            expected=DeliveryState.VERIFIED,
            to=DeliveryState.REMOVED,
            # Its notes stay, for a sink that must not take up an outside task of before.
            counted=0,
        )
        for pk, run_id in found:
            events.record(run_id, "delivery.removed", level="warning", destination=destination.name, delivery=pk, by=by)
