"""The thread that looks after a long statement."""

import threading
from dataclasses import replace

import pytest

from ingestion.ports.context import Context
from ingestion.ports.errors import DeadlineReached
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
    return replace(RecordingContext().context, beat=lambda: beats.append(1))


def test_a_server_that_works_shows_progress_and_one_that_hangs_does_not(ctx: Context, beats: list[int]) -> None:
    asked: list[int] = []

    with watchdog(ctx, cancel=lambda: None, is_working=lambda: bool(asked.append(1))):
        wait_until(lambda: len(asked) > 3, what="a question")
    assert beats == []

    with watchdog(ctx, cancel=lambda: None, is_working=lambda: True):
        wait_until(lambda: len(beats) > 3, what="progress")


def test_a_statement_is_broken_off_again_and_again_while_the_work_has_to_stop() -> None:
    cuts: list[int] = []
    recording = RecordingContext()

    with watchdog(recording.context, cancel=lambda: cuts.append(1), is_working=lambda: False):
        recording.stop()
        wait_until(lambda: len(cuts) > 3, what="an interruption")
    ended = len(cuts)
    recording.stop()

    assert recording.beat_count == 0
    assert len(cuts) == ended


def test_work_that_has_to_stop_before_the_block_is_broken_off_within_it() -> None:
    cuts: list[int] = []
    recording = RecordingContext()
    recording.stop()

    with watchdog(recording.context, cancel=lambda: cuts.append(1), is_working=lambda: False):
        wait_until(lambda: len(cuts) > 1, what="an interruption")


def test_a_beat_that_says_to_stop_breaks_the_statement_off(ctx: Context) -> None:
    cuts: list[int] = []

    def beat() -> None:
        raise DeadlineReached

    with watchdog(replace(ctx, beat=beat), cancel=lambda: cuts.append(1), is_working=lambda: True):
        wait_until(lambda: len(cuts) > 1, what="an interruption")


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
