"""Queues, limits and priorities."""

import pytest
from django.conf import settings

from ingest_project import queues
from ingest_project.celery import app
from ingestion.dispatch import LONGEST_COUNTDOWN_S
from ingestion.models import Priority
from ingestion.ports.errors import ConfigError


@pytest.mark.parametrize(
    ("priority", "redis", "rabbitmq"),
    [(Priority.LOW, 9, 1), (Priority.NORMAL, 5, 5), (Priority.HIGH, 3, 8), (Priority.CRITICAL, 0, 10)],
)
def test_each_priority_has_its_number_on_each_broker(priority: int, redis: int, rabbitmq: int) -> None:
    assert queues.transport_priority(priority, scheme="redis") == redis
    assert queues.transport_priority(priority, scheme="amqp") == rabbitmq


@pytest.mark.parametrize(("step", "redis"), [(0, 9), (1, 5), (2, 3), (3, 0), (9, 0)])
def test_waiting_lifts_a_priority_step_by_step_and_stops_at_the_top(step: int, redis: int) -> None:
    assert queues.transport_priority(Priority.LOW, step=step, scheme="redis") == redis


def test_the_message_priority_follows_the_configured_broker() -> None:
    assert settings.CELERY_BROKER_URL.startswith("redis")
    assert queues.message_priority(Priority.CRITICAL) == 0


def test_every_redis_number_is_a_step_that_the_broker_keeps_apart() -> None:
    numbers = {queues.transport_priority(level, scheme="redis") for level in queues.LEVELS}

    assert numbers == set(settings.CELERY_BROKER_TRANSPORT_OPTIONS["priority_steps"])


def test_every_queue_is_read_by_exactly_one_worker() -> None:
    read = [queue for names in queues.WORKERS.values() for queue in names]

    assert sorted(read) == sorted(queues.QUEUES)
    assert sorted(queues.SINGLE_WORKER) == sorted(queues.QUEUES)


def test_work_nearest_to_its_end_is_taken_first() -> None:
    assert queues.WORKERS["worker-fetch"].index("deliver") < queues.WORKERS["worker-fetch"].index("fetch")
    assert queues.WORKERS["worker-control"].index("system") < queues.WORKERS["worker-control"].index("plan")


def test_recovery_shares_no_worker_with_what_moves_rows() -> None:
    assert not {"load", "deliver", "fetch", "validate"} & set(queues.WORKERS["worker-control"])
    assert {"system", "plan"} <= set(queues.WORKERS["worker-control"])


def test_every_task_has_a_queue_and_its_limits() -> None:
    for task, name in queues.TASK_QUEUES.items():
        queue = queues.QUEUES[name]
        assert app.conf.task_routes[task] == {"queue": name}
        assert app.conf.task_annotations[task]["time_limit"] == queue.hard_limit_s > queue.soft_limit_s


def test_the_tasks_that_workers_know_are_the_ones_that_have_a_queue() -> None:
    app.loader.import_default_modules()

    ours = {name for name in app.tasks if name.startswith("ingestion.")}

    assert ours == set(queues.TASK_QUEUES)


def test_the_visibility_timeout_leaves_room_for_the_longest_task_and_countdown() -> None:
    longest_s = max(queue.hard_limit_s for queue in queues.QUEUES.values())

    assert queues.visibility_timeout_s() >= 2 * (longest_s + LONGEST_COUNTDOWN_S)
    assert queues.LONGEST_COUNTDOWN_S >= LONGEST_COUNTDOWN_S


def test_rates_are_read_per_queue() -> None:
    changed = queues.apply_rates("fetch=10/5, load=0.5")

    assert (changed["fetch"].rate_per_s, changed["fetch"].burst) == (10, 5)
    assert (changed["load"].rate_per_s, changed["load"].burst) == (0.5, 1)
    assert changed["plan"].rate_per_s is None


@pytest.mark.parametrize("rates", ["fech=1", "fetch", "fetch=fast", "fetch=1/x", "fetch=0", "fetch=-1", "fetch=1/0"])
def test_a_rate_that_cannot_be_read_is_an_error(rates: str) -> None:
    with pytest.raises(ConfigError, match="HEADGATE_QUEUE_RATES"):
        queues.apply_rates(rates)


def test_every_tick_goes_to_a_known_task_and_dies_before_the_next_one() -> None:
    for entry in settings.CELERY_BEAT_SCHEDULE.values():
        assert entry["task"] in queues.TASK_QUEUES
        assert entry["options"]["expires"] <= entry["schedule"]
