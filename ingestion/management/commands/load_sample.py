"""Load the bundled sample through the real pipeline, and show that its control totals balance."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ingestion.management.cli.exits import Exit, Interrupted, exit_of_error
from ingestion.management.cli.following import follow
from ingestion.management.cli.output import Output, command_line
from ingestion.management.cli.stack import prepare_tables
from ingestion.models import Run, RunState
from ingestion.ports.errors import IngestError
from ingestion.runs.operate.samples import load_measurements, load_structures
from ingestion.runs.read.progress import CONTROL_TOTALS, is_balanced, summarize
from ingestion.runs.start.pipelines import DRUID_DESTINATION


class Command(BaseCommand):
    """`manage.py load_sample`: a file by upload, and a pull from the demo provider; a second time changes nothing."""

    help = "Loads the bundled sample through the real pipeline and compares the counts with what must come out."
    requires_system_checks: list[str] = []

    def handle(self, **_: Any) -> None:
        """Run both and print the control totals; an error, with its exit code, where they are not as expected."""
        folder = Path(settings.BASE_DIR) / "sample"
        expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        try:
            prepare_tables()
            runs = self._load(folder)
            for run, _name in runs:
                follow(run, out=Output(), reconciles=False)
        except IngestError as error:
            raise CommandError(f"{error} [{error.code}]", returncode=exit_of_error(error)) from error
        except Interrupted as stop:
            msg = f"Interrupted; {stop.run} goes on as long as a stack is running."
            raise CommandError(msg, returncode=Exit.INTERRUPTED) from stop
        for line in _table([run for run, _ in runs]):
            self.stdout.write(line)
        problems = [line for run, name in runs for line in _problems(run, wanted=expected[name])]
        if problems:
            raise CommandError("\n".join(problems), returncode=Exit.FAILED)
        self.stdout.write("The control totals balance, and the counts are those of sample/expected.json.")
        rejected = runs[0][0].pk
        self.stdout.write(f"See what was rejected, and why: {command_line(f'ingest rejected {rejected}')}")

    def _load(self, folder: Path) -> list[tuple[Run, str]]:
        runs = [(load_measurements(folder), "measurements")]
        if settings.HEADGATE_DEMO_PORT:
            runs.append((load_structures(port=settings.HEADGATE_DEMO_PORT), "structures"))
        else:
            self.stderr.write("The stack has no demo provider, so only the file is loaded.")
        return runs


def _table(runs: Sequence[Run]) -> Iterator[str]:
    told = [summarize(run) for run in runs]
    places = sorted({name for one in told for name in one["destinations"]})
    head = ["run", "pipeline", "state", "fetched", "=", "accepted", "+", "rejected", "+", "duplicate", "+", "filtered"]
    rows = [head + [f"in {place}" for place in places]]
    for one in told:
        totals = [str(one[name]) for name in CONTROL_TOTALS]
        sums = [totals[0], "=", totals[1], "+", totals[2], "+", totals[3], "+", totals[4]]
        counts = [str(one["destinations"].get(place, "")) for place in places]
        rows.append([str(one["run"]), one["pipeline"], one["state"], *sums, *counts])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if 1 <= column <= 2 else cell.rjust(width)  # noqa: PLR2004 - the two columns of words
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _problems(run: Run, *, wanted: dict[str, Any]) -> Iterator[str]:
    if run.state != RunState.SUCCEEDED:
        yield f"Run {run.pk} of {run.pipeline} is {run.state}: {run.message} [{run.code}]"
        return
    if not is_balanced(run):
        yield f"The control totals of run {run.pk} do not balance."
    found = {name: getattr(run, name) for name in CONTROL_TOTALS}
    if found != {name: wanted[name] for name in CONTROL_TOTALS}:
        yield f"Run {run.pk} of {run.pipeline} gave {found}, but {wanted} was expected."
    places = summarize(run)["destinations"]
    if settings.HEADGATE_DRUID is not None:
        places.setdefault(DRUID_DESTINATION, 0)
    for place, rows in places.items():
        if rows != wanted["destinations"].get(place, run.accepted):
            yield f"Destination {place} accounts for {rows} of the {run.accepted} accepted rows of run {run.pk}."
