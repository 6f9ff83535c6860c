"""The queues: which task goes where, for how long, how many at once and how fast.

Tasks carry names only; everything an operator may want to change about their traffic stands here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ingestion.ports.errors import ConfigError

LONGEST_COUNTDOWN_S = 60
"""No message is delayed for longer; a longer wait is a column."""

PRIORITY_STEPS = (0, 3, 5, 9)
"""The priorities that Redis keeps apart; 0 is taken first there."""

MAX_PRIORITY = 10
"""The greatest message priority on RabbitMQ, which takes the greatest first."""

LEVELS = (1, 5, 8, 10)
"""LOW, NORMAL, HIGH, CRITICAL, as runs carry them."""


@dataclass(frozen=True)
class Queue:
    """The way in which the tasks of one queue are worked on."""

    name: str
    concurrency: int
    soft_limit_s: int
    hard_limit_s: int
    rate_per_s: float | None = None
    burst: int | None = None


def _queue(name: str, *, concurrency: int, soft_limit_s: int) -> Queue:
    # The fifth on top is the time a task has to leave a clean state after the soft limit.
    return Queue(name, concurrency=concurrency, soft_limit_s=soft_limit_s, hard_limit_s=soft_limit_s * 6 // 5)


QUEUES: Mapping[str, Queue] = {
    queue.name: queue
    for queue in (
        _queue("plan", concurrency=1, soft_limit_s=1500),
        _queue("fetch", concurrency=2, soft_limit_s=300),
        _queue("validate", concurrency=2, soft_limit_s=1500),
        _queue("deliver", concurrency=1, soft_limit_s=600),
        _queue("load", concurrency=1, soft_limit_s=1500),
        _queue("notify", concurrency=1, soft_limit_s=60),
        _queue("system", concurrency=1, soft_limit_s=300),
    )
}

TASK_QUEUES: Mapping[str, str] = {
    "ingestion.plan_run": "plan",
    "ingestion.complete_run": "plan",
    "ingestion.fetch": "fetch",
    "ingestion.validate": "validate",
    "ingestion.deliver": "deliver",
    "ingestion.load": "load",
    "ingestion.publish_run": "load",
    "ingestion.abort_delivery": "load",
    "ingestion.reconcile": "system",
    "ingestion.create_due_runs": "system",
    "ingestion.clean_up": "system",
}

WORKERS: Mapping[str, tuple[str, ...]] = {
    "worker-control": ("system", "plan", "notify"),
    "worker-load": ("load",),
    "worker-fetch": ("deliver", "fetch"),
    "worker-validate": ("validate",),
}
"""The workers of one machine; recovery never waits behind data, so what moves rows is never in the first of them.

The order counts: of messages of one priority a worker takes those of its first queue. What is nearest to its end
comes first, else a long row of fetches would keep finished runs from being delivered.
"""

WORKER_CONCURRENCY: Mapping[str, int] = {
    "worker-control": 2,
    "worker-load": 2,
    "worker-fetch": 3,
    "worker-validate": 2,
}

SINGLE_WORKER = ("system", "notify", "load", "deliver", "validate", "plan", "fetch")
"""The same for one worker that serves all queues."""


def visibility_timeout_s(queues: Mapping[str, Queue] = QUEUES) -> int:
    """Return how long a received message may stay unacknowledged before the broker hands it out again."""
    longest_s = max(queue.hard_limit_s for queue in queues.values())
    return 2 * (longest_s + LONGEST_COUNTDOWN_S)


def celery_queues() -> list[Any]:
    """Return the queues as Celery declares them; the argument is RabbitMQ's and means nothing to Redis."""
    from kombu.entity import Queue as BrokerQueue  # noqa: PLC0415 - heavy, and every process reads the settings

    return [BrokerQueue(name, routing_key=name, max_priority=MAX_PRIORITY) for name in QUEUES]


def apply_rates(rates: str) -> dict[str, Queue]:
    """Return the queues with rates such as `fetch=10/5` (10 a second, bursts of 5); ConfigError where it is wrong."""
    queues = dict(QUEUES)
    for item in filter(None, (part.strip() for part in rates.split(","))):
        name, _, value = item.partition("=")
        rate, _, burst = value.partition("/")
        try:
            queues[name] = replace(queues[name], rate_per_s=float(rate), burst=int(burst or 1))
        except KeyError as error:
            detail = f"there is no queue {name!r}, only {', '.join(QUEUES)}"
            raise ConfigError("config.invalid", where="HEADGATE_QUEUE_RATES", detail=detail) from error
        except ValueError as error:
            detail = f"{item!r} is not of the form queue=rate/burst"
            raise ConfigError("config.invalid", where="HEADGATE_QUEUE_RATES", detail=detail) from error
        if queues[name].rate_per_s == 0 or float(rate) < 0 or int(burst or 1) < 1:
            raise ConfigError("config.invalid", where="HEADGATE_QUEUE_RATES", detail=f"{item!r} is not above zero")
    return queues


def transport_priority(priority: int, *, step: int = 0, scheme: str) -> int:
    """Return the broker's number for a run's priority, `step` levels higher and at most the highest.

    Redis takes the smallest number first, RabbitMQ the greatest.
    """
    level = max((index for index, floor in enumerate(LEVELS) if floor <= priority), default=0)
    level = min(max(level + step, 0), len(LEVELS) - 1)
    if scheme.startswith("amqp") or scheme == "pyamqp":
        return LEVELS[level]
    return PRIORITY_STEPS[len(PRIORITY_STEPS) - 1 - level]


def message_priority(priority: int, step: int = 0) -> int:
    """Return the message priority of a run's priority on the configured broker, `step` levels higher."""
    from django.conf import settings  # noqa: PLC0415 - settings import this module

    return transport_priority(priority, step=step, scheme=settings.CELERY_BROKER_URL.partition(":")[0])
