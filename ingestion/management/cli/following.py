"""Waiting for a run, or for deliveries of published ones, with a progress bar for whoever watches."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import BinaryIO

from django.conf import settings
from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

from ingestion.management.cli.exits import Interrupted
from ingestion.management.cli.output import Output, clean
from ingestion.management.cli.stack import has_stack
from ingestion.models import OPEN_DELIVERY_STATES, Delivery, Run
from ingestion.ports.errors import Retryable
from ingestion.runs.operate import reconcile
from ingestion.runs.read.progress import Progress as RunProgress
from ingestion.runs.read.progress import measure_progress
from ingestion.runs.start.admission import explain_waiting

FIRST_LOOK_S = 0.1
LONGEST_LOOK_S = 1.0
STACK_LOOK_S = 5.0
STACK_PATIENCE_S = 30.0
RECONCILE_S = 2.0


def follow(run: Run, *, out: Output, reconciles: bool) -> Run:
    """Return the run once it has ended or is held; Interrupted on Ctrl-C, Retryable where nothing can work on it any more.

    With `reconciles` this process repairs what was lost meanwhile, because no beat does.
    """
    if run.is_settled:
        return run
    if not has_stack():
        raise Retryable("stack.not_running", run=run.pk)
    try:
        with _run_bar(run, out=out) as update:

            def has_ended() -> bool:
                run.refresh_from_db()
                update(run)
                return run.is_settled

            _wait_for(has_ended, run_id=run.pk, reconciles=reconciles)
    except KeyboardInterrupt:
        run.refresh_from_db()
        raise Interrupted(run) from None
    return run


def follow_deliveries(deliveries: Sequence[Delivery], *, out: Output, reconciles: bool) -> None:
    """Return once none of the deliveries is under way any more, each as it is then; errors as those of `follow`."""
    waited_for = _under_way(deliveries)
    if not waited_for:
        return
    if not has_stack():
        raise Retryable("stack.not_running", run=waited_for[0].run_id)
    try:
        with _delivery_bar(deliveries, out=out) as update:

            def have_ended() -> bool:
                for delivery in _under_way(deliveries):
                    delivery.refresh_from_db()
                update()
                return not _under_way(deliveries)

            _wait_for(have_ended, run_id=waited_for[0].run_id, reconciles=reconciles)
    except KeyboardInterrupt:
        first = (_under_way(deliveries) or waited_for)[0]
        raise Interrupted(first.run, delivery=first) from None


def _under_way(deliveries: Iterable[Delivery]) -> list[Delivery]:
    return [delivery for delivery in deliveries if delivery.state in OPEN_DELIVERY_STATES]


def _wait_for(has_ended: Callable[[], bool], *, run_id: int, reconciles: bool) -> None:
    """Look again and again until `has_ended` says so; Retryable where the stack has been away for long."""
    look_s = FIRST_LOOK_S
    every_s = min(RECONCILE_S, settings.HEADGATE_RECONCILE_S)
    now = time.monotonic()
    # At once: what was asked for before the stack was there has not been sent yet.
    reconcile_at, look_at_stack, stack_seen = now, now, now
    while not has_ended():
        now = time.monotonic()
        if now >= look_at_stack:
            stack_seen = now if has_stack() else stack_seen
            if now - stack_seen > STACK_PATIENCE_S:
                raise Retryable("stack.lost", run=run_id)
            look_at_stack = now + STACK_LOOK_S
        if reconciles and now >= reconcile_at:
            reconcile.reconcile()
            reconcile_at = now + every_s
        time.sleep(look_s)
        look_s = min(look_s * 1.5, LONGEST_LOOK_S)


@contextmanager
def _delivery_bar(deliveries: Sequence[Delivery], *, out: Output) -> Iterator[Callable[[], None]]:
    """Give a function that shows how many of the deliveries have ended."""
    if not out.shows_progress:
        yield lambda: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=30))
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("", total=len(deliveries))

        def update() -> None:
            waiting = _under_way(deliveries)
            done = len(deliveries) - len(waiting)
            now = f": run {waiting[0].run_id} {waiting[0].state}" if waiting else ""
            bar.update(task, description=f"{done} of {len(deliveries)} deliveries{now}", completed=done)

        yield update


@contextmanager
def _run_bar(run: Run, *, out: Output) -> Iterator[Callable[[Run], None]]:
    """Give a function that shows how far the run is."""
    if not out.shows_progress:
        yield lambda _run: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=30),
               TextColumn("{task.fields[numbers]}", markup=False))  # fmt: skip
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(f"run {run.pk}", total=None, numbers="")

        def update(run: Run) -> None:
            progress = measure_progress(run)
            waiting = explain_waiting(run)
            numbers = waiting.sentence if waiting else describe_progress(progress)
            bar.update(
                task,
                description=f"run {run.pk} {stage_of(progress)}",
                total=progress.expected_records,
                completed=progress.records,
                numbers=clean(numbers),
            )

        yield update


def stage_of(progress: RunProgress) -> str:
    """Return the state, with the first stage that is not done and how far it is."""
    for stage in progress.stages:
        if stage.done + stage.failed < stage.total:
            return f"{progress.state}: {stage.stage} {stage.done}/{stage.total}"
    return progress.state


def describe_progress(progress: RunProgress, *, now: datetime | None = None) -> str:
    """Return records, rate and time left in a few words."""
    words = [f"{progress.records:,} records"]
    if progress.expected_records:
        words = [f"{progress.records:,} of {progress.expected_records:,} records ({progress.percent} %)"]
    if progress.records_per_s:
        words.append(f"{progress.records_per_s:,.0f}/s")
    if progress.eta:
        words.append(f"{max(0.0, (progress.eta - (now or timezone.now())).total_seconds()):.0f} s left")
    return ", ".join(words)


@contextmanager
def reading(file: BinaryIO, *, name: str, size_bytes: int, out: Output) -> Iterator[Callable[[int], bytes]]:
    """Give a function that reads the file block by block and shows how much of it was read."""
    if not out.shows_progress:
        yield file.read
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), DownloadColumn(),
               TransferSpeedColumn())  # fmt: skip
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(f"storing {clean(name)}", total=size_bytes)

        def read(size: int) -> bytes:
            data = file.read(size)
            bar.update(task, advance=len(data))
            return data

        yield read
