"""Options that several commands share."""

import csv
import getpass
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ingestion.management.cli.output import Output
from ingestion.models import Contract, Destination, Pipeline, Priority, Run, Source
from ingestion.ports.errors import ConfigError, Refused

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, also for failures.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks.")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when the run has ended; the exit code tells how.")]
RunNumber = Annotated[int, typer.Argument(metavar="RUN", help="Number of the run.")]
DestinationName = Annotated[str, typer.Argument(metavar="DESTINATION", help="Name of the destination.")]
PipelineName = Annotated[str, typer.Option("--pipeline", metavar="PIPELINE", help="The pipeline whose rows are meant.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many rows.")]
OutFile = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.")]


def choice_with_old_names(option: str, choices: Sequence[str], *, renamed: Mapping[str, str]) -> Callable[[str], str]:
    """Return the parser of a choice of which some have older names, which are understood for one release."""

    def parse(value: str) -> str:
        new = renamed.get(value, value)
        if new not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(map(repr, choices))}.")
        if new != value:
            Output().warn_renamed(f"{option} {value}", f"{option} {new}")
        return new

    return parse


class PriorityName(StrEnum):
    """Priority of a run."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def number(self) -> int:
        """Return the priority as it is stored."""
        return int(Priority[self.name])


PriorityOption = Annotated[
    PriorityName | None, typer.Option("--priority", help="How soon the run gets a worker; else the pipeline's own.")
]


def parse_timestamp(text: str | None, *, option: str) -> datetime | None:
    """Return a time as ISO 8601 writes it, UTC where no zone is said; ConfigError for another text."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        detail = f"{option} {text!r} is no time; write for example 2026-01-31 or 2026-01-31T06:00:00Z"
        raise ConfigError("config.invalid", where="the command line", detail=detail) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def split_names(text: str | None) -> list[str]:
    """Return names with commas between them; a name that holds a comma stands in double quotes."""
    try:
        names = next(csv.reader([text or ""], skipinitialspace=True), [])
    except csv.Error as error:
        detail = f"{text!r} is no list of names; write them with commas between"
        raise ConfigError("config.invalid", where="the command line", detail=detail) from error
    return [name.strip() for name in names if name.strip()]


def find_run(number: int) -> Run:
    """Return the run of that number; Refused where there is none."""
    run = Run.objects.select_related("pipeline__source", "contract").filter(pk=number).first()
    if run is None:
        raise Refused("run.not_found", run=number)
    return run


def find_pipeline(name: str) -> Pipeline:
    """Return the pipeline of that name; ConfigError names those there are."""
    found = Pipeline.objects.select_related("source", "contract").filter(name=name).first()
    return found or _unknown("pipeline", name, Pipeline.objects.order_by("name").values_list("name", flat=True))


def find_source(name: str) -> Source:
    """Return the source of that name; ConfigError names those there are."""
    found = Source.objects.filter(name=name).first()
    return found or _unknown("source", name, Source.objects.order_by("name").values_list("name", flat=True))


def find_destination(name: str) -> Destination:
    """Return the destination of that name; ConfigError names those there are."""
    found = Destination.objects.filter(name=name).first()
    return found or _unknown("destination", name, Destination.objects.order_by("name").values_list("name", flat=True))


def find_place(name: str, *, is_source: bool = False, is_destination: bool = False) -> Source | Destination:
    """Return the source or destination of that name; ConfigError where there is none, or one of each."""
    if is_source != is_destination:
        return find_source(name) if is_source else find_destination(name)
    found = [row for model in (Source, Destination) for row in model.objects.filter(name=name)]
    if len(found) > 1:
        detail = f"{name} is the name of a source and of a destination; say --source or --destination"
        raise ConfigError("config.invalid", where="the command line", detail=detail)
    known = sorted(name for model in (Source, Destination) for name in model.objects.values_list("name", flat=True))
    place: Source | Destination = found[0] if found else _unknown("source or destination", name, known)
    return place


def person() -> str:
    """Return who types, for the logs of runs."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):
        return "command line"


def contract_label(contract: Contract | None) -> str:
    """Return a contract's name and version, and whether anybody has confirmed it."""
    if contract is None:
        return ""
    return f"{contract} (draft)" if contract.is_draft else str(contract)


def _unknown(what: str, name: str, known: Any) -> Any:
    names = list(known[:50])
    raise ConfigError("config.unknown_name", what=what, name=name, known=", ".join(names) or "none yet")
