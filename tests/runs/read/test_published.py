"""The published state of a pipeline: what belongs to it, read as rows, files and by queries."""

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.db import connection
from django.utils import timezone

from ingestion.models import Delivery, Destination, Part, Pipeline, Run, RunState
from ingestion.ports.errors import ConfigError, Refused, Retryable
from ingestion.ports.publication import WriteMode
from ingestion.runs.operate import retry
from ingestion.runs.read import exports, queries
from ingestion.runs.read.current_rows import replaced_rows
from ingestion.runs.read.exports import Published, rows_of_pipeline, rows_of_run
from ingestion.runs.read.queries import query_published
from ingestion.runs.record.lake import open_lake
from ingestion.runs.record.views import (
    PublishedManifests,
    delivery_view,
    latest_publication,
    published_runs,
    published_state,
)
from ingestion.runs.start import contracts
from ingestion.runs.start.creation import create_run
from tests.fakes import plugins
from tests.runs.conftest import CONTRACT
from tests.runs.driver import Driver

MakePipeline = Callable[..., Pipeline]
NOTHING = {"lanes": 0}


class Story:
    """A pipeline whose runs are told what they read."""

    def __init__(self, pipeline: Pipeline, driver: Driver) -> None:
        self.pipeline, self.driver = pipeline, driver

    def run(self, **config: Any) -> Run:
        """Return a run that read so much, after its end."""
        self.pipeline.source.config = config
        self.pipeline.source.save(update_fields=["config"])
        run, _ = create_run(self.pipeline, trigger=Run.Trigger.API)
        return self.end(run)

    def end(self, run: Run) -> Run:
        """Return the run after its end."""
        self.driver.drain()
        run.refresh_from_db()
        assert run.is_terminal, (run.state, run.message)
        return run

    def state(self, **chosen: Any) -> list[tuple[int, int]]:
        """Return run and id of every row of the published state."""
        return pairs(rows_of_pipeline(self.pipeline, with_lineage=True, **chosen))


def pairs(published: Published, **chosen: Any) -> list[tuple[int, int]]:
    """Return run and id of the rows, in order."""
    rows = exports.page(published, after=chosen.get("after", 0), limit=chosen.get("limit", 10_000))
    return [(row["_run"], row["id"]) for row in rows]


@pytest.fixture
def merging(driver: Driver, make_pipeline: MakePipeline) -> Story:
    """A pipeline that merges by key."""
    return Story(make_pipeline(mode=Pipeline.Mode.INCREMENTAL), driver)


@pytest.fixture
def replacing(driver: Driver, make_pipeline: MakePipeline) -> Story:
    """A pipeline whose every run replaces what was."""
    return Story(make_pipeline(), driver)


@pytest.fixture
def adding(driver: Driver, make_pipeline: MakePipeline) -> Story:
    """A pipeline without a key, whose runs add up."""
    contract = contracts.save_contract({**CONTRACT, "name": "keyless", "key": []})
    return Story(make_pipeline(mode=Pipeline.Mode.INCREMENTAL, contract=contract), driver)


# --- which runs


def test_a_full_refresh_is_the_state_alone(replacing: Story) -> None:
    replacing.run(pages=2)
    second = replacing.run(pages=1)

    assert [run.pk for run in published_runs(replacing.pipeline)] == [second.pk]
    assert replacing.state() == [(second.pk, number) for number in range(4)]


def test_runs_that_add_are_the_state_together(adding: Story) -> None:
    first, second = adding.run(pages=1), adding.run(pages=1)

    assert [manifest.mode for manifest in published_state(adding.pipeline)] == [WriteMode.APPEND] * 2
    assert adding.state() == [(run.pk, number) for run in (first, second) for number in range(4)]


def test_of_each_key_the_latest_run_gives_the_row(merging: Story) -> None:
    first = merging.run(pages=3)
    second = merging.run(pages=1)
    third = merging.run(pages=1, per_page=2)

    assert merging.state() == [
        *((first.pk, number) for number in range(4, 12)),
        *((second.pk, number) for number in (2, 3)),
        *((third.pk, number) for number in (0, 1)),
    ]


def test_a_roll_back_is_a_publication_like_any_other(merging: Story) -> None:
    first = merging.run(pages=2)
    second = merging.run(pages=1)
    again = merging.end(retry.roll_back(first.pk))

    assert [run.pk for run in published_runs(merging.pipeline)] == [first.pk, second.pk, again.pk]
    # The rows are those that the first run read, and say so.
    assert merging.state() == [(first.pk, number) for number in range(8)]


@pytest.mark.both
def test_a_run_that_did_not_publish_is_no_part_of_it(merging: Story) -> None:
    first = merging.run(pages=1)
    plugins.TROUBLE["fetch.rejected"] = 1
    failed = merging.run(pages=3)

    assert failed.state == RunState.FAILED
    assert merging.state() == [(first.pk, number) for number in range(4)]


