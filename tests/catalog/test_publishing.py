"""A publication against the rows that are there already, and its counts."""

import polars as pl
import pytest

from ingestion.catalog import DatabaseCatalog, query_records
from ingestion.catalog.merging import KeyMatch, decide
from ingestion.models import CatalogPublication, CatalogRecord, Pipeline
from ingestion.ports.errors import (
    SinkUnavailable,
    StoreCorrupt,
)
from ingestion.ports.publication import WriteMode
from tests.catalog.support import KEYLESS, clean_part, numbered, outcome, publish, seen, stage, start_run, view

pytestmark = pytest.mark.both


def test_a_merge_inserts_new_keys_updates_changed_and_leaves_equal_ones(pipeline: Pipeline) -> None:
    publish(pipeline, numbered(range(100), "old"))

    receipt = publish(pipeline, [*numbered(range(50, 75), "old"), *numbered(range(75, 150), "new")])

    assert outcome(receipt) == (50, 25, 25)
    assert seen(pipeline) == {i: "old" if i < 75 else "new" for i in range(150)}


def test_an_unchanged_reload_touches_no_row_even_with_columns_moved_or_empty(pipeline: Pipeline) -> None:
    frame = pl.DataFrame({"id": range(30), "v": ["x"] * 30, "w": [1.5] * 30})
    publish(pipeline, frame)
    before = list(CatalogRecord.objects.order_by("id").values())

    receipt = publish(pipeline, frame.select("w", "id", "v").with_columns(extra=pl.lit(None, dtype=pl.String)))

    assert outcome(receipt) == (0, 0, 30)
    assert list(CatalogRecord.objects.order_by("id").values()) == before


def test_a_full_refresh_removes_absent_keys_and_makes_every_row_its_own(pipeline: Pipeline) -> None:
    publish(pipeline, numbered(range(20), "old"))
    run = start_run(pipeline)

    receipt = publish(pipeline, numbered(range(10, 25), "old"), run=run, mode=WriteMode.REPLACE)

    assert outcome(receipt) == (15, 0, 0)
    assert seen(pipeline) == dict.fromkeys(range(10, 25), "old")
    assert DatabaseCatalog().count(view(run)) == receipt.visible == 15


def test_an_empty_full_refresh_empties_the_pipeline(pipeline: Pipeline) -> None:
    publish(pipeline, numbered(range(5), "old"))

    receipt = DatabaseCatalog().commit(view(start_run(pipeline), mode=WriteMode.REPLACE))

    assert outcome(receipt) == (0, 0, 0)
    assert seen(pipeline) == {}


def test_a_merge_without_a_key_replaces(pipeline: Pipeline) -> None:
    publish(pipeline, numbered(range(5), "old"), contract=KEYLESS)

    receipt = publish(pipeline, numbered(range(3, 9), "new"), contract=KEYLESS)

    assert outcome(receipt) == (6, 0, 0)
    assert seen(pipeline) == dict.fromkeys(range(3, 9), "new")


def test_append_keeps_every_row(pipeline: Pipeline) -> None:
    publish(pipeline, numbered(range(5), "old"), mode=WriteMode.APPEND)

    receipt = publish(pipeline, numbered(range(5), "new"), mode=WriteMode.APPEND)

    assert outcome(receipt) == (5, 0, 0)
    assert len(query_records(pipeline_id=pipeline.pk, limit=100)) == 10


def test_staged_rows_are_not_seen_and_not_counted(pipeline: Pipeline) -> None:
    delivery = view(start_run(pipeline))

    receipt = stage(delivery, numbered(range(5), "new"))

    assert receipt.inserted == 5
    assert seen(pipeline) == {}
    assert DatabaseCatalog().count(delivery) == 0


def test_every_call_twice_changes_nothing(pipeline: Pipeline) -> None:
    publish(pipeline, numbered(range(10), "old"))
    run = start_run(pipeline)
    delivery = view(run)

    receipts = [stage(delivery, numbered(range(5, 15), "new")) for _ in range(2)]
    commits = [DatabaseCatalog().commit(delivery) for _ in range(2)]
    stage(delivery, numbered(range(5, 15), "new"))
    DatabaseCatalog().abort(delivery)

    assert receipts[0] == receipts[1]
    assert commits[0] == commits[1] == DatabaseCatalog().commit(delivery)
    assert outcome(commits[0]) == (5, 5, 0)
    assert seen(pipeline) == {i: "old" if i < 5 else "new" for i in range(15)}
    assert DatabaseCatalog().count(delivery) == 10
    assert not CatalogPublication.objects.filter(state="open").exists()


