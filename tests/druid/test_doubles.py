"""Every message twice and in any order: the same bytes in the object store, the same counts in Druid and PostgreSQL."""

import random
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import psycopg
import pytest

from ingestion.models import Delivery, Destination, Pipeline, Run, RunState
from ingestion.runs.start import pipelines
from ingestion.toolkit.lake.opening import open_lake
from tests.druid_server import Druid
from tests.runs.driver import Driver
from tests.servers import Postgres
from tests.worker.material import CONTRACT, csv_bytes, upload

pytestmark = [pytest.mark.druid, pytest.mark.timeout(300), pytest.mark.usefixtures("bucket", "deliver_into")]

Finish = Callable[..., Run]
ROWS = 300


@pytest.fixture
def everywhere(postgres: Postgres, settings: Any) -> Callable[[str], tuple[Pipeline, str]]:
    """Return a maker of pipelines that deliver to the bucket, the catalog, Druid and a database of their own."""
    settings.HEADGATE_PARTITION_BYTES = 1500

    def make(name: str) -> tuple[Pipeline, str]:
        url = postgres.create_database(f"doubles_{name}")
        config = {"host": "127.0.0.1", "port": postgres.port, "database": f"doubles_{name}", "user": "postgres"}
        table = Destination.objects.create(
            name=f"table-{name}", kind="postgres", config=config, secrets={"password": "unused"}
        )
        pipeline = pipelines.upload_pipeline(name)
        pipeline.destinations.set([*pipelines.default_destinations(), table])
        return pipeline, url

    return make


def stored(pipeline: str) -> dict[str, str]:
    """Return every object that a pipeline has published, with the hash of its bytes."""
    place = open_lake(Destination.objects.get(name="lake").config["url"])
    return {info.key: sha256(place.read(info.key)).hexdigest() for info in place.list(f"{pipeline}/")}


def count_rows(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table))
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_messages_twice_and_in_any_order_deliver_the_same(
    finish: Finish, driver: Driver, deliver_into: Druid, everywhere: Callable[[str], tuple[Pipeline, str]]
) -> None:
    contents = csv_bytes(ROWS, bad_every=50), csv_bytes(ROWS, first=ROWS // 2, bad_every=50)
    found = {}
    for name, copies in (("once", 1), ("twice", 2)):
        _, url = everywhere(name)
        for number, content in enumerate(contents):
            run = upload(content, name=f"{name}{number}.csv", contract={**CONTRACT, "name": name}, datasource_name=name)
            finish(run, copies=copies)
            before = stored(name)
            if copies > 1:
                driver.replay(random.Random(number))
            assert stored(name) == before
            assert run.state == RunState.SUCCEEDED, list(
                Delivery.objects.filter(run=run).values_list("code", "message")
            )
        counts = Delivery.objects.filter(run__pipeline__name=name).order_by("run", "destination__kind")
        found[name] = (
            len(stored(name)),
            deliver_into.count(name),
            count_rows(url, name),
            list(counts.values_list("destination__kind", "inserted", "updated", "unchanged", "counted")),
        )

    assert found["once"] == found["twice"]
    assert found["twice"][1] == found["twice"][2] == 441
