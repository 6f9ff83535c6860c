"""Commands that make runs: upload, run, fetch, retry, rollback; and those that end a run or let it go on: cancel, approve, discard."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from ingestion.management.cli import results, stack
from ingestion.management.cli.exits import Exit, failure, reported
from ingestion.management.cli.following import follow, reading
from ingestion.management.cli.options import (
    AsJson,
    OutFile,
    PriorityOption,
    Quiet,
    RunNumber,
    Wait,
    find_pipeline,
    person,
    split_names,
)
from ingestion.management.cli.output import Output
from ingestion.management.cli.state import STATE
from ingestion.models import PUBLISHED_RUN_STATES, Pipeline, Run, Upload
from ingestion.ports.errors import ConfigError, IngestError, Retryable
from ingestion.runs.deliver.cancellation import cancel_run
from ingestion.runs.operate.approval import approve_run, discard_run
from ingestion.runs.operate.retry import retry_run, roll_back
from ingestion.runs.read.exports import export_accepted, write_accepted
from ingestion.runs.start import contracts, uploads
from ingestion.runs.start.creation import create_run
from ingestion.runs.start.pipelines import fetch_pipeline
from ingestion.toolkit.rows.formats import format_of


@reported
def upload(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="CSV, JSON, JSON Lines, Parquet or XLSX.")],
    *,
    pipeline: Annotated[str | None, typer.Option(help="The pipeline that takes the files.")] = None,
    name: Annotated[
        str | None, typer.Option(metavar="DATASOURCE", help="Find or make a pipeline of this name instead.")
    ] = None,
    contract: Annotated[
        Path | None, typer.Option(help="A contract, as YAML or JSON, to check the rows against.")
    ] = None,
    priority: PriorityOption = None,
    wait: Wait = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Exit:
    """Store files and run them through their pipeline.

    Without --pipeline and --name the pipeline is named after the contract, else after the file. The same file again
    is the same run, unless its contract has changed.
    """
    out = Output(as_json=as_json, is_quiet=quiet)
    if pipeline and name:
        raise ConfigError("config.invalid", where="the command line", detail="--pipeline and --name exclude each other")
    chosen = find_pipeline(pipeline) if pipeline else None
    saved = contracts.save_contract(read_text(contract)).body if contract else None
    started: list[tuple[Path, Run | IngestError]] = []
    for path in files:
        try:
            stored = _store(path, out=out)
            run, is_new = uploads.ingest_upload(
                stored,
                trigger=Run.Trigger.UPLOAD,
                pipeline=chosen,
                datasource_name=name,
                contract=saved,
                priority=priority.number if priority else None,
            )
        except IngestError as error:
            started.append((path, error))
        else:
            if not is_new:
                out.say(f"The content of {path.name} is known: it belongs to run {run.pk}.")
            started.append((path, run))
    if not wait:
        _remark([found for _, found in started if isinstance(found, Run)], out=out)
    told = [
        {"file": str(path)}
        | (failure(found) if isinstance(found, IngestError) else _told_at_end(found, wait=wait, out=out))
        for path, found in started
    ]
    return results.tell_all(told, out=out)


@reported
def run(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="Name of the pipeline.")],
    *,
    priority: PriorityOption = None,
    wait: Wait = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Exit:
    """Run a pipeline now."""
    out = Output(as_json=as_json, is_quiet=quiet)
    made, _ = create_run(
        find_pipeline(pipeline), trigger=Run.Trigger.CLI, priority=priority.number if priority else None
    )
    return _finish(made, wait=wait, out=out)


@reported
def fetch(
    *,
    source: Annotated[str, typer.Option(metavar="KIND", help="Kind of the source, for example optimade.")],
    base_url: Annotated[str, typer.Option(help="Address of the source.")],
    stream: Annotated[str | None, typer.Option(help="What is read from it; else its first stream.")] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="A filter in the source's own language.")] = None,
    fields: Annotated[str | None, typer.Option(metavar="A,B", help="Only these fields.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many records.")] = None,
    output: OutFile = None,
    priority: PriorityOption = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Exit:
    """Read a source and write the accepted rows to a file, or to standard output as JSON Lines.

    The file's format is its extension: .csv, .jsonl, .parquet or .xlsx. The source and its pipeline are made, or found again,
    by kind and host; they stay, and the run can be looked at like any other.
    """
    out = Output(as_json=as_json, is_quiet=quiet)
    if output is None and as_json:
        detail = "--json needs --output, because standard output takes the rows"
        raise ConfigError("config.invalid", where="the command line", detail=detail)
    if output is not None:
        format_of(output)
    pipeline = _fetch_pipeline(source, base_url=base_url, stream=stream)
    only = split_names(fields)
    asked = {"filter": filter_, "fields": only, "limit": limit}
    query = {name: value for name, value in asked.items() if value}
    made, _ = create_run(pipeline, trigger=Run.Trigger.CLI, query=query, priority=priority.number if priority else None)
    told = _told_at_end(made, wait=True, out=out)
    if made.state in PUBLISHED_RUN_STATES:
        rows = (
            export_accepted(made, output, fields=only)
            if output
            else write_accepted(made, sys.stdout.buffer, fields=only)
        )
        told |= {"output": str(output) if output else "-", "rows_written": rows}
    if output is not None:
        return results.tell_all([told], out=out)
    sys.stdout.flush()
    for line in results.lines_of_run(told):
        out.say(line)
    for line in results.errors_of_run(told):
        out.warn(line)
    return Exit(told["exit_code"])


@reported
def retry(run: RunNumber, *, wait: Wait = False, as_json: AsJson = False, quiet: Quiet = False) -> Exit:
    """Go on with a failed or partial run where it stopped."""
    out = Output(as_json=as_json, is_quiet=quiet)
    return _finish(retry_run(run, by=person()), wait=wait, out=out)


@reported
def rollback(run: RunNumber, *, wait: Wait = False, as_json: AsJson = False, quiet: Quiet = False) -> Exit:
    """Publish what an earlier run published again, as a new run."""
    out = Output(as_json=as_json, is_quiet=quiet)
    return _finish(roll_back(run), wait=wait, out=out)


@reported
def approve(run: RunNumber, *, wait: Wait = False, as_json: AsJson = False, quiet: Quiet = False) -> Exit:
    """Publish a held run all the same. Refused once a later run of its pipeline was published."""
    out = Output(as_json=as_json, is_quiet=quiet)
    return _finish(approve_run(run, by=person()), wait=wait, out=out)


@reported
def discard(run: RunNumber, *, as_json: AsJson = False, quiet: Quiet = False) -> Exit:
    """Give a held run up; nothing of it is published."""
    out = Output(as_json=as_json, is_quiet=quiet)
    discarded = discard_run(run, by=person())
    return results.tell_all([results.told_of_run(discarded) | {"exit_code": Exit.DONE}], out=out)


@reported
def cancel(run: RunNumber, *, as_json: AsJson = False, quiet: Quiet = False) -> Exit:
    """Cancel a run; nothing is published after that. Refused once it is being published."""
    out = Output(as_json=as_json, is_quiet=quiet)
    cancelled = cancel_run(run, by=person())
    return results.tell_all([results.told_of_run(cancelled) | {"exit_code": Exit.DONE}], out=out)


def read_text(path: Path) -> str:
    """Return a text file; ConfigError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("file.encoding", name=str(path), offset=error.start) from error
    except OSError as error:
        raise ConfigError("file.unreadable", name=str(path), detail=error.strerror or "") from error


