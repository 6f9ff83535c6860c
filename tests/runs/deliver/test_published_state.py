"""Relational tables beside the published state, cell by cell, after every order of deliveries and contracts."""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ingestion import registry
from ingestion.models import Pipeline, Run, RunState
from ingestion.ports.errors import Refused
from tests.runs.deliver.histories import History
from tests.runs.driver import Driver

MakePipeline = Callable[..., Pipeline]


@pytest.fixture
def history(driver: Driver, make_pipeline: MakePipeline, settings: Any, tmp_path: Path) -> History:
    """A pipeline into one SQLite file."""
    connectors = {**settings.HEADGATE_CONNECTORS, "rows": "tests.runs.deliver.histories:RowsConnector"}
    settings.HEADGATE_CONNECTORS = connectors
    registry._table.cache_clear()
    pipeline = make_pipeline()
    pipeline.destinations.clear()
    pipeline.source.kind = "rows"
    pipeline.source.save()
    history = History(driver, pipeline)
    history.add_sqlite(tmp_path / "rows.sqlite3")
    return history


def rows(first: int, *values: Any, name: str = "qty") -> list[dict[str, Any]]:
    return [{"id": first + place, name: value} for place, value in enumerate(values)]


def test_a_failed_older_run_that_is_delivered_after_newer_contracts_nulls_nothing(history: History) -> None:
    history.agree(qty="integer")
    history.run(*rows(0, *range(10)))
    history.agree(qty="number")
    with history.broken():
        second = history.run(*rows(5, *(n + 0.5 for n in range(10))))
    history.agree(qty="string")
    history.run(*rows(10, *(f"about {n}" for n in range(10))))

    delivery = history.redeliver(second)

    assert second.state == RunState.PARTIAL
    assert (delivery.state, delivery.code) == ("verified", "")
    assert history.seen() == history.expected()


def test_a_new_table_is_filled_from_runs_of_three_contracts(history: History, tmp_path: Path) -> None:
    history.agree(qty="integer")
    history.run(*rows(0, 1, 2, 3))
    history.agree(qty="number")
    history.run(*rows(2, 2.5, 3.0, None))
    history.agree(qty="string")
    history.run(*rows(3, "three", None))

    history.add_sqlite(tmp_path / "new.sqlite3", name="new")
    history.fill("new")

    assert history.seen("file") == history.expected()
    assert history.seen("new") == history.expected()


def test_a_roll_back_shows_the_keys_that_it_does_not_touch_through_its_contract(history: History) -> None:
    history.agree(qty="integer")
    first = history.run(*rows(0, 1, 2, 3))
    history.agree(qty="string", note="string")
    history.run({"id": 2, "qty": "7", "note": "n"}, {"id": 3, "qty": "8", "note": "n"})

    history.roll_back(first)
    rolled_back = history.seen(), history.expected()
    history.agree(qty="string", note="string")
    history.run({"id": 9, "qty": "9", "note": "n"})

    assert rolled_back[0] == rolled_back[1]
    assert history.seen() == history.expected()


def test_a_roll_back_through_which_a_value_cannot_be_seen_fails_and_changes_nothing(history: History) -> None:
    history.agree(qty="integer")
    first = history.run(*rows(0, 1, 2, 3))
    history.agree(qty="string")
    history.run(*rows(5, "seven"))
    before = history.seen()

    again = history.roll_back(first)

    assert (again.state, again.code) == (RunState.PARTIAL, "sink.value_not_castable")
    assert "'seven'" in again.message
    assert history.readers["file"]("SELECT id, qty FROM items ORDER BY id") == before


@pytest.mark.parametrize(("replaced", "code"), [(0, ""), (1, "sink.value_not_castable")])
def test_a_late_run_whose_value_cannot_be_shown_fails_unless_a_newer_one_replaced_it(
    history: History, replaced: int, code: str
) -> None:
    history.agree(qty="string")
    with history.broken():
        late = history.run(*rows(0, "one", "2"))
    history.agree(qty="number")
    history.run(*rows(replaced, 5))

    delivery = history.redeliver(late)

    assert delivery.code == code
    assert history.seen() == ([(replaced, 5.0)] if code else history.expected())


