"""Runs of one pipeline on their way into relational databases: the engine's books against the tables' rows."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingestion.models import Delivery, Destination, Pipeline, Run, RunState
from ingestion.runs.start.creation import create_run
from tests.runs.driver import Driver
from tests.servers import Postgres

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]


def start(pipeline: Pipeline, **values: Any) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API, **values)
    return run


def books(run: Run) -> list[tuple[Any, ...]]:
    rows = Delivery.objects.filter(run=run).order_by("pk")
    return [(row.state, row.inserted, row.updated, row.unchanged, row.rejected, row.counted) for row in rows]


@pytest.mark.postgres
def test_two_databases_show_what_the_books_say_whatever_the_messages_do(
    driver: Driver, make_pipeline: MakePipeline, postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.create_database("relational_way")
    file = tmp_path / "rows.sqlite3"
    server = {"host": "127.0.0.1", "port": postgres.port, "database": "relational_way", "user": "postgres"}
    pipeline = make_pipeline(config={"lanes": 2})
    pipeline.destinations.set(
        [
            Destination.objects.create(name="warehouse", kind="postgres", config=server),
            Destination.objects.create(name="file", kind="sqlite", config={"path": str(file)}),
        ]
    )

    first = start(pipeline)
    driver.drain(copies=2, shuffle=random.Random(3))
    second = start(pipeline)
    driver.drain(copies=2, shuffle=random.Random(4))
    driver.replay(random.Random(5))

    for run in (first, second):
        run.refresh_from_db()
        assert (run.state, run.code) == (RunState.SUCCEEDED, "")
    count = sum(books(first)[0][1:5])
    assert count > 0
    assert books(first) == [("verified", count, 0, 0, 0, count)] * 2
    assert books(second) == [("verified", 0, 0, count, 0, 0)] * 2
    with psycopg.connect(url) as warehouse, closing(sqlite3.connect(file)) as opened:
        query = "SELECT id, name, _run FROM items ORDER BY id"
        rows = warehouse.execute(query).fetchall()
        assert rows == opened.execute(query).fetchall()
    assert len(rows) == count
    assert {row[2] for row in rows} == {first.pk}
