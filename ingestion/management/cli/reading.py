"""Commands that read what was published: export and query."""

import sys
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any

import typer

from ingestion.management.cli.exits import Exit, reported
from ingestion.management.cli.options import (
    AsJson,
    OutFile,
    Quiet,
    find_pipeline,
    find_run,
    parse_timestamp,
    split_names,
)
from ingestion.management.cli.output import Output
from ingestion.ports.errors import ConfigError
from ingestion.runs.read.exports import Published, pour, rows_of_pipeline, rows_of_run, save
from ingestion.runs.read.queries import DEFAULT_ROWS, MAX_ROWS, query_published
from ingestion.toolkit.rows.formats import MEDIA_TYPES, format_of

FileFormat = StrEnum("FileFormat", {name.upper(): name for name in MEDIA_TYPES})  # type: ignore[misc]


@reported
def export(
    pipeline: Annotated[
        str | None, typer.Argument(metavar="[PIPELINE]", help="The pipeline whose published state is written.")
    ] = None,
    *,
    run: Annotated[int | None, typer.Option(metavar="N", help="Write what this run published instead.")] = None,
    output: OutFile = None,
    file_format: Annotated[
        FileFormat | None, typer.Option("--format", help="Of the output; else by the file's extension, else jsonl.")
    ] = None,
    columns: Annotated[str | None, typer.Option(metavar="A,B", help="Only these columns, in this order.")] = None,
    lineage: Annotated[bool, typer.Option("--lineage", help="With _run, _part, _row and _page.")] = False,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Event time at or after it.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Event time before it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Exit:
    """Write published rows to a file, or to standard output as JSON Lines.

    Of a pipeline that merges by key the latest row of each key is written. The file is there whole or not at all.
    """
    out = Output(as_json=as_json, is_quiet=quiet)
    chosen = file_format.value if file_format else (format_of(output) if output else "jsonl")
    _check_place(chosen, has_file=output is not None, as_json=as_json)
    published = _rows(
        pipeline, run, columns=columns, with_lineage=lineage,
        since=parse_timestamp(since, option="--since"), until=parse_timestamp(until, option="--until"),
    )  # fmt: skip
    if output is None:
        count = pour(published, sys.stdout.buffer, file_format=chosen, limit=limit)
        sys.stdout.flush()
        out.say(_sentence(published, count, place="on standard output"))
        return Exit.DONE
    count = save(published, output, file_format=chosen, limit=limit)
    told = {
        "pipeline": published.pipeline, "publication": published.publication, "output": str(output), "format": chosen,
        "columns": list(published.rows.kinds), "rows_written": count, "total": published.rows.total, "exit_code": Exit.DONE,
    }  # fmt: skip
    out.answer(told, lines=[] if quiet else [_sentence(published, count, place=f"in {output}")])
    return Exit.DONE


@reported
def query(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline whose published state is asked.")],
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT over the table rows, in DuckDB's SQL.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=MAX_ROWS, help="At most so many rows.")] = DEFAULT_ROWS,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Exit:
    """Ask what a pipeline has published, in SQL: `ingest query sample "SELECT count(*) FROM rows"`."""
    out = Output(as_json=as_json, is_quiet=quiet)
    answer = query_published(find_pipeline(pipeline), sql, limit=limit)
    # A float of the result is shown as it is, not rounded as the numbers of a run are.
    lines = [[str(cell) if isinstance(cell, float) else cell for cell in row] for row in answer.rows]
    out.table(answer.columns, lines, value={**asdict(answer), "exit_code": Exit.DONE})
    if answer.truncated:
        out.say(f"There are more than {len(answer.rows)} rows: see --limit, or ask for less.")
    return Exit.DONE


def _check_place(file_format: str, *, has_file: bool, as_json: bool) -> None:
    detail = ""
    if not has_file and as_json:
        detail = "--json needs --output, because standard output takes the rows"
    elif not has_file and file_format in ("parquet", "xlsx") and sys.stdout.isatty():
        detail = f"{file_format} cannot be shown here; give --output FILE"
    if detail:
        raise ConfigError("config.invalid", where="the command line", detail=detail)


def _rows(pipeline: str | None, run: int | None, *, columns: str | None, with_lineage: bool, **times: Any) -> Published:
    names = split_names(columns)
    if (pipeline is None) == (run is None):
        raise ConfigError("config.invalid", where="the command line", detail="name either a pipeline or --run N")
    if pipeline is not None:
        return rows_of_pipeline(find_pipeline(pipeline), columns=names, with_lineage=with_lineage, **times)
    if any(times.values()):
        detail = "--since and --until choose from a pipeline's state, not from one run"
        raise ConfigError("config.invalid", where="the command line", detail=detail)
    return rows_of_run(find_run(run or 0), columns=names, with_lineage=with_lineage)


def _sentence(published: Published, count: int, *, place: str) -> str:
    of = "" if count == published.rows.total else f" of {published.rows.total}"
    return f"{count}{of} rows of {published.pipeline}, as run {published.publication} published them, {place}"
