"""Reconciliation of rows: what reports say, and whether the rows balance."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.druid.client import DruidClient, UnknownObjectError
from sinks.druid.reconciliation import IngestionCounts, ingestion_counts, null_mismatch, shortage_of
from sinks.druid.state import Load

COUNTS = {"processed": 7, "processedBytes": 99, "processedWithError": 1, "thrownAway": 2, "unparseable": 3}
EVENTS = [{"input": "{a=1}", "errorType": "unparseable", "details": ["Could not convert value [x]", "or so"]}]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def native(row_stats: Any, **payload: Any) -> dict[str, Any]:
    return {"ingestionStatsAndErrors": {"type": "x", "taskId": "t", "payload": {"rowStats": row_stats, **payload}}}


@pytest.mark.parametrize(
    "row_stats", [{"buildSegments": COUNTS}, {"totals": {"buildSegments": COUNTS}, "movingAverages": {}}]
)
def test_a_native_report_is_read_in_both_its_forms(row_stats: dict[str, Any]) -> None:
    found = ingestion_counts(native(row_stats, unparseableEvents={"buildSegments": EVENTS}))

    assert found == IngestionCounts(7, 1, 3, 2, ("Could not convert value [x]; or so",))
    assert (found.read, found.lost) == (13, 6)


@pytest.mark.parametrize("events", [None, {}, {"buildSegments": None}, {"buildSegments": ["x"]}, {"buildSegments": []}])
def test_bad_rows_need_not_be_named(events: Any) -> None:
    found = ingestion_counts(native({"buildSegments": COUNTS}, unparseableEvents=events))

    assert found is not None
    assert found.examples == ()


def test_an_example_shows_no_signature() -> None:
    event = {"details": ["cannot read http://store/x.json.gz?X-Amz-Signature=canary-signature"]}

    found = ingestion_counts(native({"buildSegments": COUNTS}, unparseableEvents={"buildSegments": [event]}))

    assert found is not None
    assert "canary-signature" not in str(found)


@pytest.mark.parametrize("report", [None, {}, {"other": 1}, native(None), native({}), native({"buildSegments": {}})])
def test_a_report_that_tells_nothing_counts_nothing(report: Any) -> None:
    assert ingestion_counts(report) is None


@given(JSON_VALUES)
def test_whatever_a_report_holds_reading_it_does_not_break(value: Any) -> None:
    for report in (value, {"ingestionStatsAndErrors": value}, native(value)):
        ingestion_counts(report)


# the balance

LOAD = Load(task="hg.x.1.1.a1", attempt=1, datasource="x", handed=10)


def counted(**counts: int) -> dict[str, Any]:
    return native({"buildSegments": {"processed": 0, **counts}})


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (counted(processed=10), ""),
        (None, ""),
        (counted(processed=9, unparseable=1), "1 could not be parsed"),
        (counted(processed=9, processedWithError=1), "1 had a value that does not fit its column"),
        (counted(processed=7, thrownAway=3), "3 were thrown away, outside of the intervals"),
        (counted(processed=4), "6 were never read"),
        (counted(processed=0), "10 were never read"),
        (counted(processed=5, unparseable=1), "1 could not be parsed, 4 were never read"),
        (counted(processed=12), "2 were read that nobody sent"),
    ],
)
def test_success_with_rows_short_is_no_success(report: Any, words: str) -> None:
    shortage = shortage_of(report, LOAD, destination="druid")

    if not words:
        assert shortage is None
        return
    assert shortage is not None
    assert shortage.error.code == "sink.rows_lost"
    assert shortage.error.values["detail"] == words
    assert (
        shortage.error.values["short"]
        == 10 - report["ingestionStatsAndErrors"]["payload"]["rowStats"]["buildSegments"]["processed"]
    )
    assert "druid" in str(shortage.error)


@given(*(st.integers(0, 5) for _ in range(4)), st.integers(0, 20))
def test_only_all_rows_as_they_were_sent_are_success(
    processed: int, with_error: int, unparseable: int, thrown: int, handed: int
) -> None:
    report = counted(processed=processed, processedWithError=with_error, unparseable=unparseable, thrownAway=thrown)

    shortage = shortage_of(report, replace(LOAD, handed=handed), destination="druid")

    if handed:
        assert (shortage is None) == (processed == handed and not with_error + unparseable + thrown)
    else:
        # A load that empties chunks reads one row, which lies outside of them.
        assert (shortage is None) == (processed + with_error == 0)


class Answers(DruidClient):
    """A client that answers each question by these rows, or raises them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, tuple[Any, ...]]] = []

    def sql(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        self.asked.append((query, parameters))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [answer]


def test_nulls_are_asked_for_in_portions_and_by_quoted_names() -> None:
    expected = {f'c"{number}': number for number in range(95)}
    client = Answers(*({f"c{place}": start + place for place in range(40)} for start in (0, 40, 80)))

    mismatch = null_mismatch(client, replace(LOAD, nulls=expected), run_id=7)

    assert mismatch == ""
    assert len(client.asked) == 3
    assert all(parameters == (7,) for _, parameters in client.asked)
    assert '"c""94" IS NULL' in client.asked[2][0]


def test_other_nulls_are_named_the_first_five() -> None:
    client = Answers({f"c{place}": 1 for place in range(8)})

    mismatch = null_mismatch(client, replace(LOAD, nulls={f"n{number}": 0 for number in range(8)}), run_id=7)

    assert mismatch.count("column") == 5
    assert "column n0 has 1 nulls instead of 0" in mismatch


def test_a_column_that_the_broker_does_not_know_yet_is_a_matter_of_time() -> None:
    client = Answers(UnknownObjectError("sink.rejected", detail="Column 'a' not found"))

    assert "not know all columns yet" in null_mismatch(client, replace(LOAD, nulls={"a": 0}), run_id=7)


def test_without_columns_nothing_is_asked() -> None:
    assert null_mismatch(Answers(), replace(LOAD, nulls={}), run_id=7) == ""
