"""Nudges where no broker is."""

from ingestion import dispatch
from ingestion.dispatch import TaskMessage


def test_a_nudge_without_a_broker_is_refused_and_not_an_error() -> None:
    assert dispatch.send(TaskMessage("ingestion.plan_run", {"run_id": 1})) is False


def test_a_broker_that_is_not_there_does_not_answer() -> None:
    assert dispatch.broker_answers() is False
