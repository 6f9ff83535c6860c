"""Loads by the multi-stage engine: the same promises, by statements."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingestion.ports.errors import ConfigError
from ingestion.ports.publication import WriteMode
from tests.conformance.context import MemoryLake
from tests.fakes.druid import FakeDruid
from tests.sinks.druid.support import Bench, day

SQL_TASK = "POST /druid/v2/sql/task"
ROWS = [{"id": number, "name": "it's", "at": day(1 + number % 4)} for number in range(12)]
APPEND, MERGE, REPLACE = WriteMode.APPEND, WriteMode.MERGE, WriteMode.REPLACE


@pytest.fixture
def druid() -> Iterator[FakeDruid]:
    with FakeDruid(extensions=["msq"]) as running:
        yield running


@pytest.fixture
def bench(druid: FakeDruid, tmp_path: Path) -> Bench:
    return Bench(druid, tmp_path, lake=MemoryLake(), engine="sql")


def statements(druid: FakeDruid) -> list[dict[str, Any]]:
    found = [request.json() for request in druid.requests if f"{request.method} {request.path}" == SQL_TASK]
    return [statement for statement in found if statement]


@pytest.mark.parametrize("mode", list(WriteMode))
def test_a_statement_brings_the_rows(druid: FakeDruid, bench: Bench, mode: WriteMode) -> None:
    outcome = bench.publish(1, ROWS[:5], ROWS[5:], mode=mode)

    assert outcome.receipt == (12, 0, 0)
    assert bench.ids() == [(1, number) for number in range(12)]
    assert outcome.delivery.refs["task"] == "query-hg.samples.1.101.a1"
    assert statements(druid)[0]["context"]["sqlQueryId"] == "hg.samples.1.101.a1"
    assert bench.tasks() == []


def test_a_merge_replaces_the_touched_chunks_and_no_others(bench: Bench) -> None:
    bench.publish(1, ROWS)

    outcome = bench.publish(2, [{**ROWS[0], "name": "new"}, {**ROWS[3], "name": "new"}])

    assert outcome.receipt == (0, 2, 0)
    assert len(bench.ids()) == 12
    assert [number for run, number in bench.ids() if run == 2] == [0, 3]


def test_a_chunk_that_loses_its_last_row_is_emptied(bench: Bench) -> None:
    bench.publish(1, [ROWS[0]])
    bench.publish(2, [{"id": 99, "at": day(20)}])
    bench.withdraw(2)

    outcome = bench.publish(3, [ROWS[0]])

    assert outcome.receipt == (0, 0, 1)
    assert bench.ids() == [(1, 0)]


@pytest.mark.parametrize("how", ["lost", "reset", "unavailable", "html"])
def test_a_statement_without_a_clear_answer_makes_exactly_one_task(druid: FakeDruid, bench: Bench, how: str) -> None:
    druid.fail_next(SQL_TASK, how, times=2)

    outcome = bench.publish(1, ROWS, mode=APPEND)

    assert outcome.receipt == (12, 0, 0)
    assert {found["context"]["sqlQueryId"] for found in statements(druid)} == {"hg.samples.1.101.a1"}


def test_an_id_that_is_taken_is_told_by_asking_for_it(druid: FakeDruid, bench: Bench) -> None:
    # What the engine says of such an id was never seen.
    druid.fail_next(SQL_TASK, "lost")
    druid.fail_next("GET /druid/indexer/v1/task/*", "unavailable", skip=1)
    druid.fail_next(SQL_TASK, "json", status=400, body={"error": "who knows"})

    assert bench.publish(1, ROWS, mode=APPEND).receipt == (12, 0, 0)


def test_a_task_of_an_earlier_life_is_told_apart(druid: FakeDruid, bench: Bench, tmp_path: Path) -> None:
    bench.publish(1, ROWS, mode=REPLACE)
    other = Bench(druid, tmp_path / "other", lake=MemoryLake(), engine="sql")

    outcome = other.publish(1, [{"id": 500, "at": day(1)}], mode=REPLACE)

    assert outcome.receipt == (1, 0, 0)
    assert outcome.delivery.refs["attempt"] == 2
    assert other.ids() == [(1, 500)]


def test_a_failed_statement_is_made_again(druid: FakeDruid, bench: Bench) -> None:
    druid.fail_next_task("WorkerFailed: the worker is gone")

    outcome = bench.publish(1, ROWS, mode=APPEND)

    assert outcome.receipt == (12, 0, 0)
    assert outcome.delivery.refs["task"] == "query-hg.samples.1.101.a2"


def test_rows_that_a_statement_lost_are_no_success(druid: FakeDruid, bench: Bench) -> None:
    druid.drop_rows_of_next_task(2)
    manifest = bench.manifest(1, ROWS, mode=APPEND)

    outcome = bench.deliver(manifest)
    again = bench.retry(manifest, outcome)

    assert outcome.code in ("sink.rows_lost", "sink.count_mismatch")
    assert again.receipt == (12, 0, 0)
    assert len(bench.ids()) == 12


def test_without_the_engine_it_is_refused(tmp_path: Path) -> None:
    with FakeDruid() as druid:
        bench = Bench(druid, tmp_path, lake=MemoryLake(), engine="sql")

        with pytest.raises(ConfigError) as raised:
            bench.publish(1, ROWS, mode=APPEND)

    assert raised.value.code == "sink.no_sql"
    assert "Let engine be native" in str(raised.value)
