"""Whose rows make way for whose: no write mode loses or doubles rows of another run."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ingestion.ports.errors import SinkRejected
from ingestion.ports.publication import DeliveryState, Manifest, WriteMode
from sinks.druid.spec import plan_replacement
from tests.fakes.druid import FakeDruid
from tests.sinks.druid.support import PIPELINE, Bench, Outcome, day

APPEND, MERGE, REPLACE = WriteMode.APPEND, WriteMode.MERGE, WriteMode.REPLACE
TASK = "/druid/indexer/v1/task"


def row(number: int, on: int = 1, name: str = "Si") -> dict[str, Any]:
    return {"id": number, "name": name, "at": day(on)}


def load_foreign(bench: Bench, rows: list[dict[str, Any]], **columns: Any) -> None:
    """Let somebody else load rows into the pipeline's datasource."""
    text = "".join(f'{{"t":{1767225600000 + n * 86_400_000}{extra}}}\n' for n, extra in enumerate(columns["lines"]))
    task = {
        "type": "index_parallel",
        "id": "somebody_else",
        "spec": {
            "dataSchema": {
                "dataSource": PIPELINE,
                "timestampSpec": {"column": "t", "format": "millis"},
                "dimensionsSpec": {"dimensions": columns["dimensions"]},
                "granularitySpec": {
                    "segmentGranularity": "DAY",
                    "rollup": False,
                    "intervals": ["2026-01-01/2026-02-01"],
                },
            },
            "ioConfig": {
                "type": "index_parallel",
                "inputSource": {"type": "inline", "data": text},
                "inputFormat": {"type": "json"},
            },
        },
    }
    bench.http.post(f"{bench.druid.url}{TASK}", json=task)
    bench.druid.await_task("somebody_else")


def refill(bench: Bench, manifest: Manifest) -> Outcome:
    """Deliver a run anew, and then once more as a person asks for it again."""
    return bench.retry(manifest, bench.deliver(manifest))


# full refresh


def test_a_full_refresh_replaces_the_whole_datasource(bench: Bench) -> None:
    bench.publish(1, [row(number, on=number) for number in range(1, 9)], mode=REPLACE)
    bench.publish(2, [row(20, on=30)], mode=APPEND)

    outcome = bench.publish(3, [row(1, on=4)], mode=REPLACE)

    assert outcome.receipt == (1, 0, 0)
    assert bench.ids() == [(3, 1)]


def test_also_where_the_broker_s_list_of_segments_is_a_minute_old(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, [row(1, on=1)], mode=REPLACE)
    druid.keep_segment_list()
    bench.publish(2, [row(2, on=20)], mode=APPEND)

    bench.publish(3, [row(3, on=1)], mode=REPLACE)

    assert bench.ids() == [(3, 3)]


def test_also_what_is_published_and_not_yet_loaded(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, [row(1, on=1)], mode=REPLACE)
    druid.load_after(None)
    bench.publish(2, [row(2, on=20)], mode=APPEND)
    druid.load_after(0)

    bench.publish(3, [row(3, on=1)], mode=REPLACE)

    assert bench.ids() == [(3, 3)]


def test_a_refresh_without_rows_empties_the_datasource(bench: Bench) -> None:
    bench.publish(1, [row(1)], mode=REPLACE)

    outcome = bench.publish(2, mode=REPLACE)

    assert outcome.receipt == (0, 0, 0)
    assert bench.ids() == []


def test_and_brings_no_rows_back_that_had_been_replaced(bench: Bench) -> None:
    bench.publish(1, [row(1), row(2)], mode=REPLACE)
    bench.publish(2, [row(3)], mode=REPLACE)

    bench.publish(3, mode=REPLACE)

    assert bench.ids() == []


def test_an_emptied_datasource_takes_rows_again(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, [row(1)], mode=REPLACE)
    bench.publish(2, mode=REPLACE)

    for run_id, mode in ((3, REPLACE), (4, APPEND)):
        bench.publish(run_id, [row(run_id)], mode=mode)

    assert bench.ids() == [(3, 3), (4, 4)]


def test_what_was_emptied_is_emptied_again_with_the_run(bench: Bench) -> None:
    first, emptying = bench.manifest(1, [row(1)], mode=REPLACE), bench.manifest(2, mode=REPLACE)
    outcomes = [bench.deliver(first), bench.deliver(emptying)]
    bench.sink.drop("samples", bench.ctx)
    bench.retry(first, outcomes[0])
    assert bench.ids() == [(1, 1)]

    bench.retry(emptying, outcomes[1])

    assert bench.ids() == []