def test_a_key_that_comes_twice_in_one_publication_is_shown_once(pipeline: Pipeline) -> None:
    publish(pipeline, numbered(range(3), "old"))

    receipt = publish(pipeline, [*numbered(range(2, 5), "first"), *numbered(range(2, 5), "second")])

    assert outcome(receipt) == (2, 1, 3)
    assert seen(pipeline) == {0: "old", 1: "old", 2: "first", 3: "first", 4: "first"}


@pytest.mark.parametrize("mode", [WriteMode.MERGE, WriteMode.REPLACE])
def test_an_older_run_overwrites_no_row_of_a_newer_one(pipeline: Pipeline, mode: WriteMode) -> None:
    publish(pipeline, numbered(range(4), "first"))
    older, newer = start_run(pipeline), start_run(pipeline)
    publish(pipeline, numbered(range(2, 6), "newer"), run=newer)

    receipt = publish(pipeline, numbered(range(1, 8), "older"), run=older, mode=mode)

    kept = {0: "first"} if mode == WriteMode.MERGE else {}
    assert seen(pipeline) == kept | {1: "older"} | dict.fromkeys(range(2, 6), "newer") | {6: "older", 7: "older"}
    assert receipt.unchanged == 4
    assert DatabaseCatalog().count(view(older)) == receipt.visible == 3


@pytest.mark.parametrize("mode", list(WriteMode))
def test_an_older_run_after_a_newer_full_refresh_shows_nothing(pipeline: Pipeline, mode: WriteMode) -> None:
    older, newer = start_run(pipeline), start_run(pipeline)
    publish(pipeline, numbered(range(4), "newer"), run=newer, mode=WriteMode.REPLACE)

    receipt = publish(pipeline, numbered(range(2, 9), "older"), run=older, mode=mode)

    assert outcome(receipt) == (0, 0, 7)
    assert seen(pipeline) == dict.fromkeys(range(4), "newer")
    assert DatabaseCatalog().count(view(older)) == receipt.visible == 0


def test_a_second_run_waits_until_the_first_is_through(pipeline: Pipeline) -> None:
    first, second = view(start_run(pipeline)), view(start_run(pipeline))
    stage(first, numbered(range(3), "first"))

    with pytest.raises(SinkUnavailable) as refusal:
        stage(second, numbered(range(3), "second"))
    DatabaseCatalog().commit(first)
    stage(second, numbered(range(3), "second"))
    DatabaseCatalog().commit(second)

    assert (refusal.value.code, refusal.value.retry_after_s) == ("sink.busy", 1.0)
    assert seen(pipeline) == dict.fromkeys(range(3), "second")


def test_a_run_reopened_after_a_partial_publication_adds_the_missing_part(pipeline: Pipeline) -> None:
    publish(pipeline, numbered(range(10), "old"))
    delivery = view(start_run(pipeline), mode=WriteMode.REPLACE)
    stage(delivery, numbered(range(3), "new"), lane=0)
    DatabaseCatalog().commit(delivery)

    stage(delivery, numbered(range(3), "new"), lane=0)
    stage(delivery, numbered(range(3, 7), "new"), lane=1)
    receipt = DatabaseCatalog().commit(delivery)

    assert outcome(receipt) == (7, 0, 0)
    assert seen(pipeline) == dict.fromkeys(range(7), "new")
    assert DatabaseCatalog().count(delivery) == 7


def test_a_part_with_other_rows_than_recorded_is_refused(pipeline: Pipeline) -> None:
    part, _ = clean_part(numbered(range(5), "new"))
    _, open_other = clean_part(numbered(range(4), "new"))

    with pytest.raises(StoreCorrupt):
        DatabaseCatalog().stage(part, view(start_run(pipeline)), open_part=open_other)


def test_a_newer_equal_or_earlier_row_keeps_its_place() -> None:
    matches = [
        KeyMatch(1, None, None, None, None),
        KeyMatch(2, 20, 1, 5, is_equal=False),
        KeyMatch(3, 30, 1, 5, is_equal=True),
        KeyMatch(4, 40, 1, 9, is_equal=False),
        KeyMatch(5, 41, 3, 7, is_equal=False),
        KeyMatch(6, 60, 1, 5, is_equal=False),
        KeyMatch(6, 61, 2, 5, is_equal=False),
    ]

    decision = decide(matches, run_id=7, number=3, keeps_equal=True)

    assert decision.dropped == {3, 4, 5}
    assert decision.retired == {20, 60, 61}
    assert (decision.inserted, decision.updated) == (1, 2)
