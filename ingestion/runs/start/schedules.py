"""Schedules: which slots are due, and the runs they create; two evaluations at once create one run a slot."""

import hashlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from ingestion.models import Pipeline, Run, Schedule
from ingestion.ports.errors import ConfigError, IngestError
from ingestion.runs.start.admission import send_waiting_runs
from ingestion.runs.start.creation import create_run

logger = logging.getLogger(__name__)

MIN_INTERVAL_S = 10
_MOST_MISSED = 100
"""Slots that one tick creates runs for at most; the rest follow at the next tick."""


def check_schedule(schedule: Schedule) -> None:
    """Raise ConfigError if the schedule cannot be evaluated."""
    if bool(schedule.cron) == (schedule.interval_s is not None):
        raise ConfigError("schedule.cron_or_interval")
    try:
        zone = ZoneInfo(schedule.timezone)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError("schedule.invalid_zone", zone=schedule.timezone) from error
    if schedule.interval_s is not None and schedule.interval_s < MIN_INTERVAL_S:
        raise ConfigError("schedule.invalid_interval", seconds=schedule.interval_s, minimum=MIN_INTERVAL_S)
    if schedule.cron:
        if len(schedule.cron.split()) != 5:  # noqa: PLR2004 (minute, hour, day, month, weekday)
            raise ConfigError("schedule.invalid_cron", cron=schedule.cron, detail="it does not have five fields")
        try:
            CronSim(schedule.cron, datetime.now(zone))
        except CronSimError as error:
            raise ConfigError("schedule.invalid_cron", cron=schedule.cron, detail=str(error)) from error


def next_slots(schedule: Schedule, *, count: int = 10, after: datetime | None = None) -> list[datetime]:
    """Return the next slots after `after` (now), in UTC, without jitter; what is shown before a schedule is saved."""
    check_schedule(schedule)
    found: list[datetime] = []
    for slot in _slots(schedule, after or timezone.now()):
        found.append(slot)
        if len(found) == count:
            break
    return found


def starts_at(schedule: Schedule, slot: datetime) -> datetime:
    """Return when the slot's run may be created: the slot plus its share of the jitter, the same at every call."""
    if not schedule.jitter_s:
        return slot
    digest = hashlib.sha256(f"{schedule.pk}:{slot.isoformat()}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return slot + timedelta(seconds=share * schedule.jitter_s)


def create_due_runs(now: datetime | None = None) -> list[Run]:
    """Create the runs of every slot that is due and return the new ones; a slot that has its run is left alone."""
    now = now or timezone.now()
    created: list[Run] = []
    due = Schedule.objects.filter(is_enabled=True, pipeline__is_paused=False).select_related("pipeline__source")
    for schedule in due:
        try:
            check_schedule(schedule)
            created.extend(_create_runs(schedule, now))
        except IngestError as error:
            # A setting was broken since it was saved; the other schedules go on.
            logger.warning("The schedule %s of %s cannot be evaluated: %s", schedule.pk, schedule.pipeline.name, error)
            continue
    return created


def _create_runs(schedule: Schedule, now: datetime) -> Iterator[Run]:
    slots = _due_slots(schedule, now)
    if not slots:
        return
    newest = slots[-1]
    if schedule.missed_policy == Schedule.MissedPolicy.RUN_ALL:
        slots = slots[:_MOST_MISSED]
        newest = slots[-1]
    elif schedule.missed_policy == Schedule.MissedPolicy.SKIP:
        slots = [slot for slot in slots if now - starts_at(schedule, slot) <= _grace(schedule)][-1:]
    else:
        slots = slots[-1:]
    for slot in slots:
        if schedule.max_runs is not None and schedule.runs_created >= schedule.max_runs:
            Schedule.objects.filter(pk=schedule.pk).update(is_enabled=False)
            return
        with transaction.atomic():
            run, is_new = create_run(schedule.pipeline, trigger=Run.Trigger.SCHEDULE, slot=slot, schedule=schedule)
            if is_new:
                Schedule.objects.filter(pk=schedule.pk).update(runs_created=F("runs_created") + 1)
        if is_new:
            schedule.runs_created += 1
            yield run
    moved = Schedule.objects.filter(pk=schedule.pk)
    moved.exclude(last_slot__gte=newest).update(last_slot=newest)
    if schedule.max_runs is not None and schedule.runs_created >= schedule.max_runs:
        moved.update(is_enabled=False)


def _grace(schedule: Schedule) -> timedelta:
    """Return how late a slot may be noticed and still count as on time."""
    return timedelta(seconds=60 + schedule.jitter_s)


def _due_slots(schedule: Schedule, now: datetime) -> list[datetime]:
    since = schedule.last_slot or schedule.starts_at or schedule.created_at
    due: list[datetime] = []
    for slot in _slots(schedule, since):
        if starts_at(schedule, slot) > now:
            break
        due.append(slot)
        if schedule.missed_policy != Schedule.MissedPolicy.RUN_ALL and len(due) > 1:
            del due[0]
        elif len(due) == _MOST_MISSED:
            break
    return due


def _slots(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Yield the slots after `after`, in UTC; a cron's times are those of its zone's clocks."""
    if schedule.interval_s is not None:
        origin = schedule.starts_at or schedule.created_at or datetime(2000, 1, 1, tzinfo=UTC)
        step = timedelta(seconds=schedule.interval_s)
        # Counted from the origin, so that a late tick does not push all later slots.
        number = max(0, (after - origin) // step) + (1 if after >= origin else 0)
        while True:
            yield (origin + number * step).astimezone(UTC)
            number += 1
    zone = ZoneInfo(schedule.timezone)
    for slot in CronSim(schedule.cron, after.astimezone(zone)):
        yield slot.astimezone(UTC)


def pause_pipeline(pipeline_id: int) -> None:
    """Let the pipeline start no more runs; those under way go on."""
    Pipeline.objects.filter(pk=pipeline_id).update(is_paused=True)


def resume_pipeline(pipeline_id: int) -> None:
    """Let the pipeline start runs again; waiting ones begin at once."""
    Pipeline.objects.filter(pk=pipeline_id).update(is_paused=False)
    send_waiting_runs()
