"""Pages, lists and a tick of the reconciler, with as many runs in the tables as years bring."""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

from benchmarks.places import Place
from benchmarks.table import Row

PIPELINES = 100
DESTINATIONS = 3
MOST_QUERIES = 12
_ROUNDS = 3
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
_OPEN = 1000
"""One run of so many failed, another one is held."""

PAGES = {
    "admin index": "/admin/",
    "admin runs": "/admin/ingestion/run/",
    "admin runs, search": "/admin/ingestion/run/?q=pipeline-7",
    "admin runs, held": "/admin/ingestion/run/?state__exact=held",
    "admin partitions": "/admin/ingestion/partition/",
    "admin deliveries": "/admin/ingestion/delivery/",
    "admin destinations": "/admin/ingestion/destination/",
    "admin pipelines": "/admin/ingestion/pipeline/",
    "stats, 30 days": "/api/v1/stats",
    "stats, a year": "/api/v1/stats?days=366",
    "runs": "/api/v1/runs",
    "runs, held": "/api/v1/runs?state=held",
    "destinations": "/api/v1/destinations",
    "pipelines": "/api/v1/pipelines",
}


def measure_many(*, quick: bool) -> Iterator[Row]:
    """Yield the seconds of every page, list and tick, the number of its queries in the note."""
    run_count = 2_000 if quick else 1_000_000
    with Place() as place:
        url = f"sqlite:///{place.folder / 'headgate.sqlite3'}"
        place.run("manage.py", "migrate", "--verbosity", "0", DATABASE_URL=url)
        place.enter_django(DATABASE_URL=url, BROKER_URL="memory://")
        _fill(run_count)
        for name, ask in _questions():
            seconds, queries = _measure(ask)
            note = f"{queries} queries{'' if queries <= MOST_QUERIES else f', more than {MOST_QUERIES}'}"
            yield Row(f"{name}, {run_count:,} runs", seconds, note=note)


def _questions() -> Iterator[tuple[str, Callable[[], object]]]:
    from django.contrib.auth import get_user_model
    from django.test import Client

    from ingestion.runs.operate.reconcile import reconcile

    client = Client(SERVER_NAME="localhost")
    client.force_login(get_user_model().objects.create_superuser("benchmark", password=None))

    def open_page(address: str) -> None:
        answer: Any = client.get(address)
        assert answer.status_code == 200, (address, answer.status_code, answer.content[:500])  # noqa: PLR2004

    for name, address in PAGES.items():
        yield name, partial(open_page, address)
    yield "a tick of the reconciler", reconcile


def _measure(ask: Callable[[], object]) -> tuple[float, int]:
    """Return the median of the seconds, and how many queries it takes."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as asked:
        ask()
    # Counted at once: the next request empties the log.
    queries, seconds = len(asked), []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), queries


def _fill(run_count: int) -> None:
    """Fill the tables: runs of a year, two partitions and a delivery each; one in a thousand failed or is held."""
    from django.db import connection
    from django.utils import timezone

    from ingestion.models import Delivery, Destination, Partition, Pipeline, Run, Source

    source = Source.objects.create(name="benchmark", kind="files")
    places = [Destination.objects.create(name=f"place-{number}", kind="objects") for number in range(DESTINATIONS)]
    for number in range(PIPELINES):
        pipeline = Pipeline.objects.create(name=f"pipeline-{number}", source=source, stream="rows")
        pipeline.destinations.set(places)
    first_pipeline, first_place = Pipeline.objects.order_by("pk")[0].pk, places[0].pk
    begun_at = timezone.now() - timedelta(days=365)
    step_s = 365 * 86_400 / run_count
    at = f"strftime('%Y-%m-%d %H:%M:%f', julianday('{begun_at:%Y-%m-%d %H:%M:%S}') + i * {step_s} / 86400.0)"
    state = f"CASE i % {_OPEN} WHEN 7 THEN 'held' WHEN 8 THEN 'failed' ELSE 'succeeded' END"
    published_at = f"CASE WHEN i % {_OPEN} IN (7, 8) THEN NULL ELSE {at} END"
    run = {
        "id": "i", "pipeline_id": f"{first_pipeline} + i % {PIPELINES}", "state": state, "created_at": at,
        "started_at": at, "finished_at": at, "published_at": published_at, "fetched": "10", "accepted": "10",
    }  # fmt: skip
    partition = {"run_id": "1 + (i - 1) / 2", "lane": "i % 2", "state": "'done'", "stage": "'validate'"}
    delivery = {
        "run_id": "i", "destination_id": f"{first_place} + i % {DESTINATIONS}", "state": "'verified'",
        "created_at": at, "finished_at": at, "inserted": "10",
    }  # fmt: skip
    with connection.cursor() as cursor:
        for model, count, given in (
            (Run, run_count, run),
            (Partition, 2 * run_count, partition),
            (Delivery, run_count, delivery),
        ):
            values = {**_blank(model), **given}
            columns = ", ".join(f'"{name}"' for name in values)
            cursor.execute(
                f"INSERT INTO {model._meta.db_table} ({columns}) "  # noqa: S608 - our own names
                f"{_NUMBERS.format(count=count)} SELECT {', '.join(values.values())} FROM n"
            )


def _blank(model: Any) -> dict[str, str]:
    """Return SQL for a row without content: what may not be null is empty or nothing."""
    blank = {}
    for field in model._meta.concrete_fields:
        if field.primary_key or field.null:
            continue
        empty = field.get_default()
        if isinstance(empty, dict | list):
            blank[field.column] = f"'{json.dumps(empty)}'"
        else:
            blank[field.column] = f"'{empty}'" if isinstance(empty, str) else str(int(empty or 0))
    return {**blank, **({"mode": "'full_refresh'", "trigger": "'schedule'"} if model.__name__ == "Run" else {})}
