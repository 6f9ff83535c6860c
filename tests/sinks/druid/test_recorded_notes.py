"""Deliveries whose notes were written by the code of commit 77ec71b, read and continued by today's, step by step.

tests/data/druid/notes_77ec71b.json holds what that code noted at every step of these deliveries. Each delivery is made
again, and after each step its notes are replaced by the recorded ones: so every step begins from notes of the old code,
and must come to what the old code came to.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, PartView, WriteMode
from ingestion.ports.sink import CommitStep
from tests.conformance.context import MemoryLake
from tests.fakes.druid import FakeDruid
from tests.sinks.druid.support import Bench, Outcome, day

RECORDED = Path(__file__).parents[2] / "data" / "druid" / "notes_77ec71b.json"
TASK = "POST /druid/indexer/v1/task"
ROWS = [{"id": number, "name": "Si", "at": day(1 + number)} for number in range(3)]
CHANGED = [{"id": 1, "name": "Ge", "at": day(2)}, {"id": 7, "name": "Ge", "at": day(2)}]
MADE_OF_BYTES = ("objects", "inputs", "hash")
"""Notes that follow the bytes of gzip and Parquet files, which differ by the versions of the libraries."""


class Replayed(Bench):
    """A bench that replaces the notes of every step by recorded ones, where there are any, and records them."""

    def __init__(self, druid: FakeDruid, folder: Path, recorded: list[dict[str, Any]] | None) -> None:
        super().__init__(druid, folder, lake=MemoryLake())
        self.now = datetime(2026, 1, 20, tzinfo=UTC)
        self.recorded = recorded
        self.steps: list[dict[str, Any]] = []

    def part(self, run_id: int, rows: Any, *, lane: int = 0, **values: Any) -> PartView:
        """Return rows stored as a clean part whose name does not follow the bytes."""
        return replace(super().part(run_id, rows, lane=lane, **values), sha256=f"{run_id}{lane}".rjust(64, "0"))

    def step(self, manifest: Manifest, view: DeliveryView) -> tuple[CommitStep, DeliveryView]:
        """Take one step, and go on from what the old code noted at it."""
        step, after = super().step(manifest, view)
        objects = after.refs.get("objects") or []
        self.steps.append(
            {
                "state": step.state.value,
                "refs": dict(step.refs),
                "files": {item["key"]: base64.b64encode(self.lake.read(item["key"])).decode() for item in objects}
                if step.refs.get("objects")
                else {},
            }
        )
        if self.recorded is None:
            return step, after
        old = self.recorded[len(self.steps) - 1]
        refs = {**view.refs, **old["refs"]}
        assert step.state.value == old["state"]
        assert compared(after.refs, refs) == compared(refs, refs)
        for key, content in old["files"].items():
            self.lake.put_if_absent(key, base64.b64decode(content))
        return step, replace(after, refs=refs)


def compared(notes: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Return the notes that must be as the old code's are: all that it had, with moments as moments."""
    return {
        name: _moment(notes.get(name)) if name.endswith("_at") else notes.get(name)
        for name in old.keys() - MADE_OF_BYTES
    }


def _moment(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def append(bench: Bench) -> Outcome:
    return bench.publish(1, ROWS, mode=WriteMode.APPEND)


def replacement(bench: Bench) -> Outcome:
    bench.publish(1, ROWS, mode=WriteMode.REPLACE)
    return bench.publish(2, CHANGED, mode=WriteMode.REPLACE)


def merge(bench: Bench) -> Outcome:
    bench.publish(1, ROWS)
    return bench.publish(2, CHANGED)


def nothing_new(bench: Bench) -> Outcome:
    bench.publish(1, ROWS)
    return bench.publish(2, ROWS)


def emptied(bench: Bench) -> Outcome:
    bench.publish(1, ROWS, mode=WriteMode.REPLACE)
    manifest = bench.manifest(2, mode=WriteMode.REPLACE)
    outcome = bench.deliver(manifest)
    assert outcome.receipt == (0, 0, 0)
    return bench.retry(manifest, outcome)


def failed(bench: Bench) -> Outcome:
    bench.druid.fail_next_task("java.lang.OutOfMemoryError: Java heap space")
    return bench.publish(1, ROWS, mode=WriteMode.APPEND)


def failed_after_publishing(bench: Bench) -> Outcome:
    bench.druid.fail_next_task("java.io.IOException: pushing the log failed", is_after_publishing=True)
    return bench.publish(1, ROWS, mode=WriteMode.APPEND)


def given_up_and_retried(bench: Bench) -> Outcome:
    bench.druid.fail_next_task("org.apache.druid.java.util.common.RE: Max parse exceptions[0] exceeded")
    manifest = bench.manifest(1, ROWS)
    outcome = bench.deliver(manifest)
    assert outcome.code == "sink.task_failed"
    return bench.retry(manifest, outcome)


def lost(bench: Bench) -> Outcome:
    bench.druid.forget_next_task()
    return bench.publish(1, ROWS, mode=WriteMode.APPEND)


def believed_lost(bench: Bench) -> Outcome:
    bench.druid.hold()
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    bench.druid.fail_next("GET /druid/indexer/v1/task/*/status", "not_found")
    bench.druid.fail_next("POST /druid/indexer/v1/taskStatus", "json", body={}, times=None)
    view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("submitted_at"))).delivery
    bench.wait(100)
    for _ in range(3):
        _, view = bench.step(manifest, view)
    bench.druid.release()
    bench.druid.clear_faults()
    bench.druid.await_task("hg.samples.1.101.a1")
    return bench.deliver(manifest, view, goes_on=True)


