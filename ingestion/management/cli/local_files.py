"""Commands about files on this machine: convert, which needs neither database nor broker, and contract."""

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ingestion.management.cli.exits import Exit, exit_of_error, reported, worst
from ingestion.management.cli.options import AsJson, Quiet, contract_label
from ingestion.management.cli.output import Output
from ingestion.management.cli.starting import read_text
from ingestion.ports.errors import ConfigError, IngestError
from ingestion.runs.start.contracts import full_refreshes, save_contract


@partial(reported, needs_tables=False)
def convert(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="CSV, JSON, JSON Lines, Parquet or XLSX.")],
    *,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the converted files are written.")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Exit:
    """Write what Headgate understands of each file as CSV: UTF-8, RFC 4180, every cell as text.

    DATA.xlsx becomes DIR/DATA_converted.csv. Rows that cannot be read are left out and told on standard error, one
    JSON object a line, as are files that cannot be read at all; these give exit code 2.
    """
    out = Output(as_json=as_json, is_quiet=quiet)
    told: list[dict[str, Any]] = []
    exits: list[Exit] = []
    targets: dict[str, Path] = {}
    for path in files:
        first = targets.setdefault(path.stem, path)
        try:
            if first is not path:
                detail = f"{first} is converted to the same name; convert one of them into another folder"
                raise ConfigError("file.unwritable", name=f"{path.stem}_converted.csv", detail=detail)
            told.append(_convert(path, out_dir))
        except IngestError as error:
            told.append({"file": str(path), "output": None, "code": error.code, "message": str(error)})
            _complain(file=str(path), code=error.code, message=str(error))
            exits.append(exit_of_error(error))
    out.answer({"files": told, "exit_code": worst(exits)}, lines=() if quiet else _converted(told))
    return worst(exits)


@reported
def contract(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The contract, as YAML or JSON.")],
    *,
    as_json: AsJson = False,
) -> Exit:
    """Save a contract. A changed one is a new version, which the next run of its pipelines is checked against."""
    out = Output(as_json=as_json)
    saved = save_contract(read_text(file))
    refreshes = [{"pipeline": pipeline.name, "reason": reason} for pipeline, reason in full_refreshes(saved)]
    value = {"contract": saved.name, "version": saved.version, "is_draft": saved.is_draft, "body": saved.body}
    lines = [f"{contract_label(saved)}: {len(saved.body.get('columns', []))} columns"]
    out.answer({**value, "full_refreshes": refreshes}, lines=[*lines, *(found["reason"] for found in refreshes)])
    return Exit.DONE


def _convert(path: Path, out_dir: Path) -> dict[str, Any]:
    from ingestion.toolkit.tabular.convert import convert_to_csv  # noqa: PLC0415 - loads polars

    try:
        done = convert_to_csv(path, out_dir)
    except OSError as error:
        is_input = error.filename is None or Path(error.filename) == path
        code, name = ("file.unreadable", str(path)) if is_input else ("file.unwritable", str(error.filename))
        raise ConfigError(code, name=name, detail=error.strerror or "") from error
    for row in done.errors:
        _complain(file=str(path), row=row.row, code=row.code, message=row.message, raw=row.raw)
    return {
        "file": str(path),
        "output": str(done.path),
        "format": done.format,
        "columns": list(done.columns),
        "renamed": done.renamed,
        "rows": done.row_count,
        "errors": len(done.errors),
    }


def _complain(**values: Any) -> None:
    sys.stderr.write(json.dumps(values, ensure_ascii=False, default=str) + "\n")


def _converted(told: list[dict[str, Any]]) -> Iterator[str]:
    for one in told:
        if one["output"]:
            faults = f", {one['errors']} rows could not be read" if one["errors"] else ""
            yield f"{one['file']}: {one['rows']} rows in {one['output']}{faults}"
