"""Commands about deliveries: deliveries shows them, redeliver makes them from the lake."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from ingestion.management.cli import stack
from ingestion.management.cli.exits import Exit, exit_of_delivery, reported, worst
from ingestion.management.cli.following import follow_deliveries
from ingestion.management.cli.options import (
    AsJson,
    DestinationName,
    DryRun,
    Limit,
    PipelineName,
    Quiet,
    find_destination,
    find_pipeline,
    find_run,
    person,
)
from ingestion.management.cli.output import Output, as_text
from ingestion.management.cli.state import STATE
from ingestion.models import OPEN_DELIVERY_STATES, Delivery, Destination, Pipeline
from ingestion.ports.errors import ConfigError, Refused, Retryable
from ingestion.ports.publication import DeliveryState
from ingestion.runs.deliver import redelivery
from ingestion.runs.operate import housekeeping
from ingestion.runs.read.history import HistoryLine, find_deliveries, history_of, notes_of, task_of, with_old_names

COUNTS = ("inserted", "updated", "unchanged", "rejected", "counted")

StateName = StrEnum("StateName", {state.name: state.value for state in DeliveryState})  # type: ignore[misc]
Wait = Annotated[
    bool, typer.Option("--wait", help="Return when the destination accounts for the rows, or was given up.")
]


@reported
def deliveries(
    *,
    run: Annotated[int | None, typer.Option(metavar="N", help="Only deliveries of this run.")] = None,
    pipeline: Annotated[str | None, typer.Option(help="Only deliveries of this pipeline.")] = None,
    destination: Annotated[str | None, typer.Option(help="Only deliveries into this destination.")] = None,
    state: Annotated[StateName | None, typer.Option(help="Only deliveries in this state.")] = None,
    limit: Limit = 20,
    number: Annotated[
        int | None, typer.Option("--id", metavar="N", help="This one alone, with its history and its notes.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="With --id: return when the delivery has ended.")] = False,
    as_json: AsJson = False,
) -> Exit:
    """List deliveries, newest first; with --id show one: which state it reached when, and what its sink noted down."""
    out = Output(as_json=as_json)
    if (number is not None and any((run, pipeline, destination, state))) or (number is None and wait):
        detail = "--id names one delivery by itself, and --wait needs it"
        raise ConfigError("config.invalid", where="the command line", detail=detail)
    if number is not None:
        return _show(number, wait=wait, out=out)
    found = find_deliveries(
        run=find_run(run) if run is not None else None,
        pipeline=find_pipeline(pipeline) if pipeline else None,
        destination=find_destination(destination) if destination else None,
        state=state.value if state else None,
    )
    told = [told_of_delivery(delivery) for delivery in found[:limit]]
    columns = ("delivery", "run", "pipeline", "destination", "state", "code", *COUNTS, "created_at", "finished_at")
    wide = ("updated", "unchanged", "created_at")
    out.table(columns, [[one[name] for name in columns] for one in told], value={"deliveries": told}, wide=wide)
    return Exit.DONE


@reported
def redeliver(
    run: Annotated[int | None, typer.Argument(metavar="RUN", help="Number of the run, without --everything.")] = None,
    *,
    to: Annotated[str, typer.Option("--to", metavar="DESTINATION", help="Where the rows are brought.")],
    everything: Annotated[
        str | None,
        typer.Option(metavar="PIPELINE", help="All that this pipeline has published and the destination lacks."),
    ] = None,
    wait: Wait = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Exit:
    """Deliver a published run, or everything that is missing, to a destination from the lake; the source is not asked.

    What was published last is delivered last. What is there, or under way, is left out of everything, and refused for
    a run alone.
    """
    out = Output(as_json=as_json, is_quiet=quiet)
    if (run is None) == (everything is None) or (run is not None and dry_run):
        detail = "give either a run, or --everything with a pipeline, which alone can be tried by --dry-run"
        raise ConfigError("config.invalid", where="the command line", detail=detail)
    place = find_destination(to)
    if everything is not None:
        return _redeliver_everything(find_pipeline(everything), place, wait=wait, dry_run=dry_run, out=out)
    made = redelivery.redeliver(find_run(run).pk, place, by=person())
    code, trouble = _follow([made], wait=wait, out=out)
    told = told_of_delivery(made) | trouble | {"exit_code": code}
    out.answer(told, lines=lines_of_delivery(told))
    _warn([told], out=out)
    return code


@reported
def fill(
    destination: DestinationName,
    *,
    pipeline: PipelineName,
    wait: Wait = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> Exit:
    """Deliver everything of a pipeline that the destination lacks: `redeliver --everything` under its older name."""
    out = Output(as_json=as_json, is_quiet=quiet)
    out.warn_renamed("ingest fill DESTINATION --pipeline P", "ingest redeliver --everything P --to DESTINATION")
    place, chosen = find_destination(destination), find_pipeline(pipeline)
    return _redeliver_everything(chosen, place, wait=wait, dry_run=dry_run, out=out)


def _redeliver_everything(
    pipeline: Pipeline, destination: Destination, *, wait: bool, dry_run: bool, out: Output
) -> Exit:
    where: dict[str, Any] = {"destination": destination.name, "pipeline": pipeline.name}
    nothing = f"{destination.name} lacks nothing that {pipeline.name} has published."
    if dry_run:
        runs = [run.pk for run in redelivery.runs_to_redeliver(pipeline, destination)]
        lines = [f"run {number} would be delivered to {destination.name}" for number in runs]
        out.answer(where | {"runs": runs, "exit_code": Exit.DONE}, lines=lines or [nothing])
        return Exit.DONE
    made = redelivery.redeliver_everything(pipeline, destination, by=person())
    begun = {delivery.pk for delivery in made}
    # What somebody has begun before is on its way there, too, and waited for.
    under_way = find_deliveries(pipeline=pipeline, destination=destination).filter(state__in=OPEN_DELIVERY_STATES)
    made += [delivery for delivery in under_way.order_by("run_id") if delivery.pk not in begun]
    code, trouble = _follow(made, wait=wait, out=out)
    told = [told_of_delivery(delivery) for delivery in made]
    lines = [line for one in told for line in lines_of_delivery(one)]
    value = where | {"deliveries": told} | trouble | {"exit_code": code}
    out.answer(value, lines=lines or [nothing])
    _warn([*told, trouble], out=out)
    return code


def told_of_delivery(delivery: Delivery) -> dict[str, Any]:
    """Return the delivery as a machine reads it."""
    names = ("state", "is_redelivery", *COUNTS, "code", "message", "attempt", "polls", "created_at", "finished_at")
    told = {
        "delivery": delivery.pk,
        "run": delivery.run_id,
        "pipeline": delivery.run.pipeline.name,
        "destination": delivery.destination.name,
        **{name: getattr(delivery, name) for name in names},
    }
    return with_old_names(told)


def told_of_history(history: Sequence[HistoryLine]) -> list[dict[str, Any]]:
    """Return a delivery's history as a machine reads it."""
    return [asdict(line) for line in history]


