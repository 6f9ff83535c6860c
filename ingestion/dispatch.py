"""The sending of task messages to the workers, by task name; one that cannot be sent is made good by the reconciler.

Celery is imported by what sends: a command that only reads, or the first page of the admin, need not wait for it.
"""

import logging
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from json import loads
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
SENDING_S = 0.02
"""Sending a message takes less, on a busy machine too: of many that are sent together the last goes out so much later."""
_TAKEN_FOR = 3
"""A message is in the hands of the worker that took it for this many times the pause before one is sent again."""


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
    with _channel() as channel:
        if channel is None:
            return 0
        if not _is_redis(channel):
            # An undeclared queue counts as empty.
            return int(channel.queue_declare(queue=queue, passive=True).message_count)
        # Not by a passive declaration: kombu looks for the queue without the prefix of its keys and finds none.
        with channel.client.pipeline(transaction=False) as pipe:
            for key in _redis_lists(channel, queue):
                pipe.llen(key)
            return sum(pipe.execute())
    return 0


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The messages, by task name and id, that still wait in a queue, and those that workers took from it lately."""

    waiting: frozenset[tuple[str, int]]
    taken: frozenset[tuple[str, int]]


def messages_under_way(queue: str) -> UnderWay | None:
    """Return the queue's messages that will be acted upon without being sent again; None where the broker cannot tell.

    A worker that died keeps what it took until the broker hands it out again; hence `taken` forgets after a while.
    """
    with _channel() as channel:
        if channel is None or not _is_redis(channel):
            return None
        client, prefix = channel.client, channel.global_keyprefix
        since_s = client.time()[0] - _TAKEN_FOR * settings.HEADGATE_RESEND_AFTER_S
        with client.pipeline(transaction=True) as pipe:
            for key in _redis_lists(channel, queue):
                pipe.lrange(prefix + key, 0, -1)
            pipe.hgetall(prefix + channel.unacked_key)
            pipe.zrangebyscore(prefix + channel.unacked_index_key, since_s, "+inf")
            *lists, taken, lately = pipe.execute()
        held = [loads(taken[tag]) for tag in lately if tag in taken]
        return UnderWay(
            waiting=frozenset(_name_and_id(loads(raw)) for raws in lists for raw in raws),
            taken=frozenset(_name_and_id(message) for message, _, routing_key in held if routing_key == queue),
        )
    return None


def _name_and_id(message: dict[str, Any]) -> tuple[str, int]:
    """Return the task of a message as it lies in the broker, and the id of its row; 0 where it carries none."""
    kwargs = loads(b64decode(message["body"]))[1]
    return message["headers"]["task"], next((int(value) for value in kwargs.values()), 0)


@contextmanager
def _channel() -> Iterator[Any]:
    """Give a channel to the broker, or None where it does not answer; a failure of the broker ends the block."""
    connection = _app().connection_for_write()
    with connection, suppress(*_broker_errors(), *connection.channel_errors):
        try:
            channel = connection.default_channel
        except _broker_errors():
            channel = None
        yield channel


def _is_redis(channel: Any) -> bool:
    return getattr(channel.connection, "driver_type", "") == "redis"


def _redis_lists(channel: Any, queue: str) -> list[str]:
    """Return the keys of the queue's lists, one for each step of priority, without the prefix of all keys."""
    return [f"{queue}{channel.sep}{step}" if step else queue for step in channel.priority_steps]