def stopped_at_the_deadline(bench: Bench) -> Outcome:
    bench.druid.hold()
    bench.settings["task_timeout_s"] = 60
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    outcome = bench.deliver(manifest)
    assert outcome.code == "sink.task_failed"
    bench.druid.release()
    return bench.retry(manifest, outcome)


def id_of_another(bench: Bench) -> Outcome:
    bench.publish(1, ROWS, mode=WriteMode.APPEND)
    foreign = {**bench.tasks()[0], "context": {"headgate": "of another life"}, "id": "hg.samples.2.102.a1"}
    bench.http.post(f"{bench.druid.url}/druid/indexer/v1/task", json=foreign)
    bench.druid.await_task("hg.samples.2.102.a1")
    return bench.publish(2, [{"id": 50, "at": day(20)}], mode=WriteMode.APPEND)


def rows_lost_and_retried(bench: Bench) -> Outcome:
    bench.druid.drop_rows_of_next_task(1)
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    outcome = bench.deliver(manifest)
    assert outcome.code == "sink.rows_lost"
    return bench.retry(manifest, outcome)


def vanished_and_retried(bench: Bench) -> Outcome:
    bench.druid.drop_rows_of_next_task(1, is_counted=False)
    manifest = bench.manifest(1, ROWS)
    outcome = bench.deliver(manifest)
    assert outcome.code == "sink.count_mismatch"
    return bench.retry(manifest, outcome)


def not_loaded_and_retried(bench: Bench) -> Outcome:
    bench.druid.load_after(None)
    manifest = bench.manifest(1, ROWS)
    outcome = bench.deliver(manifest)
    assert outcome.states[-1] is DeliveryState.PUBLISHED_NOT_LOADED
    bench.druid.finish_loading()
    return bench.retry(manifest, outcome)


def settings_changed(bench: Bench) -> Outcome:
    manifest = bench.manifest(1, ROWS, mode=WriteMode.REPLACE)
    view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("task"))).delivery
    bench.settings["segment_granularity"] = "year"
    return bench.deliver(manifest, view, goes_on=True)


def datasource_unclear(bench: Bench) -> Outcome:
    bench.publish(1, ROWS)
    bench.druid.hide_load_status(2)
    return bench.publish(2, CHANGED)


def overlord_away(bench: Bench) -> Outcome:
    bench.druid.hold()
    manifest = bench.manifest(1, ROWS, mode=WriteMode.APPEND)
    view = bench.deliver(manifest, until=lambda found: bool(found.refs.get("submitted_at"))).delivery
    bench.druid.fail_next("*", "unavailable", times=None)
    for _ in range(2):
        step, view = bench.step(manifest, view)
        bench.wait(step.next_poll_s or 0)
    bench.druid.clear_faults()
    bench.druid.release()
    return bench.deliver(manifest, view, goes_on=True)


def answer_lost(bench: Bench) -> Outcome:
    bench.druid.fail_next(TASK, "lost")
    return bench.publish(1, ROWS)


DELIVERIES: tuple[Callable[[Bench], Outcome], ...] = (
    *(append, replacement, merge, nothing_new, emptied, failed, failed_after_publishing, given_up_and_retried, lost),
    *(believed_lost, stopped_at_the_deadline, id_of_another, rows_lost_and_retried, vanished_and_retried),
    *(not_loaded_and_retried, settings_changed, datasource_unclear, overlord_away, answer_lost),
)
RECEIPTS = {
    "replacement": (2, 0, 0),
    "merge": (1, 1, 0),
    "nothing_new": (0, 0, 3),
    "emptied": (0, 0, 0),
    "id_of_another": (1, 0, 0),
    "datasource_unclear": (1, 1, 0),
}


def seen_after(name: str) -> list[tuple[int, int]]:
    """Return run and id of the rows that readers see after the delivery of that name."""
    first = [(1, 0), (1, 1), (1, 2)]
    known = {
        "replacement": [(2, 1), (2, 7)],
        "merge": [(1, 0), (1, 2), (2, 1), (2, 7)],
        "datasource_unclear": [(1, 0), (1, 2), (2, 1), (2, 7)],
        "emptied": [],
        "id_of_another": sorted([*first, *first, (2, 50)]),
    }
    return known.get(name, first)


@pytest.mark.parametrize("delivery", DELIVERIES, ids=lambda found: str(found.__name__))
def test_notes_of_the_old_code_are_continued_at_every_step(
    druid: FakeDruid, tmp_path: Path, delivery: Callable[[Bench], Outcome]
) -> None:
    name = delivery.__name__
    recorded = json.loads(RECORDED.read_text())[name]
    bench = Replayed(druid, tmp_path, recorded)

    outcome = delivery(bench)

    assert outcome.receipt == RECEIPTS.get(name, (3, 0, 0))
    assert bench.ids() == seen_after(name)
    assert len(bench.steps) == len(recorded)
