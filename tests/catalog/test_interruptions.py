"""The rows left where a publication is killed, cancelled, aborted or overtaken, and what readers see meanwhile."""

import threading

import pytest
from django.db import connection

from ingestion.catalog import DatabaseCatalog, batches, collect_garbage, query_records, store
from ingestion.models import CatalogPublication, CatalogRecord, CatalogState, Pipeline, Run, RunState, Source
from ingestion.ports.errors import (
    Cancelled,
    DeadlineReached,
    LeaseLost,
    SinkRejected,
    SinkUnavailable,
)
from ingestion.ports.publication import WriteMode
from tests.catalog.support import clean_part, numbered, outcome, publish, seen, stage, start_run, view

pytestmark = pytest.mark.both


class Killed(BaseException):
    """Stands for the end of the process: nothing of ours may catch it."""


class KillAt:
    """Kills at the n-th failpoint hit; `left` stays above zero where there was none left to kill at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        for module in (batches, store):
            monkeypatch.setattr(module, "failpoint", self.hit)

    def hit(self, _name: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize(
    ("mode", "rival"),
    [(WriteMode.MERGE, False), (WriteMode.REPLACE, False), (WriteMode.REPLACE, True)],
    ids=["merge", "replace", "replace among newer rows"],
)
@pytest.mark.usefixtures("small_batches")
def test_killed_between_any_two_batches_and_repeated_gives_the_same_table(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, mode: WriteMode, rival: bool
) -> None:
    rows = [*numbered(range(20, 35), "old"), *numbered(range(35, 60), "new")]
    kill = KillAt(monkeypatch)
    results = []
    for n in range(1, 100):
        CatalogRecord.objects.all().delete()
        CatalogState.objects.all().delete()
        CatalogPublication.objects.all().delete()
        publish(pipeline, numbered(range(40), "old"))
        run = start_run(pipeline)
        if rival:
            publish(pipeline, numbered(range(30, 45), "newer"))
        delivery = view(run, mode=mode)

        kill.left = n
        receipt = None
        while receipt is None:
            try:
                stage(delivery, rows)
                receipt = DatabaseCatalog().commit(delivery)
            except Killed:
                continue

        assert DatabaseCatalog().count(delivery) == receipt.visible
        results.append((outcome(receipt), seen(pipeline)))
        if kill.left > 0:
            break

    assert len(results) > 6
    assert kill.left > 0, "every point was killed at"
    assert all(result == results[-1] for result in results)


@pytest.mark.usefixtures("small_batches")
def test_an_abort_in_the_middle_of_a_merge_leaves_what_was_there(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(pipeline, numbered(range(40), "old"))
    before = seen(pipeline)
    kill = KillAt(monkeypatch)
    for n in range(1, 100):
        delivery = view(start_run(pipeline))
        stage(delivery, numbered(range(20, 60), "new"))
        kill.left = 3
        with pytest.raises(Killed):
            DatabaseCatalog().commit(delivery)

        kill.left = n
        while True:
            try:
                DatabaseCatalog().abort(delivery)
                break
            except Killed:
                continue

        assert seen(pipeline) == before
        assert CatalogRecord.objects.count() == 40
        if kill.left > 0:
            break
    kill.left = 0
    assert n > 5
    assert outcome(publish(pipeline, numbered(range(20, 60), "new"))) == (20, 20, 0)
    assert collect_garbage(1_000) == 20


def test_nothing_is_published_after_a_cancel(pipeline: Pipeline) -> None:
    publish(pipeline, numbered(range(5), "old"))
    run = start_run(pipeline)
    delivery = view(run)
    stage(delivery, numbered(range(9), "new"))
    Run.objects.filter(pk=run.pk).update(state=RunState.CANCELLED)

    with pytest.raises(Cancelled):
        DatabaseCatalog().commit(delivery)
    with pytest.raises(Cancelled):
        stage(delivery, numbered(range(9, 12), "new"), lane=1)

    assert seen(pipeline) == dict.fromkeys(range(5), "old")


def test_a_cancel_during_the_merge_is_seen_before_the_flip(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(pipeline, numbered(range(5), "old"))
    run = start_run(pipeline)
    delivery = view(run)
    stage(delivery, numbered(range(9), "new"))
    cancel = Run.objects.filter(pk=run.pk).update
    monkeypatch.setattr(store, "failpoint", lambda _name: cancel(state=RunState.CANCELLED))

    with pytest.raises(Cancelled):
        DatabaseCatalog().commit(delivery)
    DatabaseCatalog().abort(delivery)

    assert seen(pipeline) == dict.fromkeys(range(5), "old")
    assert CatalogRecord.objects.filter(retired_by__isnull=False).count() == 0


def test_a_commit_after_an_abort_does_not_replace_everything_by_nothing(pipeline: Pipeline) -> None:
    publish(pipeline, numbered(range(5), "old"))
    delivery = view(start_run(pipeline), mode=WriteMode.REPLACE)
    stage(delivery, numbered(range(2), "new"))
    DatabaseCatalog().abort(delivery)

    with pytest.raises(SinkRejected):
        DatabaseCatalog().commit(delivery)

    assert len(seen(pipeline)) == 5


@pytest.mark.usefixtures("small_batches")
def test_a_loader_that_wakes_up_late_adds_no_row(pipeline: Pipeline) -> None:
    delivery = view(start_run(pipeline))
    rows = numbered(range(35), "new")
    part, open_part = clean_part(rows)
    frozen = [True]

    def wake_up_late() -> None:
        if frozen.pop() if frozen else False:
            stage(delivery, rows)  # another worker takes the part over and finishes it

    with pytest.raises(LeaseLost):
        DatabaseCatalog(beat=wake_up_late).stage(part, delivery, open_part=open_part)
    receipt = DatabaseCatalog().commit(delivery)

    assert outcome(receipt) == (35, 0, 0)
    assert CatalogRecord.objects.count() == 35


def test_a_commit_waits_for_parts_that_are_half_loaded(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = view(start_run(pipeline))
    kill = KillAt(monkeypatch)
    kill.left = 1
    with pytest.raises(Killed):
        stage(delivery, numbered(range(5), "new"))

    with pytest.raises(SinkUnavailable):
        DatabaseCatalog().commit(delivery)


@pytest.mark.usefixtures("small_batches")
def test_work_stops_between_batches_when_it_is_told_to_and_goes_on_later(pipeline: Pipeline) -> None:
    delivery = view(start_run(pipeline))
    stage(delivery, numbered(range(35), "new"))
    beats: list[int] = []

    def beat() -> None:
        beats.append(1)
        raise DeadlineReached

    with pytest.raises(DeadlineReached):
        DatabaseCatalog(beat=beat).commit(delivery)
    receipt = DatabaseCatalog().commit(delivery)

    assert beats == [1]
    assert outcome(receipt) == (35, 0, 0)


@pytest.mark.parametrize("mode", [WriteMode.MERGE, WriteMode.REPLACE])
@pytest.mark.usefixtures("file_database", "small_batches")
def test_readers_during_a_publication_see_the_old_state_or_the_new(mode: WriteMode) -> None:
    source = Source.objects.create(name="lab", kind="files")
    pipeline = Pipeline.objects.create(name="samples", source=source, stream="samples")
    publish(pipeline, numbered(range(100), "v0"))
    states, errors = [], []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                states.append({(row["record"]["id"], row["record"]["v"]) for row in query_records(limit=1_000)})
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for version in range(1, 6):
            publish(pipeline, numbered(range(100), f"v{version}"), mode=mode)
            collect_garbage(1_000)
    finally:
        stop.set()
        reader.join()

    assert not errors
    expected = [{(i, f"v{version}") for i in range(100)} for version in range(6)]
    assert all(state in expected for state in states)
    assert len(states) > 5


@pytest.mark.usefixtures("file_database", "small_batches")
def test_workers_on_the_same_delivery_at_once_publish_it_once() -> None:
    source = Source.objects.create(name="lab", kind="files")
    pipeline = Pipeline.objects.create(name="samples", source=source, stream="samples")
    publish(pipeline, numbered(range(60), "old"))
    delivery = view(start_run(pipeline))
    receipts, others = [], []
    together = threading.Barrier(3, timeout=30)

    def work(lane: int) -> None:
        try:
            together.wait()
            stage(delivery, numbered(range(40 + lane * 20, 60 + lane * 20), "new"), lane=lane)
            together.wait()
            receipts.append(DatabaseCatalog().commit(delivery))
        except BaseException as error:
            others.append(error)
        finally:
            connection.close()

    workers = [threading.Thread(target=work, args=(lane,)) for lane in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert others == []
    assert [outcome(receipt) for receipt in receipts] == [(40, 20, 0)] * 3
    assert seen(pipeline) == {i: "old" if i < 40 else "new" for i in range(100)}