def test_a_partial_run_that_is_retried_goes_on_being_seen(merging: Story) -> None:
    plugins.TROUBLE["commit.rejected"] = 1
    run = merging.run(pages=1)
    assert run.state == RunState.PARTIAL

    retry.retry_run(run.pk)

    run.refresh_from_db()
    assert run.state == RunState.DELIVERING
    assert merging.state() == [(run.pk, number) for number in range(4)]
    assert pairs(rows_of_run(run, with_lineage=True)) == merging.state()


@pytest.mark.both
def test_a_publication_is_the_same_state_for_ever(merging: Story) -> None:
    first = merging.run(pages=2)
    before = merging.state()
    late, _ = create_run(merging.pipeline, trigger=Run.Trigger.API)
    merging.driver.drain()
    second = merging.run(pages=1)
    # As where a pipeline runs more than once at a time: created before, published after.
    Run.objects.filter(pk=late.pk).update(published_at=timezone.now())

    assert merging.state(publication=first.pk) == before
    assert {run for run, _ in merging.state(publication=second.pk)} == {first.pk, second.pk}
    assert latest_publication(merging.pipeline) == late
    assert rows_of_pipeline(merging.pipeline).publication == late.pk


@pytest.mark.both
def test_a_publication_at_a_full_second_belongs_to_its_own_state(merging: Story) -> None:
    run = merging.run(pages=1)
    with connection.cursor() as cursor:
        # As the database writes its own clock, with milliseconds though they are none.
        cursor.execute("UPDATE ingestion_run SET published_at = '2026-01-02 03:04:05.000' WHERE id = %s", [run.pk])

    assert merging.state() == [(run.pk, number) for number in range(4)]


def test_what_was_not_published_cannot_be_read(merging: Story, make_pipeline: MakePipeline) -> None:
    other = Story(make_pipeline("other"), merging.driver).run(pages=1)
    waiting, _ = create_run(merging.pipeline, trigger=Run.Trigger.API)

    for code, read in (
        ("pipeline.not_published", lambda: rows_of_pipeline(merging.pipeline)),
        ("pipeline.not_published", lambda: query_published(merging.pipeline, "SELECT 1")),
        ("pipeline.unknown_publication", lambda: rows_of_pipeline(merging.pipeline, publication=other.pk)),
        ("run.not_published", lambda: rows_of_run(waiting)),
    ):
        with pytest.raises((Refused, ConfigError)) as caught:
            read()
        assert caught.value.code == code


def test_what_a_destination_holds_begins_with_its_last_full_refresh(replacing: Story) -> None:
    replacing.run(pages=1)
    Pipeline.objects.filter(pk=replacing.pipeline.pk).update(mode=Pipeline.Mode.FULL_REFRESH)
    base = replacing.run(pages=1)
    Pipeline.objects.filter(pk=replacing.pipeline.pk).update(mode=Pipeline.Mode.INCREMENTAL)
    replacing.pipeline.refresh_from_db()
    added, last = replacing.run(pages=1), replacing.run(pages=1)

    delivery = Delivery.objects.get(run=last)
    held = PublishedManifests().delivered(delivery_view(delivery, last))

    assert [manifest.run_id for manifest in held] == [base.pk, added.pk]


# --- which rows


def test_key_hashes_of_an_earlier_version_are_made_anew_once(merging: Story) -> None:
    merging.run(pages=2)
    second = merging.run(pages=1)
    parts = Part.objects.filter(zone=Part.Zone.CLEAN)
    made = {key: open_lake().read(key) for key in parts.values_list("hashes_key", flat=True)}
    for key in made:
        open_lake().delete(key)
        parts.filter(hashes_key=key).update(hashes_key=key.replace(".keys2", ".keys"))

    found = replaced_rows(published_state(merging.pipeline))

    assert [positions.tolist() for positions in found.values()] == [[0, 1, 2, 3]]
    assert {run for run, number in merging.state() if number < 4} == {second.pk}
    assert {key: open_lake().read(key) for key in parts.values_list("hashes_key", flat=True)} == made


def test_a_key_whose_type_changed_is_compared_as_text(merging: Story) -> None:
    first = merging.run(pages=2)
    body = {**CONTRACT, "columns": [{"name": "id", "type": "string"}, *CONTRACT["columns"][1:]]}  # type: ignore[misc]
    merging.pipeline.contract = contracts.save_contract(body)
    merging.pipeline.save(update_fields=["contract"])
    second = merging.run(pages=1)
    # As an earlier version would have merged it; now a key of another type is a full refresh.
    Run.objects.filter(pk=second.pk).update(mode=Pipeline.Mode.INCREMENTAL)

    assert merging.state() == [
        *((first.pk, str(number)) for number in range(4, 8)),
        *((second.pk, str(number)) for number in range(4)),
    ]
    answer = query_published(merging.pipeline, "SELECT _run, id FROM rows ORDER BY _run, id")
    assert [tuple(row) for row in answer.rows] == merging.state()


def day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


def test_event_times_choose_rows(merging: Story) -> None:
    first = merging.run(pages=3)  # page n has the version of the day n + 1
    second = merging.run(pages=2, per_page=1)

    assert merging.state(since=day(2)) == [*((first.pk, number) for number in range(4, 12)), (second.pk, 1)]
    assert merging.state(since=day(2), until=day(3)) == [
        *((first.pk, number) for number in range(4, 8)),
        (second.pk, 1),
    ]
    assert rows_of_pipeline(merging.pipeline, until=day(1)).rows.total == 0


