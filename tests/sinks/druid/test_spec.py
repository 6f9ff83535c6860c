"""Specs that are known to be right, and plans that cannot be made."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.ports.errors import SinkRejected
from sinks.druid.config import Granularity
from sinks.druid.intervals import covers
from sinks.druid.spec import (
    MARKER,
    data_schema,
    marker_of,
    native_spec,
    plan_hash,
    plan_replacement,
    quote_in_expression,
)
from tests.fakes.druid.validation import check_sampler, check_task
from tests.sinks.druid.plans import BASE, DAY_MS, FOLDER, JANUARY, PLANS, documents, text_of

DOCUMENTS = documents()
ALL_EXTENSIONS = frozenset({"s3", "parquet"})
DAY = (JANUARY, JANUARY + DAY_MS)


def test_every_plan_gives_the_document_that_is_known_to_be_right_and_there_are_no_others() -> None:
    kept = {path.name: path.read_text() for path in FOLDER.iterdir()}

    assert {name: text_of(document) for name, document in DOCUMENTS.items()} == kept


def test_an_overlord_takes_every_spec() -> None:
    for plan in PLANS.values():
        check_task(native_spec(plan), extensions=ALL_EXTENSIONS)
    check_sampler(DOCUMENTS["sampler.json"], extensions=ALL_EXTENSIONS)


def test_rows_are_never_merged_lost_in_silence_or_without_an_interval() -> None:
    for name, plan in PLANS.items():
        spec = native_spec(plan)["spec"]
        granularity = spec["dataSchema"]["granularitySpec"]

        assert granularity["rollup"] is False, name
        assert granularity["queryGranularity"] == "NONE", name
        assert granularity["intervals"], name
        assert spec["tuningConfig"]["maxParseExceptions"] == 0, name
        assert spec["ioConfig"]["appendToExisting"] is not spec["ioConfig"]["dropExisting"], name


def test_the_same_plan_has_the_same_hash_wherever_it_is_read_from() -> None:
    elsewhere = replace(BASE, source={"type": "http", "uris": ["http://x/?X-Amz-Signature=other"]}, task_id="other")

    assert plan_hash(elsewhere) == plan_hash(BASE)


CHANGES: list[dict[str, Any]] = [
    {"is_append": True},
    {"run_id": 8},
    {"run_id": None},
    {"granularity": Granularity.MONTH},
    {"intervals": (DAY,)},
    {"format": "parquet"},
    {"input_names": ("1" * 64,)},
    {"columns": BASE.columns[:-1]},
    {"logical_time": "2026-01-03T00:00:00+00:00"},
    {"time_column": None},
    {"discovers": True},
    {"datasource": "other"},
]


def test_another_plan_has_another_hash() -> None:
    hashes = {plan_hash(replace(BASE, **change)) for change in CHANGES}

    assert len(hashes | {plan_hash(BASE)}) == len(CHANGES) + 1


@pytest.mark.parametrize(
    "task",
    [
        native_spec(BASE),
        {"task": "x", "payload": native_spec(BASE)},
    ],
)
def test_a_task_of_ours_is_known_by_its_hash(task: dict[str, Any]) -> None:
    assert marker_of(task) == plan_hash(BASE)


@pytest.mark.parametrize(
    "task", [{}, {"payload": None}, {"payload": {"context": None}}, {"payload": {"context": {MARKER: 7}}}]
)
def test_any_other_task_has_none(task: dict[str, Any]) -> None:
    assert marker_of(task) is None


def test_signed_addresses_show_in_no_text_of_a_plan() -> None:
    assert "signed" not in repr(PLANS["presigned_json_replace"])


@given(st.text(max_size=30))
def test_a_name_in_an_expression_ends_where_it_should(name: str) -> None:
    quoted = quote_in_expression(name)

    inside = quoted[1:-1].replace("\\\\", "").replace('\\"', "")
    assert '"' not in inside
    assert "\\" not in inside


def test_discovery_names_only_what_is_declared() -> None:
    plan = replace(BASE, discovers=True)

    named = {item["name"] for item in data_schema(plan)["dimensionsSpec"]["dimensions"]}

    assert named == {column.name for column in BASE.columns if column.is_declared}
    assert data_schema(plan)["dimensionsSpec"]["useSchemaDiscovery"] is True


# what may be replaced

RUNS = st.frozensets(st.integers(1, 5), max_size=4)


def replaced(held: Any, *, reread: Any = (), given_up: Any = (), wanted: Any = (DAY,)) -> tuple[tuple[int, int], ...]:
    return plan_replacement(
        wanted,
        granularity=Granularity.DAY,
        held_runs=held,
        reread_runs=frozenset(reread),
        given_up_runs=frozenset(given_up),
        datasource="samples",
    )


@given(RUNS, RUNS, RUNS)
def test_rows_of_a_run_that_is_neither_brought_again_nor_given_up_cannot_be_replaced(
    held: frozenset[int], reread: frozenset[int], given_up: frozenset[int]
) -> None:
    if held - reread - given_up:
        with pytest.raises(SinkRejected) as raised:
            replaced({DAY: held}, reread=reread, given_up=given_up)
        assert raised.value.code == "sink.replaces_unknown"
    else:
        assert replaced({DAY: held}, reread=reread, given_up=given_up) == (DAY,)


@pytest.mark.parametrize("held", [{}, {(JANUARY, JANUARY + 1): frozenset()}, {(0, JANUARY): frozenset()}])
def test_a_chunk_that_was_not_asked_about_as_a_whole_cannot_be_replaced(held: Any) -> None:
    with pytest.raises(SinkRejected) as raised:
        replaced(held)

    assert raised.value.code == "sink.replaces_unknown"


def test_rows_beside_the_wanted_ones_in_their_chunk_count_as_well() -> None:
    with pytest.raises(SinkRejected):
        replaced({DAY: frozenset({1, 2})}, reread={1}, wanted=[(JANUARY + 5, JANUARY + 6)])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_what_is_replaced_is_whole_chunks_around_what_was_wanted(days: list[int]) -> None:
    wanted = [(JANUARY + day * DAY_MS + 5, JANUARY + day * DAY_MS + 6) for day in days]
    whole = {(JANUARY, JANUARY + 31 * DAY_MS): frozenset({1})}

    found = replaced(whole, reread={1}, wanted=wanted)

    assert all(covers(found, interval) for interval in wanted)
    assert sum(end - start for start, end in found) == len(set(days)) * DAY_MS