def test_a_column_that_a_contract_drops_renames_or_takes_back_shows_what_the_newest_rows_have(history: History) -> None:
    steps: list[dict[str, str]] = [
        {"qty": "integer", "note": "string"},
        {"qty": "integer"},
        {"amount": "integer"},
        {"qty": "string", "note": "string"},
        {"amount": "string", "qty": "number"},
    ]
    for place, types in enumerate(steps):
        history.agree(**types)
        history.run(*({"id": n, **dict.fromkeys(types, place)} for n in (place, place + 1)))
        history.run({"id": place + 1, **dict.fromkeys(types, place)})

        assert history.seen() == history.expected(), place


def test_rows_without_a_key_are_seen_through_the_newest_contract(history: History) -> None:
    history.agree(key=(), qty="integer")
    history.run(*rows(0, 1, 2, 3))
    history.agree(key=(), qty="number")
    with history.broken():
        second = history.run(*rows(10, 1.5, 2.0))
    history.agree(key=(), qty="string")
    history.run(*rows(20, "about 1"))
    history.redeliver(second)

    assert history.seen() == history.expected()


@pytest.mark.parametrize("seed", [1])
def test_any_history_leaves_the_published_state(history: History, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    history.add_sqlite(tmp_path / "other.sqlite3", name="other")
    live_again(history, chance)


def live_again(history: History, chance: random.Random) -> None:
    """Let a pipeline live through some steps, and compare after each what readers see where all was delivered."""
    contracts = [{"qty": "integer"}, {"qty": "number", "note": "string"}, {"qty": "string"}, {"note": "string"}]
    failed: list[tuple[str, Run]] = []
    published: list[Run] = []
    history.agree(**contracts[0])
    for _ in range(14):
        step = chance.choice(["run", "run", "run", "agree", "broken", "redeliver", "roll back", "refresh"])
        match step:
            case "agree":
                history.agree(**chance.choice(contracts))
                continue
            case "redeliver" if failed:
                name, run = failed.pop(chance.randrange(len(failed)))
                with suppress(Refused):
                    history.redeliver(run, name)
            case "roll back" if published:
                published.append(history.roll_back(chance.choice(published)))
            case "broken":
                name = chance.choice(["file", "other"])
                with history.broken(name):
                    published.append(history.run(*some_rows(history, chance)))
                failed.append((name, published[-1]))
            case _:
                published.append(history.run(*some_rows(history, chance), replaces=step == "refresh"))
        for name in ("file", "other"):
            if name not in [missing for missing, _ in failed]:
                assert history.seen(name) == history.expected(), (name, step, published[-1].pk)
    for name in ("file", "other"):
        history.fill(name)
        assert history.seen(name) == history.expected(), (name, "filled")


def some_rows(history: History, chance: random.Random) -> list[dict[str, Any]]:
    """Return rows of ids that earlier runs may have brought, with values that every contract can show."""
    values = {"qty": [None, 0, 7, 12], "note": [None, "a", "b"]}
    names = [name for name in history.types if name != "id"]
    return [
        {"id": number, **{name: chance.choice(values[name]) for name in names}}
        for number in chance.sample(range(8), chance.randrange(1, 5))
    ]


def test_rows_that_show_other_values_than_were_handed_over_fail_the_delivery(history: History) -> None:
    history.agree(qty="integer")
    history.run(*rows(0, 1, 2, 3))
    change = "UPDATE items SET qty = qty + 1 WHERE id = new.id"
    history.readers["file"](f"CREATE TRIGGER spoils AFTER INSERT ON items BEGIN {change}; END")

    spoilt = history.run(*rows(7, 4, None))
    history.readers["file"]("DROP TRIGGER spoils")

    assert (spoilt.state, spoilt.code) == (RunState.PARTIAL, "sink.content_mismatch")
    assert "qty has other values" in spoilt.message
