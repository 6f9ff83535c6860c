"""The command line: `python manage.py ingest ...`."""

import json
import sys
from types import TracebackType
from typing import Annotated

import typer
from django_typer.management import TyperCommand, initialize

from ingestion.management.cli import deliveries, destinations, local_files, looking, pipelines, reading, starting
from ingestion.management.cli.exits import Exit
from ingestion.management.cli.state import STATE

_USAGE_ERROR: type[BaseException] = typer.BadParameter.__bases__[0]
"""Error that wrong usage raises; typer exports no name for it."""

HELP = """Bring data in, and see what became of them.

Exit codes: 0 done, or the run succeeded; 1 the run failed, or a check is not ok; 2 wrong usage or bad input;
3 the run is partial; 4 it was cancelled; 5 broker, database or source do not answer; 6 it is held; 130 interrupted (the run goes on).

--data DIR and --port N, anywhere in the line, choose the data directory and its stack. --local lets a command work
though no stack is running: it starts broker and worker for as long as the command takes, and waits for the run.
"""


class Command(TyperCommand, help=HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False):
    """`manage.py ingest`: each subcommand calls the same use case as the API and the admin."""

    requires_system_checks: list[str] = []

    @initialize()
    def begin(
        self,
        reconcile: Annotated[
            bool, typer.Option("--reconcile", help="Wait for runs and repair what was lost meanwhile, as --local does.")
        ] = False,
    ) -> None:
        """Take what is said before the subcommand."""
        STATE.reconciles = reconcile

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """End wrong usage with one sentence and its own exit code."""
        if getattr(self, "_called_from_command_line", False) and isinstance(exc, _USAGE_ERROR):
            message = getattr(exc, "format_message", exc.__str__)()
            self.stderr.write(f"{message} See: python manage.py ingest --help [command.usage]")
            if "--json" in sys.argv:
                told = {"run": None, "state": "refused", "code": "command.usage", "message": message}
                self.stdout.write(json.dumps(told | {"exit_code": Exit.USAGE}))
            sys.exit(Exit.USAGE)
        handled: bool | None = super().__exit__(exc_type, exc, trace)  # type: ignore[no-untyped-call]
        return handled


for function in (
    starting.upload,
    starting.run,
    starting.fetch,
    looking.runs,
    looking.show,
    looking.rejected,
    reading.export,
    reading.query,
    starting.cancel,
    starting.retry,
    starting.approve,
    starting.discard,
    starting.rollback,
    looking.sources,
    looking.pipelines,
    pipelines.pipeline,
    destinations.destinations,
    destinations.check,
    deliveries.deliveries,
    deliveries.redeliver,
    destinations.schema,
    destinations.compact,
    destinations.retain,
    destinations.drop,
    destinations.tasks,
    local_files.convert,
    local_files.contract,
    looking.contracts,
):
    Command.command()(function)

for renamed in (deliveries.fill,):
    Command.command(hidden=True)(renamed)