def test_an_emptying_ends_when_readers_see_it(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, [row(1)], mode=REPLACE)
    druid.lag_broker(3)

    outcome = bench.publish(2, mode=REPLACE)

    assert outcome.states.count(DeliveryState.PUBLISHED) == 4
    assert bench.ids() == []


def test_rows_that_the_broker_still_shows_after_an_emptying_are_waited_out(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, [row(1)], mode=REPLACE)
    bench.publish(2, mode=REPLACE)
    druid.lag_broker(3)
    bench.publish(3, [row(3)], mode=APPEND)
    druid.lag_broker(0)

    assert bench.publish(4, [row(4)], mode=REPLACE).receipt == (1, 0, 0)
    assert bench.ids() == [(4, 4)]


# rows of others


@pytest.mark.parametrize("mode", list(WriteMode))
@pytest.mark.parametrize(
    ("lines", "dimensions"),
    [
        ([',"a":"x"', ',"a":"y"'], ["a"]),
        ([',"_run":99,"id":1', ',"_run":99,"id":2'], ["id", {"type": "long", "name": "_run"}]),
        ([',"_run":1,"id":1', ',"id":2'], ["id", {"type": "long", "name": "_run"}]),
    ],
    ids=["without the column", "of an unknown run", "of no run"],
)
def test_rows_that_no_run_of_the_pipeline_brought_are_left_alone(
    druid: FakeDruid, bench: Bench, mode: WriteMode, lines: list[str], dimensions: list[Any]
) -> None:
    load_foreign(bench, [], lines=lines, dimensions=dimensions)
    before = druid.rows(PIPELINE)

    for rows in ([row(1)], []):
        outcome = bench.publish(1, *([rows] if rows else []), mode=mode)

        assert outcome.code == "sink.foreign_rows"
        assert PIPELINE in str(outcome.error)
    assert druid.rows(PIPELINE) == before
    assert len(bench.tasks()) == 1


def test_replacing_an_interval_that_holds_rows_of_other_runs_without_reading_them_again_cannot_be_planned(
    bench: Bench,
) -> None:
    from sinks.druid.client import DruidClient
    from sinks.druid.config import Granularity
    from sinks.druid.datasource_state import rows_held
    from sinks.druid.intervals import chunk_of
    from tests.sinks.druid.support import ms

    bench.publish(1, [row(1, on=5)], mode=APPEND)
    client = DruidClient(bench.sink.config, bench.http, destination="druid")
    chunk = chunk_of(ms(day(5)), Granularity.DAY)
    held = rows_held(client, PIPELINE, Granularity.DAY)

    with pytest.raises(SinkRejected) as raised:
        plan_replacement(
            [chunk],
            granularity=Granularity.DAY,
            held_runs={chunk: frozenset(run for start, run in held if start == chunk[0])},
            reread_runs=frozenset({2}),
            given_up_runs=frozenset(),
            datasource=PIPELINE,
        )

    assert raised.value.code == "sink.replaces_unknown"
    assert "1" in str(raised.value)


def test_a_run_whose_rows_appear_between_the_looks_is_not_written_over(
    druid: FakeDruid, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(1, [row(1)])
    manifest = bench.manifest(3, [row(1, name="new")])
    from sinks.druid import planning

    ask = planning.rows_held

    def with_a_late_one(client: Any, datasource: str, granularity: Any) -> Any:
        found = ask(client, datasource, granularity)
        return {**found, **{(start, 77): 1 for start, _ in found}}

    monkeypatch.setattr(planning, "rows_held", with_a_late_one)
    outcome = bench.deliver(manifest)

    assert outcome.code == "sink.replaces_unknown"
    assert bench.ids() == [(1, 1)]


# merges


def test_a_merge_touches_the_chunks_of_changed_rows_only(bench: Bench) -> None:
    bench.publish(1, [row(number, on=number) for number in range(1, 9)])

    outcome = bench.publish(2, [row(3, on=3), row(5, on=5, name="Ge"), row(9, on=9)])

    assert outcome.receipt == (1, 1, 1)
    intervals = bench.tasks()[-1]["spec"]["dataSchema"]["granularitySpec"]["intervals"]
    assert [text[:10] for text in intervals] == ["2026-01-05", "2026-01-09"]
    assert bench.ids() == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 6), (1, 7), (1, 8), (2, 5), (2, 9)]


def test_a_merge_of_nothing_new_asks_for_no_task(bench: Bench) -> None:
    bench.publish(1, [row(1), row(2)])

    outcome = bench.publish(2, [row(2), row(1)])

    assert outcome.receipt == (0, 0, 2)
    assert len(bench.tasks()) == 1


