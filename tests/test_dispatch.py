"""Messages on their way: none where no broker is, and what a real one tells of those that wait."""

from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Consumer

from ingest_project.celery import app
from ingestion import dispatch
from ingestion.dispatch import TaskMessage
from tests.servers import Valkey
from tests.worker.cluster import broker_of


@pytest.fixture
def broker(valkey: Valkey) -> Iterator[None]:
    """A real broker, asked by this process with the product's own options."""
    with broker_of(valkey):
        yield
        app.control.purge()


def test_a_message_without_a_broker_is_refused_and_not_an_error() -> None:
    assert dispatch.send(TaskMessage("ingestion.plan_run", {"run_id": 1})) is False


def test_a_broker_that_is_not_there_does_not_answer() -> None:
    assert dispatch.broker_answers() is False
    assert dispatch.queue_depth("fetch") == 0
    assert dispatch.messages_under_way("fetch") is None


def test_messages_of_every_priority_count(broker: None) -> None:
    for number in range(1, 11):
        dispatch.send(TaskMessage("ingestion.fetch", {"partition_id": number}, priority=number))

    assert dispatch.queue_depth("fetch") == 10
    assert dispatch.queue_depth("plan") == 0


def test_a_message_is_under_way_while_it_waits_and_while_a_worker_has_it(broker: None) -> None:
    for number in (1, 2):
        dispatch.send(TaskMessage("ingestion.fetch", {"partition_id": number}))
    dispatch.send(TaskMessage("ingestion.reconcile"))
    taken: list[Any] = []

    with app.connection_for_read() as connection:
        queue = app.amqp.queues["fetch"]
        with Consumer(connection.default_channel, [queue], on_message=taken.append, accept=["json"]):
            connection.default_channel.basic_qos(0, 1, False)
            connection.drain_events(timeout=10)
        fetches, ticks = dispatch.messages_under_way("fetch"), dispatch.messages_under_way("system")

    assert fetches == dispatch.UnderWay(
        waiting=frozenset({("ingestion.fetch", 2)}), taken=frozenset({("ingestion.fetch", 1)})
    )
    assert ticks == dispatch.UnderWay(waiting=frozenset({("ingestion.reconcile", 0)}), taken=frozenset())