def _store(path: Path, *, out: Output) -> Upload:
    try:
        with path.open("rb") as file, reading(file, name=path.name, size_bytes=path.stat().st_size, out=out) as read:
            stored, _ = uploads.receive(read, name=path.name)
    except OSError as error:
        raise ConfigError("file.unreadable", name=str(path), detail=error.strerror or "") from error
    return stored


def _remark(runs: Sequence[Run], *, out: Output) -> None:
    """Say that nothing works on the runs, where that is so; what was asked for is done all the same."""
    if not STATE.reconciles and not all(run.is_settled for run in runs) and not stack.has_stack():
        out.say(str(Retryable("stack.not_running")))


def _finish(made: Run, *, wait: bool, out: Output) -> Exit:
    if made.message:
        out.say(made.message)
    if not wait:
        _remark([made], out=out)
    return results.tell_all([_told_at_end(made, wait=wait, out=out)], out=out)


def _told_at_end(made: Run, *, wait: bool, out: Output) -> dict[str, Any]:
    """Return what became of the run, after its end where that is wanted; where that cannot come, why not."""
    if (wait or STATE.reconciles) and not made.is_settled:
        try:
            follow(made, out=out, reconciles=STATE.reconciles)
        except Retryable as error:
            told = {"code": error.code, "message": str(error), "exit_code": Exit.UNREACHABLE}
            return results.told_of_run(made) | told
    return results.told_of_run(made)


def _fetch_pipeline(kind: str, *, base_url: str, stream: str | None) -> Pipeline:
    address = base_url.strip().rstrip("/")
    host = urlsplit(address).netloc.rpartition("@")[2] or address
    return fetch_pipeline(kind=kind, config={"base_url": address}, host=host, stream=stream)
