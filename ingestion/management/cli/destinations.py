"""Commands about destinations: destinations and check look, compact, retain, drop and schema change, tasks does both."""

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from ingestion.management.cli.exits import Exit, reported
from ingestion.management.cli.options import (
    AsJson,
    DestinationName,
    DryRun,
    Limit,
    PipelineName,
    Quiet,
    find_destination,
    find_pipeline,
    find_place,
    person,
)
from ingestion.management.cli.output import Output
from ingestion.models import Destination, Source
from ingestion.ports.errors import ConfigError
from ingestion.ports.housekeeping import Housekeeping, OutsideTask
from ingestion.runs.operate import housekeeping
from ingestion.runs.read.destinations import address_of, health_of
from ingestion.runs.read.history import deliveries_of_tasks
from ingestion.runs.start import probing

MOST_DAYS = 36_500
_KILOBYTE = 1024


@reported
def destinations(*, as_json: AsJson = False) -> Exit:
    """List the destinations: where they are, how they fare, and what can be done with them."""
    out = Output(as_json=as_json)
    found = list(Destination.objects.order_by("name").prefetch_related("pipelines"))
    health = health_of(found)
    told = [
        {
            "destination": place.name,
            "kind": place.kind,
            "address": address_of(place.config),
            **{name: getattr(health[place.pk], name) for name in ("state", "open", "failed", "rows")},
            "last_verified_at": health[place.pk].last_verified_at,
            "last_verified_run": health[place.pk].last_verified_run,
            "pipelines": sorted(pipeline.name for pipeline in place.pipelines.all()),
            "failing": [each.pipeline for each in health[place.pk].failing],
            "operations": housekeeping.operations_of(place.kind),
        }
        for place in found
    ]
    columns = (
        "destination", "kind", "address", "state", "open", "failed", "rows", "last_verified_at", "last_verified_run",
        "pipelines", "failing", "operations",
    )  # fmt: skip
    rows = [[_joined(one[name]) for name in columns] for one in told]
    wide = ("last_verified_run", "failing", "operations")
    out.table(columns, rows, value={"destinations": told}, wide=wide)
    return Exit.DONE


@reported
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a source or destination.")],
    *,
    is_source: Annotated[bool, typer.Option("--source", help="The source, where a destination has its name.")] = False,
    is_destination: Annotated[
        bool, typer.Option("--destination", help="The destination, where a source has its name.")
    ] = False,
    as_json: AsJson = False,
) -> Exit:
    """Try a source or destination out, layer by layer: which one answers, and how fast. Exit code 1 where one does not."""
    out = Output(as_json=as_json)
    place = find_place(name, is_source=is_source, is_destination=is_destination)
    report = probing.check_source(place) if isinstance(place, Source) else probing.check_destination(place)
    columns = ("layer", "ok", "ms", "detail", "fix", "code")
    rows = [
        (finding.layer, finding.ok, finding.elapsed_ms, finding.detail, finding.fix, finding.code)
        for finding in report.findings
    ]
    what = "source" if isinstance(place, Source) else "destination"
    value = {what: name, "ok": report.ok, "findings": [dict(zip(columns, row, strict=True)) for row in rows]}
    out.table(columns, rows, value=value)
    return Exit.DONE if report.ok else Exit.FAILED


@reported
def compact(
    destination: DestinationName, *, pipeline: PipelineName, dry_run: DryRun = False, as_json: AsJson = False
) -> Exit:
    """Write the small files of a pipeline's published state together; readers see the same rows all the time."""
    place, chosen = find_destination(destination), find_pipeline(pipeline)
    done = housekeeping.compact(place, chosen, dry_run=dry_run)
    return _tell(done, destination=place.name, pipeline=chosen.name, out=Output(as_json=as_json))


