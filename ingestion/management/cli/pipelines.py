"""The command that changes a pipeline: its destinations, and what it may publish."""

from typing import Annotated

import typer

from ingestion.management.cli.exits import Exit, reported
from ingestion.management.cli.options import AsJson, find_destination, find_pipeline
from ingestion.management.cli.output import Output
from ingestion.runs.start.pipelines import allow_empty as allow_empty_runs
from ingestion.runs.start.pipelines import change_destinations


@reported
def pipeline(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="Name of the pipeline.")],
    *,
    add: Annotated[
        list[str] | None, typer.Option("--add", metavar="DESTINATION", help="Deliver there, too; may be repeated.")
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="DESTINATION", help="Deliver there no more; what is there stays."),
    ] = None,
    allow_empty: Annotated[
        bool | None,
        typer.Option("--allow-empty/--hold-empty", help="Publish, or hold, a run without a single accepted row."),
    ] = None,
    as_json: AsJson = False,
) -> Exit:
    """Show a pipeline, and change where it delivers and what it may publish."""
    found = find_pipeline(name)
    added, removed = ([find_destination(one) for one in names or ()] for names in (add, remove))
    names = [destination.name for destination in change_destinations(found, add=added, remove=removed)]
    if allow_empty is not None:
        allow_empty_runs(found, allowed=allow_empty)
    told = {"pipeline": found.name, "destinations": names, "allow_empty": found.allow_empty}
    lines = [f"{found.name} delivers to {', '.join(names) or 'no destination, so its rows are in the lake alone'}."]
    lines.append(f"A run without an accepted row is {'published' if found.allow_empty else 'held'}.")
    Output(as_json=as_json).answer(told, lines=lines)
    return Exit.DONE
