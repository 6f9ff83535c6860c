"""Outcome of runs, told to a machine or to a person."""

from collections.abc import Iterator, Sequence
from typing import Any

from ingestion.management.cli.exits import Exit, exit_of_run, worst
from ingestion.management.cli.output import Output, command_line
from ingestion.models import Run
from ingestion.runs.read.progress import CONTROL_TOTALS, summarize


def told_of_run(run: Run) -> dict[str, Any]:
    """Return the run as a machine reads it, with the exit code that belongs to it."""
    return {**summarize(run), "exit_code": exit_of_run(run)}


def lines_of_run(told: dict[str, Any]) -> Iterator[str]:
    """Yield what a person is told of a run."""
    place = f"{told['file']}: " if "file" in told else ""
    yield f"{place}run {told['run']} of {told['pipeline']}: {told['state']}{control_totals_of(told)}"
    if told["message"] and not told["code"]:
        yield f"  {told['message']}"
    if told["rejected"] or any(delivery["rejected"] for delivery in told["deliveries"]):
        yield "  See the rejected rows with: " + command_line(f"ingest rejected {told['run']}")
    if told.get("rows_written") is not None and told["output"] != "-":
        yield f"  {told['rows_written']} rows in {told['output']}"


def errors_of_run(told: dict[str, Any]) -> Iterator[str]:
    """Yield one sentence with its code for what went wrong: with a file, a run or a delivery of it."""
    place = f"{told['file']}: " if "file" in told and told["run"] is None else ""
    if told["code"]:
        yield f"{place}{told['message']} [{told['code']}]"
    for delivery in told.get("deliveries", ()):
        if delivery["code"]:
            yield f"{delivery['destination']}: {delivery['message']} [{delivery['code']}]"


def control_totals_of(told: dict[str, Any]) -> str:
    """Return a run's control totals in words; empty before anything was fetched, where that is not all there was."""
    if not told["fetched"] and told["state"] != "succeeded":
        return ""
    parts = " + ".join(f"{told[name]} {name}" for name in CONTROL_TOTALS[1:])
    places = ", ".join(f"{name} {rows}" for name, rows in told["destinations"].items())
    return f"; {told['fetched']} fetched = {parts}" + (f"; rows in {places}" if places else "")


def tell_all(told: Sequence[dict[str, Any]], *, out: Output) -> Exit:
    """Print what became of each, a single one as it is, and return the code that stands for all."""
    code = worst(Exit(one["exit_code"]) for one in told)
    value = told[0] if len(told) == 1 else {"runs": list(told), "exit_code": code}
    out.answer(value, lines=(line for one in told if one["run"] is not None for line in lines_of_run(one)))
    for one in told:
        for line in errors_of_run(one):
            out.warn(line)
    return code