def test_a_merge_without_a_key_adds_its_rows(bench: Bench) -> None:
    from tests.sinks.druid.support import KEYLESS

    bench.publish(1, [row(1), row(2)], mode=REPLACE)

    outcome = bench.publish(2, [row(1)], mode=MERGE, contract=KEYLESS)

    assert outcome.receipt == (1, 0, 0)
    assert bench.ids() == [(1, 1), (1, 2), (2, 1)]


def test_an_older_run_can_be_delivered_late(bench: Bench) -> None:
    bench.publish(1, [row(1)])
    bench.publish(3, [row(1, name="newest"), row(3)])

    outcome = bench.publish(2, [row(1, name="late"), row(2)])

    assert outcome.receipt == (1, 0, 1)
    assert bench.ids() == [(2, 2), (3, 1), (3, 3)]


def test_a_roll_back_publishes_the_same_parts_under_its_own_run(bench: Bench) -> None:
    first = bench.manifest(1, [row(1), row(2)])
    bench.deliver(first)
    bench.publish(2, [row(1, name="wrong", on=9)])

    outcome = bench.deliver(bench.manifest(3, *first.parts))

    assert outcome.receipt == (0, 1, 1)
    assert bench.ids() == [(1, 2), (3, 1)]
    assert bench.rows("name") == [("Si",), ("Si",)]


@pytest.mark.parametrize("mode", [APPEND, REPLACE])
def test_a_roll_back_of_other_modes_names_its_own_run_as_well(bench: Bench, mode: WriteMode) -> None:
    first = bench.manifest(1, [row(1), row(2)], mode=mode)
    bench.deliver(first)

    outcome = bench.deliver(bench.manifest(2, *first.parts, mode=REPLACE))

    assert outcome.receipt == (2, 0, 0)
    assert bench.ids() == [(2, 1), (2, 2)]


def test_rows_of_a_run_that_was_never_verified_are_kept(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, [row(1)])
    unverified = bench.manifest(2, [row(2)])
    bench.deliver(unverified, until=lambda view: bool(view.refs.get("published_at")))

    bench.publish(3, [row(3)])

    assert bench.ids() == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("mode", [APPEND, MERGE])
def test_what_a_withdrawn_run_had_brought_goes_with_the_next_run(bench: Bench, mode: WriteMode) -> None:
    bench.publish(1, [row(1, on=1)], mode=mode)
    bench.publish(2, [row(2, on=9)], mode=mode)
    bench.withdraw(2)

    outcome = bench.publish(3, [row(3, on=3)], mode=mode)

    assert outcome.receipt == (1, 0, 0)
    assert bench.ids() == [(1, 1), (3, 3)]


def test_what_a_withdrawn_run_had_moved_is_moved_back(bench: Bench) -> None:
    bench.publish(1, [row(1, on=1)])
    bench.publish(2, [row(1, on=9)])
    bench.withdraw(2)

    bench.publish(3, [row(3, on=20)])

    assert bench.ids() == [(1, 1), (3, 3)]


@pytest.mark.parametrize("mode", [APPEND, MERGE])
def test_a_run_without_rows_removes_what_a_withdrawn_one_left(bench: Bench, mode: WriteMode) -> None:
    bench.publish(1, [row(1, on=1)], mode=mode)
    bench.publish(2, [row(2, on=9)], mode=mode)
    bench.withdraw(2)

    outcome = bench.publish(3, mode=mode)

    assert outcome.receipt == (0, 0, 0)
    assert bench.ids() == [(1, 1)]


def test_a_chunk_that_loses_its_last_row_is_emptied(bench: Bench) -> None:
    bench.publish(1, [row(1, on=1)])
    bench.publish(2, [row(2, on=9)])
    bench.withdraw(2)

    outcome = bench.publish(3, [row(1, on=1)])

    assert outcome.receipt == (0, 0, 1)
    assert bench.ids() == [(1, 1)]
    assert bench.tasks()[-1]["spec"]["ioConfig"]["inputSource"]["type"] == "inline"


def test_a_datasource_that_was_dropped_is_filled_again_by_the_next_merge(bench: Bench) -> None:
    bench.publish(1, [row(1, on=1)])
    bench.publish(2, [row(2, on=9)])
    bench.sink.drop(PIPELINE, bench.ctx)

    bench.publish(3, [row(3, on=20)])

    assert bench.ids() == [(1, 1), (2, 2), (3, 3)]


# what is not loaded


