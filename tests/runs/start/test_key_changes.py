"""A key of other names or types: a full refresh, said beforehand, after which no row stands beside its own old version."""

from collections.abc import Callable
from typing import Any

import pytest

from ingestion.models import Checkpoint, Contract, Pipeline, Run, RunEvent
from ingestion.ports.errors import Refused
from ingestion.runs.operate import retry
from ingestion.runs.read.exports import page, rows_of_pipeline
from ingestion.runs.start import contracts
from ingestion.runs.start.contracts import full_refreshes
from ingestion.runs.start.creation import create_run
from tests.runs.conftest import CONTRACT
from tests.runs.driver import Driver

MakePipeline = Callable[..., Pipeline]


def with_key(kind: str, key: tuple[str, ...] = ("id",)) -> Contract:
    """Return the next version of the contract, with ids of that type."""
    columns: Any = [{"name": "id", "type": kind, "nullable": False}, *CONTRACT["columns"][1:]]
    return contracts.save_contract({**CONTRACT, "key": list(key), "columns": columns})


def start(pipeline: Pipeline, **fields: Any) -> Run:
    run, _ = create_run(Pipeline.objects.get(pk=pipeline.pk), trigger=Run.Trigger.API, **fields)
    return run


def ended(run: Run, driver: Driver) -> Run:
    driver.drain()
    run.refresh_from_db()
    assert run.published_at, run.message
    return run


def ids(pipeline: Pipeline) -> list[Any]:
    return [row["id"] for row in page(rows_of_pipeline(pipeline), after=0, limit=100)]


@pytest.mark.parametrize(("kind", "key"), [("string", ("id",)), ("number", ("id",)), ("integer", ("id", "name"))])
def test_another_type_or_other_names_of_the_key_read_everything_anew_and_say_so_before(
    driver: Driver, make_pipeline: MakePipeline, kind: str, key: tuple[str, ...]
) -> None:
    pipeline = make_pipeline(mode=Pipeline.Mode.INCREMENTAL, config={"pages": 1, "per_page": 2})
    first = ended(start(pipeline), driver)

    foretold = list(full_refreshes(with_key(kind, key)))
    asked = start(pipeline)
    told = asked.message
    second = ended(asked, driver)
    third = ended(start(pipeline), driver)

    assert [(found.pk, reason) for found, reason in foretold] == [(pipeline.pk, told)]
    assert f"id ({kind})" in told and "id (integer)" in told
    assert RunEvent.objects.get(run=second, kind="run.key_changed").message == told
    assert [run.mode for run in (first, second, third)] == ["incremental", "full_refresh", "incremental"]
    assert (second.since, third.since) == (None, {"version": "2026-01-01T00:00:00Z"})
    assert [str(found).removesuffix(".0") for found in ids(pipeline)] == ["0", "1"]


def test_a_run_that_waited_while_another_key_was_published_is_a_full_refresh(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline(mode=Pipeline.Mode.INCREMENTAL, config={"pages": 1, "per_page": 2}, max_active_runs=2)
    old = start(pipeline)
    with_key("string")
    young = start(pipeline)
    said = young.mode
    ended(old, driver)

    assert said == "full_refresh"
    assert ended(young, driver).mode == "full_refresh"
    assert ids(pipeline) == ["0", "1"]


def test_a_state_that_was_merged_under_two_types_is_mended_by_the_next_run(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    pipeline = make_pipeline(mode=Pipeline.Mode.INCREMENTAL, config={"pages": 1, "per_page": 2})
    ended(start(pipeline), driver)
    with_key("string")
    merged = ended(start(pipeline), driver)
    # As an earlier version would have made it.
    Run.objects.filter(pk=merged.pk).update(mode=Pipeline.Mode.INCREMENTAL)

    mended = ended(start(pipeline), driver)

    assert mended.mode == "full_refresh"
    assert ids(pipeline) == ["0", "1"]


def test_a_full_refresh_of_a_part_sets_the_checkpoint_back(driver: Driver, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(mode=Pipeline.Mode.INCREMENTAL, config={"pages": 1, "per_page": 2})
    ended(start(pipeline), driver)
    had_one = Checkpoint.objects.filter(pipeline=pipeline).exists()
    with_key("string")

    ended(start(pipeline, query={"limit": 1}), driver)

    assert had_one and not Checkpoint.objects.filter(pipeline=pipeline).exists()


def test_a_roll_back_does_not_merge_under_another_key(driver: Driver, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(mode=Pipeline.Mode.INCREMENTAL, config={"pages": 1, "per_page": 2})
    first = ended(start(pipeline), driver)
    with_key("string")
    second = ended(start(pipeline), driver)

    with pytest.raises(Refused) as refusal:
        retry.roll_back(first.pk)
    again = ended(retry.roll_back(second.pk), driver)

    assert refusal.value.code == "run.key_changed_since"
    assert again.mode == "full_refresh" and ids(pipeline) == ["0", "1"]
