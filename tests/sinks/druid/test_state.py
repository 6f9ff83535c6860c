"""State of a delivery: its steps, which may follow which, and its notes as they are stored."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest

from sinks.druid.state import MOVES, Load, LoadState, Step, move

NOW = datetime(2026, 1, 20, tzinfo=UTC)
LOAD = Load(task="hg.samples.1.101.a1", attempt=1, datasource="samples", handed=3)
STATES = {
    Step.NEW: LoadState(),
    Step.PLANNED: LoadState(load=LOAD),
    Step.SUBMITTED: LoadState(load=LOAD, submitted_at=NOW),
    Step.FAILED: LoadState(load=LOAD, submitted_at=NOW, failed_at=NOW),
    Step.PUBLISHED: LoadState(load=LOAD, submitted_at=NOW, published_at=NOW),
    Step.SHORT: LoadState(load=LOAD, submitted_at=NOW, published_at=NOW, stored=2),
}


@pytest.mark.parametrize("step", list(Step))
def test_every_step_is_told_by_its_notes(step: Step) -> None:
    assert STATES[step].step is step
    assert LoadState.parse(STATES[step].dump()) == STATES[step]


def test_only_allowed_moves_happen() -> None:
    for before, after in product(Step, Step):
        if after in MOVES[before]:
            assert LoadState.parse(move(STATES[before], STATES[after])).step is after
        else:
            with pytest.raises(ValueError, match=f"from {before} to {after}"):
                move(STATES[before], STATES[after])


@pytest.mark.parametrize("step", list(Step))
def test_every_step_ends(step: Step) -> None:
    reached = {step}
    while following := {found for each in reached for found in MOVES[each]} - reached:
        reached |= following

    assert Step.PUBLISHED in reached


@pytest.mark.parametrize("step", [step for step in Step if step is not Step.NEW])
def test_what_is_asked_for_again_stays_at_its_step_with_attempts_of_its_own(step: Step) -> None:
    later = datetime(2026, 1, 21, tzinfo=UTC)

    again = replace(STATES[step], is_final=True, failed_polls=2).begun_again(later)

    assert (again.step, again.attempts_before, again.is_final, again.failed_polls) == (step, 1, False, 0)
    assert {again.published_at, again.failed_at} <= {None, later}


def test_another_attempt_begins_with_nothing_of_the_one_before() -> None:
    worn: dict[str, Any] = {"is_final": True, "is_foreign": True, "is_used_up": True, "failed_polls": 2, "stored": 1}
    before = replace(STATES[Step.FAILED], **worn, task_message="it broke", unclear_at=NOW, attempts_before=1)

    after = before.with_load(replace(LOAD, attempt=2))

    assert after == LoadState(load=replace(LOAD, attempt=2), attempts_before=1)
    # Every name is written, so that no note of the attempt before is left among the stored ones.
    assert LoadState.parse({**before.dump(), **after.dump()}) == after
    assert before.dump().keys() == after.dump().keys()
