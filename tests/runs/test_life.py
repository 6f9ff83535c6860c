"""The life of a run, from creation to publication, by the use cases alone."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from ingestion.models import (
    Checkpoint,
    Delivery,
    DeliveryPart,
    Part,
    Partition,
    PartitionState,
    Pipeline,
    Run,
    RunState,
)
from ingestion.runs.deliver import publishing
from ingestion.runs.ingest import fetching
from ingestion.runs.operate import reconcile
from ingestion.runs.read.progress import is_balanced, measure_progress, summarize
from ingestion.runs.record.lake import open_lake
from ingestion.runs.start.creation import create_run
from ingestion.runs.work.attempts import Outcome
from tests.fakes import plugins
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


def start(pipeline: Pipeline, **values: Any) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API, **values)
    return run


def keys(run: Run) -> list[tuple[str, str, int | None]]:
    return list(Part.objects.filter(run=run).values_list("zone", "key", "rows"))


def test_a_run_goes_from_creation_to_publication(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline(config={"lanes": 2, "pages": 3, "per_page": 4}))

    driver.drain()

    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.SUCCEEDED, "")
    assert (run.fetched, run.accepted, run.rejected, run.duplicate, run.filtered) == (24, 24, 0, 0, 0)
    assert is_balanced(run)
    assert summarize(run)["destinations"] == {"memory": 24}
    assert Delivery.objects.get(run=run).counted == 24
    assert open_lake().head(run.manifest_key) is not None
    assert measure_progress(run).stages[0].done == 2


def test_every_page_is_its_own_raw_part_committed_with_the_cursor(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline(config={"pages": 3}))

    driver.drain()

    raw = Part.objects.filter(run=run, zone=Part.Zone.RAW).order_by("seq")
    assert [part.seq for part in raw] == [0, 1, 2]
    assert [part.pages[0]["url"] for part in raw] == ["pages://0/0", "pages://0/1", "pages://0/2"]
    assert plugins.CALLS[:3] == ["page 0/0", "page 0/1", "page 0/2"]


def test_a_run_without_partitions_publishes_nothing_and_succeeds(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline(config={"lanes": 0}, allow_empty=True))

    driver.drain()

    run.refresh_from_db()
    assert (run.state, run.accepted) == (RunState.SUCCEEDED, 0)


def test_a_large_stream_is_cut_into_links_by_bytes(driver: Driver, make_pipeline: MakePipeline, settings: Any) -> None:
    settings.HEADGATE_PARTITION_BYTES = 1
    run = start(make_pipeline(config={"pages": 3}))

    driver.drain()

    run.refresh_from_db()
    assert list(Partition.objects.filter(run=run).values_list("lane", "link", "state")) == [
        (0, 0, "done"),
        (0, 1, "done"),
        (0, 2, "done"),
    ]
    assert (run.state, run.accepted) == (RunState.SUCCEEDED, 12)


def test_chords_carry_a_bounded_number_of_partitions(
    driver: Driver, make_pipeline: MakePipeline, settings: Any
) -> None:
    settings.HEADGATE_CHORD_SIZE = 2
    run = start(make_pipeline(config={"lanes": 5, "pages": 1}))
    driver.step()
    first_wave = [call for call in driver.waiting if call.name == "ingestion.fetch"]

    driver.drain()

    run.refresh_from_db()
    assert len(first_wave) == 2
    assert (run.state, run.accepted) == (RunState.SUCCEEDED, 20)


@pytest.mark.parametrize("seed", range(8))
def test_messages_twice_late_and_in_any_order_change_nothing(
    driver: Driver, make_pipeline: MakePipeline, seed: int
) -> None:
    shuffle = random.Random(seed)
    run = start(make_pipeline(config={"lanes": 3, "pages": 2, "repeat_id": 1}))

    driver.drain(copies=2, shuffle=shuffle)
    reconcile.reconcile()
    driver.drain(copies=2, shuffle=shuffle)
    run.refresh_from_db()
    before = (keys(run), summarize(run))
    driver.replay(shuffle)

    run.refresh_from_db()
    assert run.state == RunState.SUCCEEDED
    assert (keys(run), summarize(run)) == before
    assert plugins.CALLS.count("commit " + str(run.pk)) == 1
    assert len([call for call in plugins.CALLS if call.startswith("page")]) == 6


def test_the_books_count_duplicates_within_and_across_partitions(driver: Driver, make_pipeline: MakePipeline) -> None:
    # Each page begins with id 1; lane 0's second record of page 0 has id 1 as well.
    run = start(make_pipeline(config={"lanes": 2, "pages": 2, "per_page": 4, "repeat_id": 1}))

    driver.drain()

    run.refresh_from_db()
    assert run.state == RunState.SUCCEEDED
    assert (run.fetched, run.accepted, run.duplicate) == (16, 12, 4)
    assert is_balanced(run)
    assert sum(Part.objects.filter(run=run, zone=Part.Zone.CLEAN).values_list("rows", flat=True)) == 12
    assert plugins.MemorySink.committed[run.pk] == 12


def test_a_source_that_is_away_is_tried_again_and_nothing_is_fetched_twice(
    driver: Driver, make_pipeline: MakePipeline, settings: Any
) -> None:
    run = start(make_pipeline(config={"pages": 3}))
    driver.step()
    plugins.TROUBLE["fetch.unavailable"] = 1

    driver.step()
    Partition.objects.update(not_before=None)
    driver.drain()

    run.refresh_from_db()
    assert run.state == RunState.SUCCEEDED
    assert plugins.CALLS.count("page 0/0") == 1
    assert run.events.filter(kind="attempt.failed").count() == 1


def test_a_source_that_stays_away_fails_the_run_with_its_code(
    driver: Driver, make_pipeline: MakePipeline, settings: Any
) -> None:
    run = start(make_pipeline())
    plugins.TROUBLE["fetch.unavailable"] = 99

    for _ in range(20):
        driver.drain()
        Partition.objects.update(not_before=None, sent_at=None)
        reconcile.reconcile()

    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.FAILED, "source.unavailable")
    assert Partition.objects.get(run=run).attempt == settings.HEADGATE_MAX_ATTEMPTS


def test_outages_with_progress_between_them_fail_no_run(
    driver: Driver, make_pipeline: MakePipeline, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.HEADGATE_MAX_ATTEMPTS = 3
    run = start(make_pipeline(config={"pages": 20}))
    outages = [5, 5, 10, 10, 15, 15, 18, 18]
    monkeypatch.setattr(
        plugins,
        "trouble",
        lambda name: (
            name == "fetch.unavailable" and len(plugins.CALLS) in outages and not outages.remove(len(plugins.CALLS))
        ),
    )

    for _ in range(9):
        driver.drain()
        Partition.objects.update(not_before=None, sent_at=None)
        reconcile.reconcile()

    run.refresh_from_db()
    assert (run.state, run.code, outages) == (RunState.SUCCEEDED, "", [])
    attempts = run.events.filter(kind="attempt.failed").values_list("values__attempt", flat=True)
    assert sorted(attempts) == [1, 1, 1, 1, 2, 2, 2, 2]


def test_a_rate_limit_puts_off_without_using_an_attempt(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline())
    driver.step()
    plugins.TROUBLE["fetch.limited"] = 1

    driver.step()

    partition = Partition.objects.get(run=run)
    assert (partition.state, partition.attempt) == (PartitionState.PENDING, 0)
    assert partition.not_before is not None


def test_a_defect_is_tried_once_more_and_then_fails_with_an_incident(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    run = start(make_pipeline())
    plugins.TROUBLE["fetch.defect"] = 2

    for _ in range(3):
        driver.drain()
        Partition.objects.update(not_before=None, sent_at=None)
        reconcile.reconcile()

    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.FAILED, "worker.errored")
    assert "incident" in run.message
    assert "ZeroDivisionError" in run.message


def test_work_that_always_kills_its_worker_ends_as_lost(
    driver: Driver, make_pipeline: MakePipeline, settings: Any
) -> None:
    run = start(make_pipeline())
    driver.step()
    Partition.objects.filter(run=run).update(attempt=settings.HEADGATE_MAX_ATTEMPTS)

    driver.drain()

    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.FAILED, "worker.lost")


def test_a_partial_run_publishes_what_succeeded_and_leaves_the_checkpoint(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    run = start(make_pipeline(config={"lanes": 2}, allow_partial=True, mode=Pipeline.Mode.INCREMENTAL))
    driver.step()
    plugins.TROUBLE["fetch.rejected"] = 1

    driver.drain()

    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.PARTIAL, "source.rejected")
    assert run.accepted == 12
    assert not Checkpoint.objects.exists()


def test_a_failed_destination_makes_the_run_partial_and_advances_the_checkpoint(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    run = start(make_pipeline(mode=Pipeline.Mode.INCREMENTAL))
    plugins.TROUBLE["commit.rejected"] = 1

    driver.drain()

    run.refresh_from_db()
    assert (run.state, run.code) == (RunState.PARTIAL, "sink.rejected")
    assert Checkpoint.objects.get().cursor == {"version": "2026-01-03T00:00:00Z"}


def test_a_destination_that_shows_fewer_rows_than_it_took_fails_its_delivery(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    run = start(make_pipeline())
    plugins.TROUBLE["count.short"] = 1

    driver.drain()

    delivery = Delivery.objects.get(run=run)
    assert (delivery.state, delivery.code) == ("failed", "sink.count_mismatch")
    assert "1 are missing after the stage loading" in delivery.message


def test_a_destination_that_takes_time_is_looked_at_again_without_waiting(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    run = start(make_pipeline())
    plugins.TROUBLE["commit.later"] = 2

    for _ in range(3):
        driver.drain()
        Delivery.objects.update(not_before=None)
        for delivery in Delivery.objects.exclude(state="verified"):
            driver.publish(driver.history[-1].__class__("ingestion.load", {"delivery_id": delivery.pk}))
    driver.drain()

    run.refresh_from_db()
    delivery = Delivery.objects.get(run=run)
    assert (run.state, delivery.polls, delivery.refs) == (RunState.SUCCEEDED, 2, {"task": "t1"})


def test_an_incremental_run_reads_from_the_last_publication(driver: Driver, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(mode=Pipeline.Mode.INCREMENTAL)
    start(pipeline)
    driver.drain()

    second = start(pipeline)
    driver.drain()

    second.refresh_from_db()
    assert second.since == {"version": "2026-01-03T00:00:00Z"}


def test_a_lost_broker_loses_nothing(driver: Driver, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline(config={"lanes": 2})
    driver.is_broken = True
    run = start(pipeline)
    driver.is_broken = False

    for _ in range(12):
        Run.objects.update(sent_at=None)
        Partition.objects.filter(sent_at__isnull=False).update(sent_at="2020-01-01T00:00:00Z")
        DeliveryPart.objects.update(sent_at=None)
        Delivery.objects.update(sent_at=None)
        reconcile.reconcile()
        sent, driver.waiting = driver.waiting[:1], []
        driver.waiting = sent
        if sent:
            driver.step()
        driver.waiting = []

    run.refresh_from_db()
    assert run.state in (RunState.SUCCEEDED, RunState.RUNNING, RunState.DELIVERING, RunState.LOADING)


def test_a_second_reconcile_finds_nothing_to_mend(driver: Driver, make_pipeline: MakePipeline) -> None:
    start(make_pipeline())
    driver.drain()

    repairs = reconcile.reconcile()

    assert repairs == []


def test_an_owner_that_lost_its_lease_writes_nothing(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline(config={"pages": 2}))
    driver.step()
    partition = Partition.objects.get(run=run)
    pages = fetching.registry.build_connector

    class Stealing(plugins.PagesConnector):
        def fetch(self, *args: Any, **values: Any) -> Any:
            for page in super().fetch(*args, **values):
                Partition.objects.filter(pk=partition.pk).update(fence=99)
                yield page

    fetching.registry.build_connector = lambda source: Stealing(Stealing.Config(pages=2))  # type: ignore[assignment]
    try:
        outcome = fetching.fetch_partition(partition.pk, is_chained=False)
    finally:
        fetching.registry.build_connector = pages

    assert outcome is Outcome.STOPPED
    assert not Part.objects.filter(run=run).exists()
    assert Partition.objects.get(pk=partition.pk).cursor is None


def test_a_manifest_is_written_before_the_run_counts(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(make_pipeline())
    seen: list[bool] = []
    advance = publishing._advance_checkpoint

    def look(published: Run) -> None:
        seen.append(open_lake().head(f"manifests/items/{published.pk}.json") is not None)
        advance(published)

    monkeypatch.setattr(publishing, "_advance_checkpoint", look)
    driver.drain()

    run.refresh_from_db()
    assert seen == [True]
