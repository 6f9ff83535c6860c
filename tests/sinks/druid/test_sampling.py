"""Samples of an input, taken by Druid before it may load it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from sinks.druid.columns import DruidColumn, DruidType
from sinks.druid.sampling import MOST_FILES, schema_mismatches
from tests.fakes.druid import FakeDruid
from tests.sinks.druid.support import KEYLESS, PIPELINE, Bench, WriteMode, day

ROWS = [{"id": number, "name": "Si", "at": day(number)} for number in range(1, 4)]


def sampled(kind: str, *values: Any, error: str = "") -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"input": {"a": value}, "parsed": {"a": value}} for value in values]
    if error:
        rows.append({"unparseable": True, "error": error})
    return {"logicalSegmentSchema": [{"name": "__time", "type": "LONG"}, {"name": "a", "type": kind}], "data": rows}


@pytest.mark.parametrize(
    ("column", "found", "differs"),
    [
        (DruidType.LONG, sampled("LONG", 1), False),
        (DruidType.LONG, sampled("DOUBLE", 1.5), True),
        (DruidType.LONG, sampled("STRING", "x"), True),
        (DruidType.LONG, sampled("STRING", None), False),
        (DruidType.DOUBLE, sampled("LONG", 1), False),
        (DruidType.DOUBLE, sampled("STRING", "NaN", None), False),
        (DruidType.DOUBLE, sampled("STRING", "NaN", "x"), True),
        (DruidType.STRING, sampled("STRING", "x"), False),
        (DruidType.STRING, sampled("LONG", 1), True),
        (DruidType.JSON, sampled("STRING", '{"a":1}'), False),
        (DruidType.JSON, sampled("COMPLEX<json>", {"a": 1}), False),
        (DruidType.JSON, sampled("ARRAY<LONG>", [1]), True),
        (DruidType.LONG, {}, False),
        (DruidType.LONG, sampled("LONG", 1, error="Unable to parse row"), True),
    ],
)
def test_what_is_found_is_compared_with_what_is_declared(
    column: DruidType, found: dict[str, Any], differs: bool
) -> None:
    assert bool(schema_mismatches((DruidColumn("a", "a", column),), found)) is differs


# in a load


def lie(druid: FakeDruid, kind: str, value: Any) -> None:
    body = {
        "numRowsRead": 1,
        "logicalSegmentSchema": [{"name": "name", "type": kind}],
        "data": [{"parsed": {"name": value}}],
    }
    druid.fail_next("POST /druid/indexer/v1/sampler", "json", body=body)


def test_a_load_that_agrees_goes_on_and_finds_undeclared_columns(bench: Bench) -> None:
    bench.settings["discover_schema"] = True

    outcome = bench.publish(1, [{**row, "extra": 1.5} for row in ROWS], mode=WriteMode.REPLACE)

    assert outcome.receipt == (3, 0, 0)
    assert bench.rows("extra") == [(1.5,)] * 3


def test_a_mismatch_stops_the_submission_and_changes_nothing(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, ROWS, mode=WriteMode.REPLACE)
    bench.settings["discover_schema"] = True
    lie(druid, "LONG", 7)

    outcome = bench.publish(2, ROWS[:1], mode=WriteMode.REPLACE)

    assert outcome.code == "sink.schema_differs"
    assert "column name is STRING here and LONG for Druid" in str(outcome.error)
    assert len(bench.tasks()) == 1
    assert bench.ids() == [(1, 1), (1, 2), (1, 3)]


def test_without_being_asked_nothing_is_discovered(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, ROWS, mode=WriteMode.REPLACE)

    assert druid.count("POST /druid/indexer/v1/sampler") == 0


# a disk that is not shared


def test_a_disk_that_druid_does_not_see_is_found_out_before_anything_is_replaced(
    druid: FakeDruid, local: Bench
) -> None:
    local.publish(1, ROWS, mode=WriteMode.REPLACE)
    druid.fail_next("POST /druid/indexer/v1/sampler", "json", body={"numRowsRead": 0, "data": []})

    outcome = local.publish(2, ROWS[:1], mode=WriteMode.REPLACE)

    assert outcome.code == "sink.disk_not_shared"
    assert "shares_disk" in str(outcome.error)
    assert local.ids() == [(1, 1), (1, 2), (1, 3)]
    assert len(local.tasks()) == 1


def test_each_file_is_looked_at_and_no_more_than_enough(druid: FakeDruid, local: Bench) -> None:
    local.publish(1, *([row] for row in ROWS), mode=WriteMode.REPLACE)
    few = druid.count("POST /druid/indexer/v1/sampler")
    parts = [local.part(2, [{"id": number}], lane=number, contract=KEYLESS) for number in range(MOST_FILES + 7)]

    local.deliver(local.manifest(2, *parts, mode=WriteMode.APPEND))

    assert few == len(ROWS)
    assert druid.count("POST /druid/indexer/v1/sampler") == few + MOST_FILES
    assert len(druid.rows(PIPELINE)) == len(ROWS) + len(parts)


def test_an_answer_that_names_no_rows_is_no_row_seen(druid: FakeDruid, local: Bench) -> None:
    druid.fail_next("POST /druid/indexer/v1/sampler", "json", body={})

    assert local.publish(1, ROWS, mode=WriteMode.REPLACE).code == "sink.disk_not_shared"


def test_rows_from_before_1970_can_be_looked_at_and_loaded(local: Bench) -> None:
    local.settings["discover_schema"] = True
    rows = [{"id": 1, "at": datetime(1969, 7, 20, tzinfo=UTC)}, {"id": 2, "at": day(1)}]

    assert local.publish(1, rows, mode=WriteMode.REPLACE).receipt == (2, 0, 0)