def lines_of_delivery(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a person is told of a delivery."""
    counts = ", ".join(f"{told[name]} {name}" for name in COUNTS[:-1])
    counted = "" if told["counted"] is None else f"; {told['counted']} counted there"
    of = f"delivery {told['delivery']} of run {told['run']} ({told['pipeline']}) to {told['destination']}"
    yield f"{of}: {told['state']}; {counts}{counted}"


def states_in_short(history: Sequence[Mapping[str, Any]]) -> str:
    """Return the states of a delivery and when it reached them, as one line; the day where it is another one."""
    words, day = [], None
    for line in history:
        if not line["state"]:
            continue
        at: datetime | None = line["at"]
        text = as_text(at)
        words.append(f"{line['state']} {text.split()[-1] if at and at.date() == day else text}".strip())
        day = at.date() if at else day
    return ", ".join(words)


def _show(number: int, *, wait: bool, out: Output) -> Exit:
    delivery = find_deliveries().filter(pk=number).first()
    if delivery is None:
        raise Refused("delivery.not_found", delivery=number)
    waits = wait or STATE.reconciles
    if waits:
        follow_deliveries([delivery], out=out, reconciles=STATE.reconciles)
    task = task_of(delivery)
    told = told_of_delivery(delivery) | {
        "history": told_of_history(history_of(delivery)),
        "notes": notes_of(delivery),
        "link": housekeeping.outside_task_link(delivery.destination, task) if task else "",
    }
    out.answer(told, lines=_lines(told))
    return exit_of_delivery(delivery) if waits else Exit.DONE


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield from lines_of_delivery(told)
    if told["code"]:
        yield f"{told['message']} [{told['code']}]"
    for line in told["history"]:
        by = f" By {line['by']}." if line["by"] else ""
        yield f"{as_text(line['at']):<20}  {line['state']:<20}  {line['message']}{by}".rstrip()
    for name, value in told["notes"].items():
        if value not in (None, "", [], {}):
            yield f"{name:<14} {as_text(value)}"
    if told["link"]:
        yield f"{'console':<14} {told['link']}"


def _follow(made: Sequence[Delivery], *, wait: bool, out: Output) -> tuple[Exit, dict[str, Any]]:
    """Return the exit code that stands for the deliveries, after their end where wanted, and what kept it from coming."""
    is_open = any(delivery.state in OPEN_DELIVERY_STATES for delivery in made)
    if wait or STATE.reconciles:
        try:
            follow_deliveries(made, out=out, reconciles=STATE.reconciles)
        except Retryable as error:
            return Exit.UNREACHABLE, {"code": error.code, "message": str(error)}
    elif is_open and not stack.has_stack():
        out.say(str(Retryable("stack.not_running")))
    return worst(exit_of_delivery(delivery) for delivery in made), {}


def _warn(told: Sequence[Mapping[str, Any]], *, out: Output) -> None:
    for one in told:
        if one.get("code"):
            out.warn(f"{one['message']} [{one['code']}]")
