"""The sending of task messages to the workers, by task name; one that cannot be sent is made good by the reconciler.

Celery is imported by what sends: a command that only reads, or the first page of the admin, need not wait for it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string

from ingestion.toolkit.failpoints import failpoint

logger = logging.getLogger(__name__)

TimeLimitReached = SoftTimeLimitExceeded
"""Raised in a task that worked longer than its queue allows."""
_BROKER_PATIENCE_S = 3.0
LONGEST_COUNTDOWN_S = 60.0
"""A message waits in a worker no longer than this; longer waiting is a column."""


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """One task to be run: its name, ids, and how soon (a run's priority, raised by `step` when it has waited)."""

    name: str
    ids: dict[str, int] = field(default_factory=dict)
    priority: int = 5
    step: int = 0


def send(message: TaskMessage, *, countdown_s: float | None = None) -> bool:
    """Send the message now; return False, and log, where the broker does not take it."""
    return send_as_is(message, priority=_message_priority()(message.priority, message.step), countdown_s=countdown_s)


def send_as_is(message: TaskMessage, *, priority: int | None, countdown_s: float | None = None) -> bool:
    """Send the message with the transport's own priority number, such as a message came with."""
    failpoint("dispatch.before_send")
    try:
        _app().send_task(
            message.name,
            kwargs=message.ids,
            priority=priority,
            countdown=None if countdown_s is None else min(countdown_s, LONGEST_COUNTDOWN_S),
            retry=False,
            # Else each message subscribes to its result first, and fails where only the broker's place is empty.
            ignore_result=True,
        )
    except _broker_errors() as error:
        logger.warning("The broker did not take %s %s: %s", message.name, message.ids, type(error).__name__)
        return False
    failpoint("dispatch.after_send")
    return True


def send_after_commit(message: TaskMessage, *, countdown_s: float | None = None) -> None:
    """Send the message once the current transaction is committed; at once where there is none."""
    # A function with a name: Django logs it where a robust hook fails, and a partial has none.
    transaction.on_commit(lambda: send(message, countdown_s=countdown_s), robust=True)


def send_chord(chains: Sequence[Sequence[TaskMessage]], body: TaskMessage) -> bool:
    """Send every chain, and `body` when all of them ended, well or badly; return False where the broker fails.

    Headers return ids only and the body is one signature: each header's message carries the body's.
    """
    from celery import chain, chord, group  # noqa: PLC0415

    header = group(
        _signature(messages[0]) if len(messages) == 1 else chain(*map(_signature, messages)) for messages in chains
    )
    # As errback only an immutable signature: a plain function would run in the worker's main process, which must
    # not open a database connection before its next fork.
    end = _signature(body).on_error(_signature(body))
    try:
        chord(header, body=end, app=_app()).apply_async(retry=False)
    except _broker_errors() as error:
        logger.warning("The broker did not take the chord of %s %s: %s", body.name, body.ids, type(error).__name__)
        return False
    failpoint("dispatch.after_chord")
    return True


@cache
def _app() -> Any:
    return import_string(settings.HEADGATE_CELERY_APP)


@cache
def _broker_errors() -> tuple[type[Exception], ...]:
    from kombu.exceptions import KombuError  # noqa: PLC0415
    from kombu.exceptions import OperationalError as BrokerError  # noqa: PLC0415
    from redis.exceptions import RedisError  # noqa: PLC0415

    return BrokerError, KombuError, RedisError, OSError


def _signature(message: TaskMessage) -> Any:
    return _app().signature(
        message.name,
        kwargs=dict(message.ids),
        immutable=True,
        options={"priority": _message_priority()(message.priority, message.step)},
    )


@cache
def _message_priority() -> Any:
    return import_string(settings.HEADGATE_MESSAGE_PRIORITY)


def broker_answers() -> bool:
    """Return whether the broker can be reached now."""
    connection = _app().connection_for_write()
    try:
        with connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=_BROKER_PATIENCE_S)
    except _broker_errors():
        return False
    return True


def queue_depth(queue: str) -> int:
    """Return how many messages wait in the queue, over all priorities; 0 where the broker does not answer."""
    connection = _app().connection_for_write()
    try:
        with connection:
            return int(connection.default_channel.queue_declare(queue=queue, passive=True).message_count)
    except (*_broker_errors(), *connection.channel_errors):
        # An undeclared queue counts as empty, too.
        return 0
