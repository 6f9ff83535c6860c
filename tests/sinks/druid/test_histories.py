"""Whole histories of runs through everything that can go wrong, against what plain Python says should be there."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ingestion.ports.publication import DeliveryState, WriteMode
from tests.fakes.druid import FakeDruid
from tests.sinks.druid.support import CONTRACT, KEYLESS, Bench, Outcome, day, memory_bench

TASK = "POST /druid/indexer/v1/task"
MOST_RETRIES = 4
ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from(["Si", "Ge"]), st.integers(1, 5)),
    max_size=5,
    unique_by=lambda row: row[0],
)
FAULTS = {
    "none": lambda druid: None,
    "task fails": lambda druid: druid.fail_next_task("java.lang.OutOfMemoryError"),
    "fails after publishing": lambda druid: druid.fail_next_task("java.io.IOException", is_after_publishing=True),
    "task is lost": lambda druid: druid.forget_next_task(),
    "task is hidden": lambda druid: druid.hide_next_task(2),
    "reads nothing": lambda druid: druid.empty_next_task(),
    "throws rows away": lambda druid: druid.drop_rows_of_next_task(1),
    "drops rows": lambda druid: druid.drop_rows_of_next_task(1, is_counted=False),
    "answer is lost": lambda druid: druid.fail_next(TASK, "lost"),
    "connection breaks": lambda druid: druid.fail_next(TASK, "reset", times=2),
    "loads late": lambda druid: druid.load_after(2),
    "is seen late": lambda druid: druid.lag_broker(2),
    "load status is hidden": lambda druid: druid.hide_load_status(1),
    "no report": lambda druid: druid.fail_next("GET /druid/indexer/v1/task/*/reports", "empty", status=500),
}
STEPS = st.tuples(
    st.sampled_from(["run", "run", "run", "refresh", "withdraw", "forget", "refill"]),
    ROWS,
    st.sampled_from(sorted(FAULTS)),
)


def expected(history: dict[int, tuple[WriteMode, list[dict[str, Any]]]]) -> list[tuple[int, int]]:
    """Return run and id of the rows that should be seen: of each key the first of the last equal versions."""
    seen: dict[Any, tuple[tuple[Any, ...], int]] = {}
    everything: list[tuple[int, int]] = []
    for run_id in sorted(history):
        mode, rows = history[run_id]
        if mode is WriteMode.REPLACE:
            seen.clear()
            everything.clear()
        for row in rows:
            content = row["name"], row["at"]
            everything.append((run_id, row["id"]))
            if row["id"] not in seen or seen[row["id"]][0] != content:
                seen[row["id"]] = content, run_id
    has_key = any(mode is WriteMode.MERGE for mode, _ in history.values())
    return sorted([(run_id, number) for number, (_, run_id) in seen.items()] if has_key else everything)


class History:
    """History of a pipeline's runs, and the rows that should be seen of them."""

    def __init__(self, bench: Bench, adding: WriteMode) -> None:
        self.bench, self.adding = bench, adding
        self.runs: dict[int, tuple[WriteMode, list[dict[str, Any]]]] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.latest = 0
        self.is_latest_there = False
        self.is_settled = True
        """False from a cancel to the next load: what remains of the cancelled run is removed by that."""

    def run(self, rows: list[dict[str, Any]], mode: WriteMode) -> None:
        """Bring the next run."""
        self.latest += 1
        self.bring(self.latest, rows, mode)
        self.is_latest_there = True

    def forget(self) -> None:
        """Bring the run that was the last to be brought again, its notes lost, as with a backup of the database."""
        if self.is_latest_there:
            mode, rows = self.runs[self.latest]
            self.bring(self.latest, rows, mode)

    def withdraw(self) -> None:
        """Cancel the run that was the last to be brought."""
        if self.is_latest_there and self.runs[self.latest][0] is not WriteMode.REPLACE:
            self.bench.withdraw(self.latest)
            del self.runs[self.latest], self.outcomes[self.latest]
            self.is_latest_there = self.is_settled = False

    def refill(self) -> None:
        """Drop the datasource, and bring every run again, with its notes."""
        self.bench.sink.drop("samples", self.bench.ctx)
        self.is_settled = True
        there, self.runs = self.runs, {}
        self.bench.runs.verified.clear()
        for run_id, (mode, rows) in there.items():
            self.bring(run_id, rows, mode, again=self.outcomes[run_id])

    def bring(self, run_id: int, rows: list[dict[str, Any]], mode: WriteMode, again: Outcome | None = None) -> None:
        """Deliver a run, asked for again by a person as often as it takes."""
        contract = CONTRACT if self.adding is WriteMode.MERGE else KEYLESS
        manifest = self.bench.manifest(run_id, *([rows] if rows else []), mode=mode, contract=contract)
        outcome = self.bench.retry(manifest, again) if again else self.bench.deliver(manifest)
        for _ in range(MOST_RETRIES):
            if outcome.error is None and outcome.states[-1] is not DeliveryState.PUBLISHED_NOT_LOADED:
                break
            outcome = self.bench.retry(manifest, outcome)
        else:
            raise AssertionError(f"{MOST_RETRIES} retries and not there: {outcome}")
        self.runs[run_id], self.outcomes[run_id] = (mode, rows), outcome
        self.is_settled = True


def play(bench: Bench, steps: list[tuple[str, Any, str]], adding: WriteMode) -> None:
    """Take the steps, and look at all rows after each."""
    history = History(bench, adding)
    for kind, values, fault in steps:
        rows = [{"id": number, "name": name, "at": day(on)} for number, name, on in values]
        bench.druid.clear_faults()
        bench.druid.load_after(0)
        bench.druid.lag_broker(0)
        FAULTS[fault](bench.druid)
        match kind:
            case "run":
                history.run(rows, adding)
            case "refresh":
                history.run(rows, WriteMode.REPLACE)
            case "forget":
                history.forget()
            case "refill":
                history.refill()
            case _:
                history.withdraw()
        if not history.is_settled:
            continue

        found = sorted((int(row["_run"]), int(row["id"])) for row in bench.druid.rows("samples"))
        assert found == expected(history.runs), (kind, fault)


def in_histories(count: int) -> Any:
    """Give a test that many histories; they are not shrunk: six steps are short enough to read."""

    def decorate(test: Any) -> Any:
        chosen = st.lists(STEPS, min_size=1, max_size=6), st.sampled_from([WriteMode.MERGE, WriteMode.APPEND])
        limits = settings(
            max_examples=count,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
        )
        return limits(given(*chosen)(test))

    return decorate


@pytest.mark.slow
@pytest.mark.timeout(400)  # a history takes half a second or more, with every step of it over HTTP
@in_histories(50)
def test_whatever_goes_wrong_the_datasource_ends_as_the_runs_say(
    steps: list[tuple[str, Any, str]], adding: WriteMode
) -> None:
    with FakeDruid() as druid, tempfile.TemporaryDirectory() as folder:
        play(memory_bench(druid, Path(folder)), steps, adding)


@pytest.mark.drill
@pytest.mark.timeout(3600)
@in_histories(500)
def test_whatever_goes_wrong_in_many_histories_the_datasource_ends_as_the_runs_say(
    steps: list[tuple[str, Any, str]], adding: WriteMode
) -> None:
    with FakeDruid() as druid, tempfile.TemporaryDirectory() as folder:
        play(memory_bench(druid, Path(folder)), steps, adding)