def test_without_a_time_column_the_time_of_the_run_counts(driver: Driver, make_pipeline: MakePipeline) -> None:
    contract = contracts.save_contract({"name": "timeless", "columns": CONTRACT["columns"]})
    story = Story(make_pipeline(mode=Pipeline.Mode.INCREMENTAL, contract=contract), driver)
    first, second = story.run(pages=1), story.run(pages=1)

    assert {run for run, _ in story.state(since=second.created_at)} == {second.pk}
    assert {run for run, _ in story.state(until=second.created_at)} == {first.pk}


def test_columns_are_chosen_in_their_order(replacing: Story) -> None:
    run = replacing.run(pages=1, per_page=1)

    assert list(rows_of_run(run).rows.kinds) == ["id", "name", "version"]
    assert list(rows_of_run(run, columns=["name", "id", "name"]).rows.kinds) == ["name", "id"]
    assert list(rows_of_run(run, columns=["name", "_row"]).rows.kinds) == ["name", "_row"]
    assert list(rows_of_run(run, columns=["name"], with_lineage=True).rows.kinds) == [
        "name", "_run", "_part", "_row", "_page",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no column 'nope'.*id, name, version"):
        rows_of_run(run, columns=["nope"])


def test_a_run_without_rows_has_the_columns_of_its_contract(replacing: Story, tmp_path: Path) -> None:
    Pipeline.objects.update(allow_empty=True)
    run = replacing.run(**NOTHING)

    count = exports.export_accepted(run, tmp_path / "rows.csv")

    assert (count, (tmp_path / "rows.csv").read_bytes()) == (0, b"id,name,version\r\n")
    assert query_published(replacing.pipeline, "SELECT max(id) AS id FROM rows").types == ["BIGINT"]


def test_rows_come_in_the_order_of_lane_link_and_row_and_go_on_anywhere(replacing: Story) -> None:
    run = replacing.run(lanes=3, pages=2, per_page=5)
    whole = pairs(rows_of_run(run, with_lineage=True))

    assert whole == [(run.pk, number) for number in range(30)]
    for after in (0, 1, 9, 10, 11, 29, 30, 40):
        assert pairs(rows_of_run(run, with_lineage=True), after=after, limit=7) == whole[after : after + 7]


# --- files and queries


@pytest.mark.parametrize("extension", ["csv", "jsonl", "ndjson", "parquet", "xlsx"])
def test_one_file_of_each_format_has_the_rows(replacing: Story, tmp_path: Path, extension: str) -> None:
    run = replacing.run(pages=2)
    path = tmp_path / f"rows.{extension}"

    count = exports.export_accepted(run, path, fields=["name", "not there"])

    assert count == 8
    assert [name.name for name in tmp_path.iterdir() if name.name.startswith(".")] == []
    if extension == "csv":
        found: Any = list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
        assert found[7] == {"id": "7", "name": "n7"}
    elif extension == "parquet":
        assert pq.read_table(path).to_pylist()[7] == {"id": 7, "name": "n7"}
    elif extension.endswith("l") or extension == "ndjson":
        assert json.loads(path.read_text().splitlines()[7]) == {"id": 7, "name": "n7"}


def test_a_query_sees_the_state_that_exports_read(merging: Story) -> None:
    merging.run(pages=3)
    latest = merging.run(pages=1)

    answer = query_published(merging.pipeline, "SELECT _run, id FROM rows ORDER BY _run, id")

    assert [tuple(row) for row in answer.rows] == merging.state()
    assert (answer.pipeline, answer.publication, answer.truncated) == ("items", latest.pk, False)


def test_few_queries_run_at_once(replacing: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    replacing.run(pages=1)
    monkeypatch.setattr(queries, "PATIENCE_S", 0.01)
    for _ in range(queries.AT_ONCE):
        assert queries._places.acquire(blocking=False)
    try:
        with pytest.raises(Retryable, match="Other queries"):
            query_published(replacing.pipeline, "SELECT 1")
    finally:
        queries._places.release(queries.AT_ONCE)


def test_a_query_reads_copies_where_the_lake_is_a_bucket(
    replacing: Story, monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path
) -> None:
    settings.HEADGATE_DATA_DIR = tmp_path / "data"
    replacing.run(pages=2)
    lake = queries.open_lake()
    monkeypatch.setattr(type(lake), "local_path", lambda _self, _key: None)

    answer = query_published(replacing.pipeline, "SELECT count(*) FROM rows")

    assert answer.rows == [[8]]
    assert len(list((tmp_path / "data" / "scratch" / "parts").iterdir())) == 1


def test_destinations_do_not_matter(replacing: Story) -> None:
    replacing.pipeline.destinations.clear()
    run = replacing.run(pages=1)

    assert not Destination.objects.filter(deliveries__run=run).exists()
    assert len(replacing.state()) == 4