@reported
def retain(
    destination: DestinationName,
    *,
    pipeline: PipelineName,
    keep_runs: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Keep the newest N publications, whatever their age.")
    ] = None,
    keep_days: Annotated[
        int | None, typer.Option(min=0, max=MOST_DAYS, metavar="N", help="Keep those of the last N days.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> Exit:
    """Remove publications that nothing keeps. What readers see stays, and without a rule all publications do."""
    place, chosen = find_destination(destination), find_pipeline(pipeline)
    done = housekeeping.retain(place, chosen, keep_runs=keep_runs, keep_days=keep_days, dry_run=dry_run)
    return _tell(done, destination=place.name, pipeline=chosen.name, out=Output(as_json=as_json))


@reported
def drop(
    destination: DestinationName,
    *,
    pipeline: PipelineName,
    yes: Annotated[
        str, typer.Option("--yes", metavar="PIPELINE", help="The pipeline's name once more: it is meant.")
    ] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Exit:
    """Remove all rows of a pipeline from a destination. The lake keeps them, and `redeliver` brings them back.

    On a terminal the pipeline's name is asked for; elsewhere it must be given by --yes.
    """
    out = Output(as_json=as_json, is_quiet=quiet)
    place, chosen = find_destination(destination), find_pipeline(pipeline)
    if not dry_run and not yes and out.can_ask:
        planned = housekeeping.drop(place, chosen, dry_run=True)
        for line in _lines(replace(planned, is_dry_run=False)):
            out.warn(line)
        yes = out.ask(f"To remove all of {chosen.name} from {place.name}, type the pipeline's name:")
    done = housekeeping.drop(place, chosen, confirm=yes, dry_run=dry_run, by=person())
    return _tell(done, destination=place.name, pipeline=chosen.name, out=out)


@reported
def schema(
    destination: DestinationName,
    *,
    pipeline: PipelineName,
    revert: Annotated[str | None, typer.Option(metavar="ID", help="Undo this change of the table.")] = None,
    as_json: AsJson = False,
) -> Exit:
    """Show what a pipeline's next delivery would change in its table, and which changes can be undone."""
    out = Output(as_json=as_json)
    place, chosen = find_destination(destination), find_pipeline(pipeline)
    where: dict[str, Any] = {"destination": place.name, "pipeline": chosen.name}
    if revert is not None:
        undone = housekeeping.revert_schema(place, chosen, revert)
        value = where | {"reverted": asdict(undone), "exit_code": Exit.DONE}
        out.answer(value, lines=[f"Undone, column {undone.column}: {undone.what}", f"  {undone.statement}"])
        return Exit.DONE
    planned = [asdict(change) for change in housekeeping.plan_schema(place, chosen)]
    applied = [asdict(change) for change in housekeeping.schema_changes(place, chosen)]
    names = ("column", "what", "statement", "id", "revertible_until")
    rows = [
        (when, *(change[name] for name in names))
        for when, changes in (("planned", planned), ("applied", applied))
        for change in changes
    ]
    out.table(("when", *names), rows, value=where | {"planned": planned, "applied": applied})
    if not rows:
        out.say("The table fits the contract, and no change can be undone any more.")
    return Exit.DONE


@reported
def tasks(
    destination: DestinationName,
    *,
    log: Annotated[str | None, typer.Option(metavar="TASK", help="Show the end of this task's log.")] = None,
    tail: Annotated[
        int, typer.Option(min=1, max=housekeeping.MOST_LOG_BYTES, metavar="BYTES", help="How much of the log.")
    ] = housekeeping.LOG_BYTES,
    cancel: Annotated[str | None, typer.Option(metavar="TASK", help="Stop this task.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> Exit:
    """List our tasks at a destination that works in tasks of its own, such as Druid; show a log, or stop one."""
    out = Output(as_json=as_json)
    if log and cancel:
        raise ConfigError("config.invalid", where="the command line", detail="--log and --cancel exclude each other")
    place = find_destination(destination)
    if cancel:
        housekeeping.cancel_outside_task(place, cancel)
        value = {"destination": place.name, "task": cancel, "is_cancelled": True, "exit_code": Exit.DONE}
        out.answer(value, lines=[f"{place.name} was told to stop {cancel}; its delivery finds that out by itself."])
        return Exit.DONE
    if log:
        text = housekeeping.outside_task_log(place, log, tail_bytes=tail)
        out.answer({"destination": place.name, "task": log, "log": text}, lines=text.splitlines())
        if not text:
            out.say(f"{place.name} keeps no log of {log}, or none yet.")
        return Exit.DONE
    found = housekeeping.outside_tasks(place, limit=limit)
    return _list_tasks(place, found, out=out)


def _list_tasks(place: Destination, found: Any, *, out: Output) -> Exit:
    deliveries = deliveries_of_tasks(place, [task.id for task in found])
    told = [_told_of_task(task) | {"delivery": None, "run": None} for task in found]
    for one in told:
        if one["task"] in deliveries:
            delivery = deliveries[one["task"]]
            one |= {"delivery": delivery.pk, "run": delivery.run_id}
    columns = ("task", "state", "dataset", "created_at", "duration_ms", "run", "delivery", "message", "link")
    rows = [[one[name] for name in columns] for one in told]
    out.table(columns, rows, value={"destination": place.name, "tasks": told}, wide=("dataset", "delivery", "link"))
    return Exit.DONE


def _told_of_task(task: OutsideTask) -> dict[str, Any]:
    told = asdict(task)
    return {"task": told.pop("id"), **told}


def _tell(done: Housekeeping, *, out: Output, **where: str) -> Exit:
    out.answer({**where, **asdict(done), "exit_code": Exit.DONE}, lines=_lines(done))
    return Exit.DONE


def _lines(done: Housekeeping) -> list[str]:
    if not done.actions:
        return ["There is nothing to be done."]
    size = done.size_bytes / _KILOBYTE
    dry = " Nothing was changed: this was a dry run." if done.is_dry_run else ""
    return [*done.actions, f"In all {done.object_count} objects, {size:,.1f} KiB.{dry}"]


def _joined(cell: Any) -> Any:
    return ", ".join(cell) if isinstance(cell, list) else cell
