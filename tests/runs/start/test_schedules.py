"""Schedules: slots, zones, missed slots, limits."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ingestion.models import Pipeline, Run, Schedule
from ingestion.ports.errors import ConfigError
from ingestion.runs.start import schedules
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

NOW = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def make(pipeline: Pipeline, **values: Any) -> Schedule:
    schedule = Schedule.objects.create(pipeline=pipeline, **values)
    Schedule.objects.filter(pk=schedule.pk).update(created_at=NOW)
    schedule.refresh_from_db()
    return schedule


def slots(pipeline: Pipeline) -> list[datetime]:
    return list(Run.objects.filter(pipeline=pipeline).order_by("slot").values_list("slot", flat=True))


def test_a_daily_time_stays_at_its_clock_over_the_change_to_summer_time() -> None:
    schedule = Schedule(cron="30 6 * * *", timezone="Europe/Berlin")

    found = schedules.next_slots(schedule, count=3, after=NOW)

    assert [slot.astimezone(BERLIN).strftime("%d %H:%M") for slot in found] == ["29 06:30", "30 06:30", "31 06:30"]
    assert found[0] - NOW == timedelta(hours=16, minutes=30)


def test_an_hourly_time_in_the_doubled_hour_comes_once_an_hour_of_utc() -> None:
    schedule = Schedule(cron="0 * * * *", timezone="Europe/Berlin")

    found = schedules.next_slots(schedule, count=6, after=datetime(2026, 10, 24, 23, 30, tzinfo=UTC))

    assert len(set(found)) == 6
    assert sorted(found) == found


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"cron": "every day"}, "schedule.invalid_cron"),
        ({"cron": "* * * * * *"}, "schedule.invalid_cron"),
        ({"cron": "61 * * * *"}, "schedule.invalid_cron"),
        ({"interval_s": 1}, "schedule.invalid_interval"),
        ({"cron": "0 6 * * *", "timezone": "Mars/Olympus"}, "schedule.invalid_zone"),
        ({"cron": "0 6 * * *", "interval_s": 60}, "schedule.cron_or_interval"),
        ({}, "schedule.cron_or_interval"),
    ],
)
def test_a_schedule_that_cannot_be_evaluated_is_refused(values: dict[str, Any], code: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        schedules.check_schedule(Schedule(**values))

    assert refusal.value.code == code


def test_a_due_slot_makes_one_run_however_often_it_is_evaluated(
    driver: Driver, make_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = make_pipeline()
    schedule = make(pipeline, interval_s=60)
    stale = Schedule.objects.get(pk=schedule.pk)

    first = schedules.create_due_runs(NOW + timedelta(seconds=61))
    second = schedules.create_due_runs(NOW + timedelta(seconds=62))
    third = list(schedules._create_runs(stale, NOW + timedelta(seconds=63)))

    assert (len(first), second, third) == (1, [], [])
    assert slots(pipeline) == [NOW + timedelta(seconds=60)]


@pytest.mark.parametrize(
    ("policy", "expected_s"),
    [("run_once", [600]), ("run_all", [60, 120, 180, 240, 300, 360, 420, 480, 540, 600]), ("skip", [600])],
)
def test_missed_slots_are_treated_as_the_policy_says(
    driver: Driver, make_pipeline: Callable[..., Pipeline], policy: str, expected_s: list[int]
) -> None:
    pipeline = make_pipeline()
    make(pipeline, interval_s=60, missed_policy=policy)

    schedules.create_due_runs(NOW + timedelta(seconds=610))

    assert slots(pipeline) == [NOW + timedelta(seconds=seconds) for seconds in expected_s]


def test_a_skipped_slot_is_not_made_up_for(driver: Driver, make_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = make_pipeline()
    make(pipeline, interval_s=3600, missed_policy="skip")

    late = schedules.create_due_runs(NOW + timedelta(seconds=3600 + 1800))
    on_time = schedules.create_due_runs(NOW + timedelta(seconds=7205))

    assert late == []
    assert [run.slot for run in on_time] == [NOW + timedelta(hours=2)]


def test_a_schedule_switches_itself_off_after_its_last_run(
    driver: Driver, make_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = make_pipeline()
    schedule = make(pipeline, interval_s=60, max_runs=2, missed_policy="run_all")

    schedules.create_due_runs(NOW + timedelta(seconds=610))

    schedule.refresh_from_db()
    assert len(slots(pipeline)) == 2
    assert not schedule.is_enabled


def test_jitter_is_the_same_at_every_look_and_within_its_bound(
    driver: Driver, make_pipeline: Callable[..., Pipeline]
) -> None:
    schedule = make(make_pipeline(), interval_s=3600, jitter_s=600)
    slot = NOW + timedelta(hours=1)

    first, second = schedules.starts_at(schedule, slot), schedules.starts_at(schedule, slot)

    assert first == second
    assert slot <= first < slot + timedelta(seconds=600)


def test_a_paused_pipeline_makes_no_runs(driver: Driver, make_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = make_pipeline()
    make(pipeline, interval_s=60)
    schedules.pause_pipeline(pipeline.pk)

    assert schedules.create_due_runs(NOW + timedelta(seconds=61)) == []


@pytest.mark.parametrize("values", [{"cron": "99 99 * * *"}, {"cron": "0 0 * * *", "timezone": "Nowhere/Else"}])
def test_a_schedule_that_became_unusable_keeps_no_other_from_its_runs(
    driver: Driver, make_pipeline: Callable[..., Pipeline], values: dict[str, Any]
) -> None:
    make(make_pipeline("broken"), **values)
    make(make_pipeline("sound"), cron="* * * * *")

    created = schedules.create_due_runs(NOW + timedelta(minutes=5))

    assert [run.pipeline.name for run in created] == ["sound"]
