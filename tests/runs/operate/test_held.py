"""Runs that a gate holds: what holds one, what it keeps meanwhile, and what a person may do with it."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ingestion import dispatch
from ingestion.models import Checkpoint, Part, Pipeline, Run, RunState
from ingestion.ports.errors import Refused
from ingestion.runs.ingest import gates
from ingestion.runs.operate import garbage, reconcile, retry
from ingestion.runs.operate.approval import approve_run, discard_run
from ingestion.runs.record.lake import open_lake
from ingestion.runs.start import contracts
from ingestion.runs.start.admission import explain_waiting
from ingestion.runs.start.creation import create_run
from tests.fakes import plugins
from tests.runs.conftest import CONTRACT
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]
FULL, INCREMENTAL = Pipeline.Mode.FULL_REFRESH, Pipeline.Mode.INCREMENTAL
GOOD: dict[str, Any] = {"config": {"pages": 1}}
NONE: dict[str, Any] = {"config": {"lanes": 0}}
EMPTY: dict[str, Any] = {"config": {"per_page": 0, "pages": 1}}
REJECTED: dict[str, Any] = {"config": {"pages": 1}, "rejects": True}


class Runner:
    """A pipeline whose source is made to have good rows, none, or only rows that its contract rejects."""

    def __init__(self, driver: Driver, pipeline: Pipeline) -> None:
        self.driver, self.pipeline = driver, pipeline

    def start(self, *, config: dict[str, Any], rejects: bool = False) -> Run:
        """Return a run that was asked for and not worked on."""
        type_of_name = "integer" if rejects else "string"
        columns = [{**column, "type": type_of_name} if column["name"] == "name" else column
                   for column in CONTRACT["columns"]]  # type: ignore[index]  # fmt: skip
        contracts.save_contract({**CONTRACT, "columns": columns})
        source = self.pipeline.source
        source.config = config
        source.save()
        run, _ = create_run(Pipeline.objects.get(pk=self.pipeline.pk), trigger=Run.Trigger.API)
        return run

    def run(self, **what: Any) -> Run:
        """Return a run of that content as far as it goes by itself."""
        run = self.start(**what)
        self.driver.drain()
        return Run.objects.get(pk=run.pk)


@pytest.fixture
def runner(driver: Driver, make_pipeline: MakePipeline) -> Runner:
    """A pipeline that replaces."""
    return Runner(driver, make_pipeline())


@pytest.fixture
def held(runner: Runner) -> Run:
    """A run of only rejected rows over a publication of four."""
    assert runner.run(**GOOD).state == RunState.SUCCEEDED
    run = runner.run(**REJECTED)
    assert (run.state, run.code) == (RunState.HELD, "held.nothing_accepted")
    return run


@pytest.mark.parametrize("allow_empty", [False, True], ids=["strict", "allow_empty"])
@pytest.mark.parametrize("mode", [FULL, INCREMENTAL])
@pytest.mark.parametrize("has_rows", [False, True], ids=["first", "published"])
@pytest.mark.parametrize(("what", "code"), [(NONE, "empty"), (EMPTY, "empty"), (REJECTED, "nothing_accepted")])
def test_a_run_without_accepted_rows(
    driver: Driver,
    make_pipeline: MakePipeline,
    *,
    what: Any,
    code: str,
    has_rows: bool,
    mode: str,
    allow_empty: bool,
) -> None:
    runner = Runner(driver, make_pipeline(mode=mode, allow_empty=allow_empty))
    if has_rows:
        runner.run(**GOOD)

    run = runner.run(**what)

    found_nothing_new = mode == INCREMENTAL and code == "empty"
    if allow_empty or found_nothing_new:
        assert (run.state, run.code) == (RunState.SUCCEEDED, "")
    elif has_rows:
        assert (run.state, run.code) == (RunState.HELD, f"held.{code}")
    else:
        assert (run.state, run.code) == (RunState.FAILED, f"run.{code}")
    assert (run.fetched, run.rejected) == ((4, 4) if what is REJECTED else (0, 0))


def test_nothing_over_nothing_is_published(driver: Driver, make_pipeline: MakePipeline) -> None:
    runner = Runner(driver, make_pipeline(allow_empty=True))
    runner.run(**GOOD)
    runner.run(**EMPTY)
    Pipeline.objects.update(allow_empty=False)

    assert runner.run(**EMPTY).state == RunState.SUCCEEDED
    assert runner.run(**REJECTED).state == RunState.HELD


def test_a_held_run_keeps_its_parts_and_neither_place_nor_deadline(runner: Runner, held: Run, settings: Any) -> None:
    settings.HEADGATE_MAX_ACTIVE_RUNS = 1
    zones = sorted(Part.objects.filter(run=held).values_list("zone", flat=True))

    assert reconcile.reconcile() == []
    garbage.clean_up(now=datetime.now(UTC) + timedelta(days=30))
    later = runner.run(**GOOD)

    held.refresh_from_db()
    assert (held.state, held.deadline_at, held.finished_at) == (RunState.HELD, None, None)
    assert "raw" in zones
    assert "rejected" in zones
    for key in Part.objects.filter(run=held).values_list("key", flat=True):
        assert open_lake().head(key) is not None
    assert later.state == RunState.SUCCEEDED


def test_a_held_run_says_why_it_waits_and_what_to_do(runner: Runner, held: Run) -> None:
    waiting = explain_waiting(held)
    assert waiting is not None
    assert (waiting.cause, waiting.until) == ("held", None)
    for word in ("4 rows", "rejected", "approve", "discard"):
        assert word in waiting.sentence

    later = runner.run(**GOOD)

    overtaken = explain_waiting(held)
    assert overtaken is not None
    assert f"run {later.pk}" in overtaken.sentence
    assert "Discard it" in overtaken.sentence


def test_an_approved_run_is_published_once(driver: Driver, runner: Runner, held: Run) -> None:
    before = list(driver.history)

    approve_run(held.pk, by="ann")
    approve_run(held.pk, by="bob")
    driver.drain(copies=2)
    approve_run(held.pk, by="bob")
    for call in before:
        driver.publish(call)
    driver.drain(shuffle=random.Random(7))

    held.refresh_from_db()
    assert (held.state, held.code, held.accepted, held.rejected) == (RunState.SUCCEEDED, "", 0, 4)
    assert [event.values["by"] for event in held.events.filter(kind="run.approved")] == ["ann"]
    assert held.events.filter(kind="run.published").count() == 1
    assert plugins.MemorySink.committed[held.pk] == 0


def test_late_messages_change_nothing_of_a_held_run(driver: Driver, held: Run) -> None:
    before = Run.objects.filter(pk=held.pk).values().get()

    driver.replay(random.Random(3))
    assert reconcile.reconcile() == []

    assert Run.objects.filter(pk=held.pk).values().get() == before


@pytest.mark.parametrize("lost", ["message", "process"])
def test_an_approval_whose_message_is_lost_is_carried_out(
    driver: Driver, held: Run, settings: Any, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    settings.HEADGATE_RESEND_AFTER_S = 0
    if lost == "process":
        # Killed after its commit: what was to be sent then is gone with the process.
        monkeypatch.setattr(dispatch, "send_after_commit", lambda _message: None)
    driver.is_broken = True
    approve_run(held.pk)
    driver.is_broken = False

    reconcile.reconcile()
    driver.drain()

    held.refresh_from_db()
    assert held.state == RunState.SUCCEEDED


def test_a_discarded_run_has_ended(driver: Driver, runner: Runner, held: Run) -> None:
    discard_run(held.pk, by="ann")
    again = discard_run(held.pk, by="bob")
    driver.drain()

    assert (again.state, again.code, again.is_terminal) == (RunState.CANCELLED, "run.discarded", True)
    assert [event.values["by"] for event in again.events.filter(kind="run.discarded")] == ["ann"]
    assert held.pk not in plugins.MemorySink.committed
    for act, code in ((approve_run, "run.not_held"), (retry.retry_run, "run.not_retryable")):
        with pytest.raises(Refused) as caught:
            act(held.pk)
        assert caught.value.code == code


def test_an_approval_is_refused_beside_and_after_a_later_run(driver: Driver, runner: Runner, held: Run) -> None:
    later = runner.start(**GOOD)
    driver.step()
    with pytest.raises(Refused) as beside:
        approve_run(held.pk)
    driver.drain()
    with pytest.raises(Refused) as after:
        approve_run(held.pk)

    assert (beside.value.code, beside.value.values["later"]) == ("run.held_overtaken", later.pk)
    assert (after.value.code, after.value.values["later"]) == ("run.held_superseded", later.pk)
    assert discard_run(held.pk).state == RunState.CANCELLED


def test_only_a_held_run_is_approved_or_discarded(runner: Runner) -> None:
    run = runner.run(**GOOD)
    for act in (approve_run, discard_run):
        for pk, code in ((run.pk, "run.not_held"), (run.pk + 99, "run.not_found")):
            with pytest.raises(Refused) as caught:
                act(pk)
            assert caught.value.code == code


def test_later_runs_read_from_the_same_checkpoint(driver: Driver, make_pipeline: MakePipeline) -> None:
    runner = Runner(driver, make_pipeline(mode=INCREMENTAL))
    runner.run(**GOOD)
    before = Checkpoint.objects.values_list("cursor", "run_id").get()
    held = runner.run(**REJECTED)
    assert held.state == RunState.HELD

    assert Checkpoint.objects.values_list("cursor", "run_id").get() == before
    assert runner.run(**GOOD).since == held.since == before[0]


def test_the_gates_decide_together(runner: Runner, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    two = (
        lambda run, totals: gates.Hold("held.first", ("One reason.",)),
        lambda run, totals: gates.Hold("held.second", ("Another.",)),
    )
    monkeypatch.setattr(gates, "GATES", (*gates.GATES, *two))
    held = runner.run(**GOOD)
    assert (held.state, held.code) == (RunState.HELD, "held.first")
    assert held.message.startswith("One reason. Another. Nothing of the run is published")

    monkeypatch.setattr(gates, "GATES", (*two, lambda run, totals: gates.Fail("run.empty", "No.")))
    failed = runner.run(**GOOD)
    assert (failed.state, failed.code, failed.message) == (RunState.FAILED, "run.empty", "No.")

    approve_run(held.pk)
    driver.drain()
    held.refresh_from_db()
    assert (held.state, held.accepted) == (RunState.SUCCEEDED, 4)


def test_what_a_retry_reads_anew_is_approved_anew(driver: Driver, make_pipeline: MakePipeline) -> None:
    runner = Runner(driver, make_pipeline(allow_partial=True))
    runner.run(**GOOD)
    plugins.TROUBLE["fetch.rejected"] = 1
    held = runner.run(config={"pages": 1, "lanes": 2}, rejects=True)
    assert (held.state, held.fetched) == (RunState.HELD, 4)
    approve_run(held.pk)
    driver.waiting.clear()
    Run.objects.filter(pk=held.pk).update(deadline_at=datetime.now(UTC) - timedelta(seconds=1))
    reconcile.reconcile()

    retry.retry_run(held.pk)
    driver.drain()

    held.refresh_from_db()
    assert (held.state, held.fetched) == (RunState.HELD, 8)
