"""Commands that show what there is: runs, show, rejected, sources, pipelines, contracts."""

import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from ingestion.management.cli import results
from ingestion.management.cli.deliveries import states_in_short, told_of_history
from ingestion.management.cli.exits import Exit, exit_of_run, reported
from ingestion.management.cli.following import describe_progress, follow, stage_of
from ingestion.management.cli.options import (
    AsJson,
    Limit,
    OutFile,
    Quiet,
    RunNumber,
    Wait,
    choice_with_old_names,
    contract_label,
    find_pipeline,
    find_run,
)
from ingestion.management.cli.output import Output, as_text
from ingestion.management.cli.state import STATE
from ingestion.models import Contract, Delivery, Pipeline, Run, RunEvent, RunState, Source
from ingestion.ports.errors import ConfigError
from ingestion.runs.read import quarantine
from ingestion.runs.read.destinations import address_of
from ingestion.runs.read.history import histories_of
from ingestion.runs.read.progress import CONTROL_TOTALS, measure_progress, progress_as_dict, summarize
from ingestion.runs.start.admission import explain_waiting

TABLE_ROWS = 100
EVENTS = 15

StateName = StrEnum("StateName", {state.name: state.value for state in RunState})  # type: ignore[misc]
Format = StrEnum("Format", {"TABLE": "table", **{name.upper(): name for name in quarantine.FORMATS}})  # type: ignore[misc]