def test_a_merge_waits_until_it_can_be_told_whose_rows_are_there(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, [row(1)])
    druid.load_after(None)
    not_loaded = bench.publish(2, [row(2)])
    druid.load_after(0)
    manifest = bench.manifest(3, [row(3)])

    waiting = bench.deliver(manifest, until=lambda view: view.polls > 5)
    druid.finish_loading()
    outcome = bench.deliver(manifest, waiting.delivery, goes_on=True)

    assert not_loaded.states[-1] is DeliveryState.PUBLISHED_NOT_LOADED
    assert "1 published segments of it are not served" in waiting.notes[0]
    assert len(waiting.notes) == 1
    assert outcome.receipt == (1, 0, 0)
    assert bench.ids() == [(1, 1), (2, 2), (3, 3)]


def test_and_does_not_write_over_it_however_long_it_takes(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, [row(1)])
    druid.load_after(None)
    bench.publish(2, [row(2)])

    outcome = bench.publish(3, [row(3)])

    assert outcome.code == "sink.unavailable"
    assert "not served" in str(outcome.error)
    assert bench.ids() == [(1, 1), (2, 2)]


def test_an_append_elsewhere_does_not_wait_for_it(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, [row(1)], mode=APPEND)
    druid.load_after(None)
    bench.publish(2, [row(2)], mode=APPEND)
    druid.load_after(0)
    manifest = bench.manifest(3, [row(3, on=20)], mode=APPEND)

    outcome = bench.deliver(manifest, until=lambda view: bool(view.refs.get("submitted_at")))

    assert outcome.delivery.refs["submitted_at"]


# far-off times

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def test_what_an_attempt_lost_of_other_runs_comes_back_with_the_next(druid: FakeDruid, bench: Bench) -> None:
    bench.publish(1, [row(1), row(2, on=9)], mode=APPEND)
    second = bench.publish(2, [row(3)], mode=APPEND)
    # Its rows are there already, so the chunk is written anew, and the task that does it reads nothing.
    druid.empty_next_task()

    refilled = refill(bench, bench.manifest(2, [row(3)], mode=APPEND))

    assert second.receipt == refilled.receipt == (1, 0, 0)
    assert bench.ids() == [(1, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("mode", list(WriteMode))
@pytest.mark.parametrize("granularity", ["auto", "day", "hour"])
def test_the_first_and_the_last_moment_there_is_can_be_loaded_and_replaced(
    bench: Bench, mode: WriteMode, granularity: str
) -> None:
    bench.settings["segment_granularity"] = granularity
    rows = [{"id": 1, "name": "first", "at": FIRST}, {"id": 2, "name": "last", "at": LAST}, row(3)]

    first = bench.publish(1, rows, mode=mode)
    second = bench.publish(2, [{"id": 2, "name": "new", "at": LAST}], mode=mode)

    assert first.receipt == (3, 0, 0)
    assert second.error is None, second.error
    expected = {
        REPLACE: [(2, 2)],
        APPEND: [(1, 1), (1, 2), (1, 3), (2, 2)],
        MERGE: [(1, 1), (1, 3), (2, 2)],
    }
    assert bench.ids() == expected[mode]


def test_a_load_of_millennia_asks_for_no_list_of_chunks_that_takes_the_overlord_down(bench: Bench) -> None:
    bench.settings["segment_granularity"] = "hour"

    bench.publish(1, [{"id": 1, "at": FIRST}, row(2)], mode=REPLACE)

    assert bench.tasks()[0]["spec"]["dataSchema"]["granularitySpec"]["segmentGranularity"] == "MONTH"


def test_an_append_takes_the_granularity_that_is_there(bench: Bench) -> None:
    bench.settings["segment_granularity"] = "month"
    bench.publish(1, [row(1)], mode=REPLACE)
    bench.settings["segment_granularity"] = "hour"

    outcome = bench.publish(2, [row(2)], mode=APPEND)

    assert outcome.receipt == (1, 0, 0)
    assert bench.tasks()[-1]["spec"]["dataSchema"]["granularitySpec"]["segmentGranularity"] == "MONTH"


def test_a_merge_into_chunks_of_another_length_loses_nothing(bench: Bench) -> None:
    bench.publish(1, [row(number, on=number) for number in range(1, 9)])
    bench.settings["segment_granularity"] = "hour"

    bench.publish(2, [row(3, on=3, name="Ge"), row(20, on=30)])

    assert bench.ids() == [(1, 1), (1, 2), (1, 4), (1, 5), (1, 6), (1, 7), (1, 8), (2, 3), (2, 20)]
