"""Files and pages through contract and S3 gateway into a real Druid, counted by its Broker to the last row."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest

from ingestion.models import Delivery, Pipeline, Run, RunState
from ingestion.ports.sink import PollingSink
from ingestion.runs.deliver import deliveries
from ingestion.runs.operate import retry
from ingestion.runs.read.progress import is_balanced
from ingestion.runs.record.lake import open_lake
from ingestion.runs.start import probing
from ingestion.runs.start.pipelines import druid_destination
from sinks.druid.config import DruidConfig
from sinks.druid.sink import DruidSink
from tests.druid_server import Druid
from tests.runs.driver import Driver
from tests.servers import wait_until
from tests.worker.material import upload

pytestmark = [pytest.mark.druid, pytest.mark.timeout(300), pytest.mark.usefixtures("bucket", "deliver_into")]

Finish = Callable[..., Run]
CONTRACT: dict[str, Any] = {
    "name": "measurements",
    "columns": [
        {"name": "id", "type": "integer", "nullable": False},
        {"name": "formula", "type": "string"},
        {"name": "energy", "type": "number"},
        {"name": "is_stable", "type": "boolean"},
        {"name": "at", "type": "datetime"},
        {"name": "sites", "type": "array"},
    ],
    "time": "at",
}


def contract(name: str, **changes: Any) -> dict[str, Any]:
    return {**CONTRACT, "name": name, **changes}


def rows(first: int, count: int, *, day: Callable[[int], int] = lambda number: number % 20 + 1, **values: Any) -> bytes:
    """Return JSON Lines of so many records, with null, empty and non-ASCII values among them."""
    records = [
        {
            "id": number,
            "formula": ("Si", "", None, "Größe α")[number % 4],
            "energy": None if number % 5 == 0 else -number / 8,
            "is_stable": (True, False, None)[number % 3],
            "at": f"2026-03-{day(number):02d}T12:30:15.250Z",
            "sites": None if number % 7 == 0 else [number, {"x": "é"}],
            **values,
        }
        for number in range(first, first + count)
    ]
    return "\n".join(json.dumps(record) for record in records).encode()


def start(content: bytes, name: str, *, mode: str | None = None, **changes: Any) -> Run:
    run = upload(content, name=f"{name}.jsonl", contract=contract(name, **changes), datasource_name=name)
    if mode is not None:
        Run.objects.filter(pk=run.pk).update(mode=mode)
    return run


def of_druid(run: Run) -> Delivery:
    return Delivery.objects.get(run=run, destination__name="druid")


def ids(druid: Druid, datasource: str) -> list[int]:
    return [int(row["id"]) for row in druid.query(f'SELECT "id" FROM "{datasource}" GROUP BY 1 ORDER BY 1')]  # noqa: S608


@contextmanager
def serving(server: Any) -> Iterator[None]:
    """Have the server answer in a thread within the block."""
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@pytest.mark.django_db(transaction=True)
def test_a_check_of_a_druid_that_runs_is_good_in_every_layer(deliver_into: Druid) -> None:
    report = probing.check_destination(druid_destination() or pytest.fail("no destination"))

    assert report.ok, report
    assert [finding.layer for finding in report.findings][-1] == "input"
    assert isinstance(DruidSink(DruidConfig(url=deliver_into.overlord_url)), PollingSink)


def test_a_csv_goes_by_the_bucket_into_druid_and_every_accepted_row_is_counted(
    finish: Finish, deliver_into: Druid
) -> None:
    lines = [
        f"{n},Si{n},{'much' if n % 100 == 0 else n / 7},2026-03-{n % 28 + 1:02d}T00:00:00Z" for n in range(1, 1001)
    ]
    content = ("id,formula,energy,at\n" + "\n".join(lines)).encode()
    given = contract("csv_rows", columns=[c for c in CONTRACT["columns"] if c["name"] not in ("is_stable", "sites")])

    run = finish(upload(content, name="rows.csv", contract=given))

    delivery = of_druid(run)
    assert (run.state, run.code) == (RunState.SUCCEEDED, ""), (run.message, delivery.message)
    assert (run.accepted, run.rejected, is_balanced(run)) == (990, 10, True)
    assert deliver_into.count("csv_rows") == 990
    assert (delivery.state, delivery.inserted, delivery.counted, delivery.refs["way"]) == (
        "verified", 990, 990, "presigned",
    )  # fmt: skip
    assert list(open_lake().list("staged/")) == []


def test_values_of_every_type_are_what_was_sent(finish: Finish, deliver_into: Druid) -> None:
    run = finish(start(rows(1, 40), "typed"))

    assert run.state == RunState.SUCCEEDED, (run.message, of_druid(run).message)
    (row,) = deliver_into.query('SELECT * FROM "typed" WHERE "id" = 11')
    assert row["__time"] == "2026-03-12T12:30:15.250Z"
    assert (row["formula"], row["energy"], row["is_stable"], row["_run"]) == ("Größe α", -1.375, None, run.pk)
    assert json.loads(row["sites"]) == [11, {"x": "é"}]
    (nested,) = deliver_into.query('SELECT JSON_VALUE("sites", \'$[1].x\') AS x FROM "typed" WHERE "id" = 11')
    assert nested["x"] == "é"
    (nulls,) = deliver_into.query(
        'SELECT COUNT(*) FILTER (WHERE "formula" IS NULL) AS f, COUNT(*) FILTER (WHERE "energy" IS NULL) AS e, '
        'COUNT(*) FILTER (WHERE "sites" IS NULL) AS s, COUNT(*) FILTER (WHERE "formula" = \'\') AS b FROM "typed"'
    )
    assert (nulls["f"], nulls["e"], nulls["s"]) == (10, 8, 5)
    # An empty text is a value of its own.
    assert nulls["b"] == 10


def test_pages_of_an_optimade_provider_arrive_with_their_nested_fields(
    finish: Finish, deliver_into: Druid, driver: Driver
) -> None:
    from ingestion.models import Source
    from ingestion.runs.start.creation import create_run
    from ingestion.runs.start.pipelines import default_destinations
    from sample.provider import serve

    with serve(request_delay_s=0.0) as server, serving(server):
        url = f"{server.address}/optimade"
        source = Source.objects.create(name="pages", kind="optimade", config={"base_url": url, "page_limit": 25})
        pipeline = Pipeline.objects.create(name="structures", source=source, stream="structures")
        pipeline.destinations.set(default_destinations())
        run, _ = create_run(pipeline, trigger=Run.Trigger.API)
        finish(run)

    assert (run.state, run.code) == (RunState.SUCCEEDED, ""), (run.message, of_druid(run).message)
    assert run.accepted > 0
    assert deliver_into.count("structures") == run.accepted == of_druid(run).counted
    (row,) = deliver_into.query(
        'SELECT COUNT(*) AS n FROM "structures" WHERE JSON_VALUE("elements", \'$[0]\') IS NOT NULL'
    )
    assert row["n"] > 0


def test_a_full_refresh_twice_gives_the_same_rows(finish: Finish, deliver_into: Druid) -> None:
    finish(start(rows(0, 300), "refreshed"))

    second = finish(start(rows(100, 200), "refreshed"))

    assert second.state == RunState.SUCCEEDED, of_druid(second).message
    assert ids(deliver_into, "refreshed") == list(range(100, 300))
    assert deliver_into.count("refreshed") == 200
    assert deliver_into.query('SELECT DISTINCT "_run" AS r FROM "refreshed"') == [{"r": second.pk}]


def test_a_smaller_refresh_of_other_days_leaves_nothing_of_the_days_before(finish: Finish, deliver_into: Druid) -> None:
    finish(start(rows(0, 100, day=lambda n: n % 5 + 1), "moved"))

    finish(start(rows(0, 30, day=lambda n: n % 3 + 20), "moved"))

    (span,) = deliver_into.query('SELECT COUNT(*) AS n, MIN(__time) AS a FROM "moved"')
    assert (span["n"], span["a"]) == (30, "2026-03-20T12:30:15.250Z")


def test_three_incremental_runs_with_overlapping_times_add_up(finish: Finish, deliver_into: Druid) -> None:
    runs = [
        finish(start(rows(first, 120), "added", mode=Pipeline.Mode.INCREMENTAL), copies=2) for first in (0, 120, 240)
    ]

    assert [run.state for run in runs] == [RunState.SUCCEEDED] * 3, [of_druid(run).message for run in runs]
    assert deliver_into.count("added") == 360
    assert ids(deliver_into, "added") == list(range(360))
    assert {of_druid(run).refs["append"] for run in runs[1:]} == {True}


def test_a_merge_that_touches_old_chunks_leaves_every_other_row(finish: Finish, deliver_into: Druid) -> None:
    first = finish(start(rows(0, 200), "merged", key=["id"]))
    moved = rows(10, 5, day=lambda _: 28, formula="new") + b"\n" + rows(500, 3, day=lambda _: 2)

    second = finish(start(moved + b"\n" + rows(50, 10), "merged", key=["id"]))

    delivery = of_druid(second)
    assert second.state == RunState.SUCCEEDED, delivery.message
    assert (delivery.inserted, delivery.updated, delivery.unchanged) == (3, 5, 10)
    assert deliver_into.count("merged") == 203
    assert ids(deliver_into, "merged") == [*range(200), 500, 501, 502]
    found = deliver_into.query('SELECT "formula" AS f, "_run" AS r FROM "merged" WHERE "id" BETWEEN 10 AND 14')
    assert found == [{"f": "new", "r": second.pk}] * 5
    (kept,) = deliver_into.query(f'SELECT COUNT(*) AS n FROM "merged" WHERE "_run" = {first.pk}')  # noqa: S608
    assert kept["n"] == 195


def test_a_roll_back_shows_the_earlier_rows_again(finish: Finish, deliver_into: Druid) -> None:
    first = finish(start(rows(0, 50), "rolled"))
    finish(start(rows(50, 20), "rolled"))

    again = finish(retry.roll_back(first.pk))

    assert again.state == RunState.SUCCEEDED, of_druid(again).message
    assert ids(deliver_into, "rolled") == list(range(50))
    assert deliver_into.query('SELECT DISTINCT "_run" AS r FROM "rolled"') == [{"r": again.pk}]


@pytest.mark.parametrize(("where", "stage"), [("object", "ingestion"), ("clean", "staging")])
def test_a_row_that_is_lost_on_the_way_is_named_with_its_stage(
    finish: Finish, deliver_into: Druid, monkeypatch: pytest.MonkeyPatch, where: str, stage: str
) -> None:
    """A hook takes one row out: of what Druid reads, or of what is made of the clean part."""
    from sinks.druid import rows as druid_rows

    as_json = druid_rows.frame_as_json

    def one_less(frame: Any, columns: Any) -> bytes:
        return as_json(frame.tail(-1), columns)

    stats = druid_rows.read_stats

    def one_less_known(lake: Any, part: Any, *, time_column: str | None) -> Any:
        from dataclasses import replace

        found = stats(lake, part, time_column=time_column)
        return replace(found, rows=found.rows - 1)

    if where == "object":
        monkeypatch.setattr(druid_rows, "frame_as_json", one_less)
    else:
        monkeypatch.setattr(druid_rows, "read_stats", one_less_known)

    run = finish(start(rows(0, 100), f"lost_{where}"))

    delivery = of_druid(run)
    assert run.state == RunState.PARTIAL
    if where == "object":
        assert delivery.code == "sink.rows_lost"
        assert "1 are short after the stage ingestion" in delivery.message or "1 " in delivery.message
    else:
        assert delivery.code in ("store.corrupt", "sink.count_mismatch")
    assert stage in delivery.message or delivery.code == "store.corrupt"


def test_a_delivery_that_lost_a_row_is_whole_after_a_retry(
    finish: Finish, deliver_into: Druid, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sinks.druid import rows as druid_rows

    as_json = druid_rows.frame_as_json
    with monkeypatch.context() as patch:
        patch.setattr(druid_rows, "frame_as_json", lambda frame, columns: as_json(frame.tail(-1), columns))
        run = finish(start(rows(0, 100), "mended", mode=Pipeline.Mode.INCREMENTAL))
    wait_until(lambda: deliver_into.count("mended") == 99, what="the rows of the first task")
    for stored in list(open_lake().list("staged/")):
        open_lake().delete(stored.key)

    retry.retry_run(run.pk)
    finish(run)

    assert run.state == RunState.SUCCEEDED, of_druid(run).message
    assert ids(deliver_into, "mended") == list(range(100))
    assert deliver_into.count("mended") == 100
    assert deliveries.plan_delivery(run, of_druid(run).destination).pk == of_druid(run).pk
