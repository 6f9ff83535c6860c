"""End of a command: exit codes, and every expected failure as one sentence with its code."""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from typing import Any, ParamSpec

import typer
from django.db import DatabaseError, InterfaceError, OperationalError

from ingestion.management.cli import stack
from ingestion.management.cli.output import command_line
from ingestion.models import GIVEN_UP_STATES, Delivery, Run, RunState
from ingestion.ports.errors import ConfigError, IngestError, Refused, Rejected, Retryable
from ingestion.runs.read.progress import summarize

P = ParamSpec("P")


class Exit(IntEnum):
    """Codes that the shell is told."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    CANCELLED = 4
    UNREACHABLE = 5
    HELD = 6
    INTERRUPTED = 130


_OF_STATE = {
    RunState.FAILED: Exit.FAILED,
    RunState.HELD: Exit.HELD,
    RunState.PARTIAL: Exit.PARTIAL,
    RunState.CANCELLED: Exit.CANCELLED,
}
_WORST_LAST = (Exit.DONE, Exit.PARTIAL, Exit.HELD, Exit.CANCELLED, Exit.FAILED, Exit.USAGE, Exit.UNREACHABLE)


class Interrupted(Exception):  # noqa: N818 - a person's wish, not an error
    """The person stopped waiting for a run, or for a delivery of one."""

    def __init__(self, run: Run, *, delivery: Delivery | None = None) -> None:
        super().__init__(run.pk)
        self.run = run
        self.delivery = delivery


def exit_of_run(run: Run) -> Exit:
    """Return how a command ends that asked for the run; one that is still at work counts as done."""
    return _OF_STATE.get(RunState(run.state), Exit.DONE)


def exit_of_delivery(delivery: Delivery) -> Exit:
    """Return how a command ends that asked for the delivery; one that is still under way counts as done."""
    return Exit.FAILED if delivery.state in GIVEN_UP_STATES else Exit.DONE


def exit_of_error(error: IngestError) -> Exit:
    """Return how a command ends after an expected failure."""
    if isinstance(error, Retryable):
        return Exit.UNREACHABLE
    return Exit.FAILED if isinstance(error, Rejected) else Exit.USAGE


def worst(exits: Iterable[Exit]) -> Exit:
    """Return the one code that stands for several."""
    return max(exits, key=_WORST_LAST.index, default=Exit.DONE)


def failure(error: IngestError) -> dict[str, Any]:
    """Return an expected failure as a machine reads it; it has the keys of a run that was not made."""
    state = "refused" if isinstance(error, (ConfigError, Refused)) else "failed"
    run = error.values.get("run") if isinstance(error, Retryable) else None
    return {"run": run, "state": state, "code": error.code, "message": str(error), "exit_code": exit_of_error(error)}


def reported(command: Callable[P, Exit], *, needs_tables: bool = True) -> Callable[P, None]:
    """Return the command so that it finds its tables, ends with its exit code, and says an expected failure shortly."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        def work() -> Exit:
            if needs_tables:
                stack.prepare_tables()
            return command(*args, **kwargs)

        with _quiet_log():
            code = _attempt(work, as_json=bool(kwargs.get("as_json")))
        raise typer.Exit(int(code))

    return run


def _attempt(command: Callable[[], Exit], *, as_json: bool) -> Exit:
    try:
        return command()
    except IngestError as error:
        return _tell(failure(error), as_json=as_json)
    except Interrupted as stop:
        return _tell(_interruption(stop.run, stop.delivery), as_json=as_json)
    except KeyboardInterrupt:
        return _tell(
            {"run": None, "state": "interrupted", "code": "command.interrupted", "message": "Interrupted.",
             "exit_code": Exit.INTERRUPTED}, as_json=as_json,
        )  # fmt: skip
    except (OperationalError, InterfaceError) as error:
        return _tell(failure(Retryable("database.unavailable", detail=_first_line(error))), as_json=as_json)


def _tell(told: dict[str, Any], *, as_json: bool) -> Exit:
    if as_json:
        sys.stdout.write(json.dumps(told, ensure_ascii=False, default=str) + "\n")
    sys.stderr.write(f"{told['message']} [{told['code']}]\n")
    return Exit(told["exit_code"])


def _interruption(run: Run, delivery: Delivery | None) -> dict[str, Any]:
    if delivery is None:
        again = f"Wait for it again with: {command_line(f'ingest show {run.pk} --wait')}"
        message = f"Interrupted; run {run.pk} goes on as long as a stack is running. {again}"
    else:
        again = f"Wait for it again with: {command_line(f'ingest deliveries --id {delivery.pk} --wait')}"
        message = f"Interrupted; delivery {delivery.pk} goes on as long as a stack is running. {again}"
    code = "command.interrupted"
    return {**summarize(run), "code": code, "message": message, "exit_code": Exit.INTERRUPTED}


def _first_line(error: DatabaseError | InterfaceError) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep the service's own log away: what a person needs to know, the command says itself."""
    logger = logging.getLogger("ingestion")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
