"""The thread that looks after a long statement."""

import threading
from dataclasses import replace

import pytest

from ingestion.ports.context import Context
from sinks.relational import watchdog as watchdog_module
from sinks.relational.watchdog import watchdog
from tests.conformance.context import RecordingContext
from tests.servers import wait_until


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog_module, "POLL_S", 0.002)
    monkeypatch.setattr(watchdog_module, "SERVER_POLL_S", 0.004)


@pytest.fixture
def beats() -> list[int]:
    return []


@pytest.fixture
def ctx(beats: list[int]) -> Context:
    return replace(RecordingContext().context, progress=lambda: beats.append(1))


def test_a_server_that_works_shows_progress_and_one_that_hangs_does_not(ctx: Context, beats: list[int]) -> None:
    asked: list[int] = []

    with watchdog(ctx, cancel=lambda: None, is_working=lambda: bool(asked.append(1))):
        wait_until(lambda: len(asked) > 3, what="a question")
    assert beats == []

    with watchdog(ctx, cancel=lambda: None, is_working=lambda: True):
        wait_until(lambda: len(beats) > 3, what="progress")


def test_a_statement_is_broken_off_again_and_again_while_the_work_has_to_stop(ctx: Context, beats: list[int]) -> None:
    cuts: list[int] = []
    stopping = replace(ctx, should_stop=lambda: True)

    with watchdog(stopping, cancel=lambda: cuts.append(1), is_working=lambda: True):
        wait_until(lambda: len(cuts) > 3, what="an interruption")

    assert beats == []


def test_what_goes_wrong_in_the_watcher_does_not_end_it(ctx: Context, beats: list[int]) -> None:
    asked: list[int] = []

    def is_working() -> bool:
        asked.append(1)
        if len(asked) == 1:
            raise ConnectionError
        return True

    with watchdog(ctx, cancel=lambda: None, is_working=is_working):
        wait_until(lambda: bool(beats), what="progress after a failure")

    assert "statement-watchdog" not in {thread.name for thread in threading.enumerate()}