@reported
def runs(
    *,
    state: Annotated[StateName | None, typer.Option(help="Only runs in this state.")] = None,
    pipeline: Annotated[str | None, typer.Option(help="Only runs of this pipeline.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> Exit:
    """List the runs, newest first."""
    out = Output(as_json=as_json)
    found = Run.objects.select_related("pipeline").order_by("-pk")
    if state:
        found = found.filter(state=state.value)
    if pipeline:
        found = found.filter(pipeline=find_pipeline(pipeline))
    shown = list(found[:limit])
    columns = ("run", "pipeline", "state", "code", "trigger", *CONTROL_TOTALS, "created", "finished")
    rows = [
        (run.pk, run.pipeline.name, run.state, run.code, run.trigger, *(getattr(run, name) for name in CONTROL_TOTALS),
         run.created_at, run.finished_at)
        for run in shown
    ]  # fmt: skip
    value = [
        {**summarize(run), "trigger": run.trigger, "created_at": run.created_at, "finished_at": run.finished_at}
        for run in shown
    ] if as_json else []  # fmt: skip
    out.table(columns, rows, value={"runs": value}, wide=("trigger", "duplicate", "filtered", "finished"))
    return Exit.DONE


@reported
def show(run: RunNumber, *, wait: Wait = False, as_json: AsJson = False, quiet: Quiet = False) -> Exit:
    """Show a run: its control totals, stages, deliveries, why it waits, and the end of its log."""
    out = Output(as_json=as_json, is_quiet=quiet)
    found = find_run(run)
    waits = wait or STATE.reconciles
    if waits:
        follow(found, out=out, reconciles=STATE.reconciles)
    told = _everything(found)
    out.answer(told, lines=_lines(told))
    return exit_of_run(found) if waits else Exit.DONE


@reported
def rejected(
    run: RunNumber,
    *,
    rule: Annotated[str | None, typer.Option(help="Only rows that broke this rule.")] = None,
    column: Annotated[str | None, typer.Option(help="Only rows with an error in this column.")] = None,
    outcome: Annotated[
        str | None,
        typer.Option(
            parser=choice_with_old_names("--outcome", quarantine.OUTCOMES, renamed=quarantine.RENAMED_OUTCOMES),
            metavar=f"[{'|'.join(quarantine.OUTCOMES)}]",
            help="Only rows that ended in this way.",
        ),
    ] = None,
    file_format: Annotated[
        Format | None, typer.Option("--format", help="Of the output; else by the file's extension, else a table.")
    ] = None,
    output: OutFile = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows in a table or JSON object.")] = TABLE_ROWS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Exit:
    """Show or download the rows that a contract or a destination rejected, and duplicates: the rule each broke, as it came."""
    out = Output(as_json=as_json, is_quiet=quiet)
    found = find_run(run)
    wanted = {"rule": rule, "column": column, "outcome": outcome}
    chosen = file_format.value if file_format else (_format_of(output) if output else "table")
    if chosen != "table":
        data = quarantine.download_rejected(found, file_format=chosen, **wanted)
        _write(data, output, is_binary=chosen == "xlsx")
        if output:
            out.say(f"Written: {output}")
        return Exit.DONE
    if output:
        detail = "a table goes to standard output; choose --format csv, jsonl or xlsx for a file"
        raise ConfigError("config.invalid", where="the command line", detail=detail)
    rows = list(islice(quarantine.iterate_rejected(found, **wanted), limit + 1))
    columns = ("part", "row", "outcome", "destination", "column", "rule", "value", "message", "raw")
    lines = [
        (row["part"], row["_row"], row["outcome"], row["destination"], error["column"], error["rule"], error["value"],
         error["message"], row["raw"])
        for row in rows[:limit]
        for error in row["errors"]
    ]  # fmt: skip
    has_more = len(rows) > limit
    value = {"run": found.pk, "rows": rows[:limit], "has_more": has_more}
    out.table(columns, lines, value=value, wide=("part", "raw"))
    if has_more:
        out.say(f"There are more than {limit} rows: see --limit, or write all to a file with --output rejected.csv")
    return Exit.DONE


@reported
def sources(*, as_json: AsJson = False) -> Exit:
    """List the configured sources."""
    out = Output(as_json=as_json)
    columns = ("source", "kind", "address", "requests_per_s", "pipelines")
    rows = [
        (source.name, source.kind, address_of(source.config), source.rate_per_s,
         sorted(pipeline.name for pipeline in source.pipelines.all()))
        for source in Source.objects.order_by("name").prefetch_related("pipelines")
    ]  # fmt: skip
    _list(out, "sources", columns, rows)
    return Exit.DONE


@reported
def pipelines(*, as_json: AsJson = False) -> Exit:
    """List the pipelines, with what became of the last run of each."""
    out = Output(as_json=as_json)
    columns = ("pipeline", "source", "stream", "mode", "contract", "destinations", "paused", "last_run", "state")
    rows = []
    for pipeline in Pipeline.objects.select_related("source", "contract").prefetch_related("destinations"):
        last = pipeline.runs.order_by("-pk").first()
        destinations = sorted(destination.name for destination in pipeline.destinations.all())
        rows.append(
            (pipeline.name, pipeline.source.name, pipeline.stream, pipeline.mode, contract_label(pipeline.contract),
             destinations, pipeline.is_paused, last.pk if last else None, last.state if last else None)
        )  # fmt: skip
    _list(out, "pipelines", columns, rows, wide=("stream", "mode", "paused"))
    return Exit.DONE


@reported
def contracts(*, as_json: AsJson = False) -> Exit:
    """List the contracts, the newest version of each first."""
    out = Output(as_json=as_json)
    columns = ("contract", "version", "is_draft", "key", "columns", "pipelines", "created_at")
    rows = [
        (contract.name, contract.version, contract.is_draft, contract.body.get("key", []),
         len(contract.body.get("columns", [])), sorted(pipeline.name for pipeline in contract.pipelines.all()),
         contract.created_at)
        for contract in Contract.objects.order_by("name", "-version").prefetch_related("pipelines")
    ]  # fmt: skip
    _list(out, "contracts", columns, rows)
    return Exit.DONE


def _list(
    out: Output, name: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]], *, wide: tuple[str, ...] = ()
) -> None:
    plain = [tuple(", ".join(cell) if isinstance(cell, list) else cell for cell in row) for row in rows]
    out.table(columns, plain, value={name: [dict(zip(columns, row, strict=True)) for row in rows]}, wide=wide)


def _everything(run: Run) -> dict[str, Any]:
    waiting = explain_waiting(run)
    events = list(reversed(RunEvent.objects.filter(run=run).order_by("-pk")[:EVENTS]))
    progress = measure_progress(run)
    told = results.told_of_run(run)
    histories = histories_of(Delivery.objects.filter(run=run))
    return {
        **told,
        "deliveries": [
            {**delivery, "history": told_of_history(histories.get(delivery["delivery"], ()))}
            for delivery in told["deliveries"]
        ],
        "source": run.pipeline.source.name,
        "stage": stage_of(progress),
        "speed": describe_progress(progress),
        "trigger": run.trigger,
        "contract": contract_label(run.contract),
        "query": run.query,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "progress": progress_as_dict(progress),
        "waiting": {"cause": waiting.cause, "sentence": waiting.sentence, "until": waiting.until} if waiting else None,
        "events": [
            {"at": event.created_at, "kind": event.kind, "level": event.level, "message": event.message,
             "values": event.values}
            for event in events
        ],
    }  # fmt: skip


def _lines(told: Mapping[str, Any]) -> Iterable[str]:
    yield from results.lines_of_run(dict(told))
    yield from results.errors_of_run(dict(told))
    if told["waiting"]:
        until = f" (until {as_text(told['waiting']['until'])} at the latest)" if told["waiting"]["until"] else ""
        yield f"waiting    {told['waiting']['sentence']}{until}"
    for name in ("source", "contract", "trigger", "query", "created_at", "started_at", "finished_at", "speed"):
        if told[name]:
            yield f"{name.removesuffix('_at'):<10} {as_text(told[name])}"
    for stage in told["progress"]["stages"]:
        failed = f", {stage['failed']} failed" if stage["failed"] else ""
        if stage["total"]:
            yield f"{stage['stage']:<10} {stage['done']} of {stage['total']}{failed}"
    for delivery in told["deliveries"]:
        counts = ", ".join(f"{delivery[name]} {name}" for name in ("inserted", "updated", "unchanged", "rejected"))
        counted = "" if delivery["counted"] is None else f"; {delivery['counted']} counted there"
        yield f"delivery   {delivery['destination']}: {delivery['state']}; {counts}{counted}"
        yield f"           {states_in_short(delivery['history'])}"
    for event in told["events"]:
        text = event["message"] or ", ".join(f"{name}={value}" for name, value in event["values"].items())
        yield f"{as_text(event['at'])}  {event['kind']}  {text}".rstrip()


def _format_of(path: Path) -> str:
    found = path.suffix.lower().removeprefix(".")
    if found not in quarantine.FORMATS:
        known = ", ".join(f".{name}" for name in quarantine.FORMATS)
        raise ConfigError("file.unknown_output", name=path.name, known=known)
    return found


def _write(data: Iterable[bytes], path: Path | None, *, is_binary: bool) -> None:
    if path is None:
        if is_binary and sys.stdout.isatty():
            detail = "a workbook cannot be shown here; give --output FILE"
            raise ConfigError("config.invalid", where="the command line", detail=detail)
        for block in data:
            sys.stdout.buffer.write(block)
        sys.stdout.flush()
        return
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as file:
            file.writelines(data)
        partial.replace(path)
    except OSError as error:
        raise ConfigError("file.unwritable", name=str(path), detail=error.strerror or "") from error
    finally:
        partial.unlink(missing_ok=True)
