"""A data directory of commit 77ec71b with its runs in flight, finished by this version: nothing lost, nothing doubled."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connections

from ingestion import registry
from ingestion.models import Delivery, DeliveryPart, Destination, Part, Partition, Pipeline, Run
from ingestion.runs.deliver.redelivery import redeliver_everything
from ingestion.runs.operate import garbage, reconcile
from ingestion.runs.operate.retry import retry_run
from ingestion.runs.record.lake import open_lake
from ingestion.runs.start import schedules
from ingestion.runs.work import leases
from ingestion.toolkit.lake.local import LocalLake
from tests.fakes.paged_provider import make_record
from tests.runs.conftest import driver
from tests.runs.driver import Driver
from tests.servers import Valkey
from tests.sinks.objects.support import read_pointed
from tests.upgrade import expected
from tests.upgrade.archive import Outside, serve, unpack
from tests.worker.cluster import Cluster
from tests.worker.conftest import make_cluster, own_valkey

__all__ = ["driver", "make_cluster", "own_valkey"]

KEYLESS = {"druid-replacing"}
FULL_REFRESH = {"rolled-back", "druid-replacing"}
CANCELLED = {"cancelled", "druid-cancelled"}
WITH_A_RULE = {"rule": 3.0, "rule-broken": 3.0}
"""Their tables reject a row whose energy is not below that."""
RETRIED = ("api-failed", "druid-failed", "druid-not-loaded")
"""What had failed there, and has its cause removed."""
ROUNDS_HELD = 3
"""So often it is looked what Druid's running tasks do, before they go on."""
OF_AN_API = {"api-lane": 15, "api-links": 15, "api-growing": 20, "api-failed": 15, "api-waits": 15}


@dataclass(frozen=True)
class House:
    """The unpacked installation, its servers, and how to let its work go on."""

    folder: Path
    outside: Outside
    finish: Callable[[], None]


@pytest.fixture
def outside() -> Iterator[Outside]:
    """The servers that the old installation worked with."""
    with serve() as outside:
        yield outside


@pytest.fixture
def house(  # noqa: PLR0917 - each is one of pytest's
    tmp_path: Path,
    settings: Any,
    driver: Driver,
    outside: Outside,
    own_valkey: Valkey,
    django_db_blocker: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[House]:
    """The installation in this process: messages are collected and carried out one by one."""
    folder = tmp_path / "data"
    unpack(folder, outside)
    settings.HEADGATE_DATA_DIR = folder
    settings.HEADGATE_LAKE_URL = str(folder / "lake")
    settings.HEADGATE_SECRET_KEYS = (folder / "secrets" / "secret_keys").read_text().strip().split(",")
    settings.HEADGATE_REDIS_URL = own_valkey.url(0)
    settings.HEADGATE_RESEND_AFTER_S = 0
    settings.HEADGATE_EGRESS_ALLOW = ["127.0.0.0/8"]
    settings.HEADGATE_EGRESS_PORTS = list(range(1, 65536))
    registry._table.cache_clear()
    # The thread of an earlier test keeps its connection to that test's database, where it finds none of these leases.
    monkeypatch.setattr(leases, "_watcher", leases.Watcher())
    with django_db_blocker.unblock(), use_database(folder / "headgate.sqlite3"):
        call_command("migrate", verbosity=0)
        yield House(folder, outside, lambda: run_out(driver, outside))
    registry._table.cache_clear()


@pytest.fixture
def use_workers(
    make_cluster: Callable[..., Cluster], outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], House]:
    """Return a starter of the installation under a real worker and beat."""
    enter = Cluster.__enter__

    def unpack_and_enter(cluster: Cluster) -> Cluster:
        unpack(cluster.folder, outside)
        return enter(cluster)

    def start() -> House:
        monkeypatch.setattr(Cluster, "__enter__", unpack_and_enter)
        cluster = make_cluster(HEADGATE_LEASE_S="10", HEADGATE_EGRESS_PORTS=",".join(map(str, ports_of(outside))))
        monkeypatch.setattr(django_settings, "HEADGATE_DATA_DIR", cluster.folder)
        cluster.start_worker(beat=True, concurrency=3)

        def finish() -> None:
            # A task of a cancelled run is stopped while it runs; one that had published would have to be named.
            aborts = Delivery.objects.filter(needs_abort=True)
            cluster.wait(lambda: not aborts.exists(), what="the end of what was cancelled", patience_s=150)
            outside.druid.release()
            cluster.wait(lambda: not open_work(), what="the end of all work", patience_s=150)

        return House(cluster.folder, outside, finish)

    return start


def ports_of(outside: Outside) -> list[int]:
    """Return the ports that the installation reaches."""
    urls = [outside.druid.url, *(provider.server.address for provider in outside.providers.values())]
    return [int(url.rpartition(":")[2]) for url in urls]


@contextmanager
def use_database(file: Path) -> Iterator[None]:
    """Point this process at a SQLite file for the length of the block."""
    kept = django_settings.DATABASES, connections.settings
    # With the options of every process of an installation: a transaction that begins deferred, and then writes, is
    # refused at once where another thread (the one that renews leases) has written in between.
    chosen = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file), "OPTIONS": django_settings.SQLITE_OPTIONS}
    connections.close_all()
    _connect_by({"default": chosen}, connections.configure_settings({"default": chosen}))
    try:
        yield
    finally:
        connections.close_all()
        _connect_by(*kept)


def _connect_by(databases: Any, configured: Any) -> None:
    django_settings.DATABASES, connections.settings = databases, configured
    with suppress(AttributeError):
        del connections["default"]


def open_work() -> list[str]:
    """Return what is still to be done."""
    runs = Run.objects.exclude(state__in=("succeeded", "partial", "failed", "cancelled"))
    late = Delivery.objects.filter(is_redelivery=True).exclude(
        state__in=("verified", "failed", "published_not_loaded", "removed")
    )
    removals = Delivery.objects.filter(needs_abort=True)
    return [*map(repr, runs), *map(repr, late), *map(repr, removals)]


def run_out(driver: Driver, outside: Outside) -> None:
    """Let beat tick and workers work until nothing is to be done, with the time of every wait come."""
    for number in range(100):
        if number == ROUNDS_HELD:
            outside.druid.release()
        reconcile.reconcile()
        schedules.create_due_runs()
        driver.drain()
        for model in (Run, Partition, Delivery, DeliveryPart):
            model.objects.filter(not_before__isnull=False).update(not_before=None)
        if not open_work():
            return
        time.sleep(0.01)
    raise AssertionError(f"not finished: {open_work()}")


# --- what is checked


def files_of(pipeline: Pipeline) -> list[bytes]:
    """Return the files that the pipeline's readers see the rows of, in the order of their publication."""
    lake = open_lake()
    found = []
    for run in pipeline.runs.filter(state__in=("succeeded", "partial")).order_by("pk"):
        origin = run.republishes or run
        found += [lake.read(upload.key) for upload in origin.uploads.order_by("pk")]
    return found


def check_runs() -> None:
    """Assert the end state and the control totals of every run."""
    for run in Run.objects.select_related("pipeline", "republishes").order_by("pk"):
        name = run.pipeline.name
        wanted = "cancelled" if name in CANCELLED else "succeeded"
        assert run.state == wanted, f"{name}: {run.state} {run.code} {run.message}"
        assert run.fetched == run.accepted + run.rejected + run.duplicate + run.filtered, name
        totals = tuple(getattr(run, column) for column in expected.COUNTS)
        origin = run.republishes or run
        for upload in origin.uploads.all():
            wanted_totals = expected.totals_of(open_lake().read(upload.key), is_keyed=name not in KEYLESS)
            assert totals == wanted_totals, f"{name}: {totals} instead of {wanted_totals}"


def check_manifests() -> None:
    """Assert that every publication, old and new, is named by a manifest whose parts are there as it says."""
    lake = open_lake()
    for run in Run.objects.filter(state="succeeded").select_related("pipeline"):
        manifest = json.loads(lake.read(run.manifest_key))
        assert sum(part["rows"] for part in manifest["parts"]) == run.accepted, run.pipeline.name
        for part in manifest["parts"]:
            assert sha256(lake.read(part["key"])).hexdigest() == part["sha256"]
    for part in Part.objects.all():
        assert lake.head(part.key) is not None, part.key


def check_destinations(house: House) -> None:
    """Assert, cell by cell, that every destination shows each pipeline's published rows, and each row once."""
    for pipeline in Pipeline.objects.prefetch_related("destinations").exclude(name__in=CANCELLED):
        if pipeline.name in OF_AN_API:
            wanted: list[Any] = [make_record(number)["id"] for number in range(OF_AN_API[pipeline.name])]
        else:
            wanted = expected.published(
                files_of(pipeline),
                is_keyed=pipeline.name not in KEYLESS,
                replaces=pipeline.name in FULL_REFRESH,
            )
        if pipeline.name in WITH_A_RULE:
            wanted = [row for row in wanted if row[2] < WITH_A_RULE[pipeline.name]]
        assert wanted
        for destination in pipeline.destinations.all():
            rows = read_rows(house, destination, pipeline)
            found = sorted(str(row["id"]) if pipeline.name in OF_AN_API else expected.plain(row) for row in rows)
            assert found == wanted, f"{pipeline.name} in {destination.name}"


def read_rows(house: House, destination: Destination, pipeline: Pipeline) -> list[dict[str, Any]]:
    """Return what a reader of the destination finds of the pipeline, by nothing but the destination."""
    if destination.kind == "objects":
        return read_pointed(LocalLake(house.folder / "lake-published"), pipeline=pipeline.name)
    if destination.kind == "catalog":
        return catalog_rows(house, pipeline)
    if destination.kind == "druid":
        name = str(destination.config.get("datasource") or "{pipeline}").replace("{pipeline}", pipeline.name)
        return [{**row, "at": _day(row["at"])} for row in house.outside.druid.rows(name)]
    return table_rows(house, pipeline.name)


def catalog_rows(house: House, pipeline: Pipeline) -> list[dict[str, Any]]:
    """Return the records of the catalog that its state lets readers see."""
    query = (
        "SELECT record FROM ingestion_catalogrecord JOIN ingestion_catalogstate USING (pipeline_id) "
        "WHERE pipeline_id = ? AND publication BETWEEN floor AND current AND current < coalesce(retired_by, current + 1)"
    )
    with closing(sqlite3.connect(house.folder / "headgate.sqlite3")) as opened:
        return [json.loads(row[0]) for row in opened.execute(query, [pipeline.pk])]


def table_rows(house: House, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table of the warehouse; none where there is no such table."""
    with closing(sqlite3.connect(house.folder / "warehouse.sqlite3")) as opened:
        opened.row_factory = sqlite3.Row
        if not opened.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [table]).fetchone():
            return []
        return [dict(row) for row in opened.execute(f'SELECT * FROM "{table}"')]  # noqa: S608


def _day(at: Any) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(int(at) / 1000)) if isinstance(at, int) else str(at)


def check_cancelled(house: House) -> None:
    """Assert that what was cancelled is gone from where nobody had seen it, and named where it had been taken."""
    run = Run.objects.get(pipeline__name="cancelled")
    assert table_rows(house, "cancelled") == []
    assert not (house.folder / "lake-published" / "cancelled" / "latest.json").exists()
    assert "catalog" in run.message
    assert house.outside.druid.rows("druid-cancelled") == []


def check_rejections() -> None:
    """Assert that each row that a table rejects is counted, and lies in quarantine."""
    for name, limit in WITH_A_RULE.items():
        delivery = Delivery.objects.select_related("run__pipeline").get(run__pipeline__name=name)
        rows = expected.published(files_of(delivery.run.pipeline), is_keyed=True, replaces=False)
        bad = sum(row[2] >= limit for row in rows)
        assert bad
        assert (delivery.state, delivery.inserted, delivery.rejected) == ("verified", len(rows) - bad, bad)
        assert sum(part.rows or 0 for part in Part.objects.filter(delivery=delivery)) == bad


def check_sources(outside: Outside) -> None:
    """Assert that no page was fetched again that the old version had stored."""
    requests = outside.providers["provider"].requests
    # Two pulls stood before page 2 and page 1; the schedule's own run reads all three.
    assert dict(requests) == {0: 1, 1: 2, 2: 3}
    assert set(outside.providers["growing"].requests) == {1, 2}


def end_what_had_failed() -> None:
    """Retry what failed, and bring back what was removed."""
    for name in RETRIED:
        retry_run(Run.objects.filter(pipeline__name=name).latest("pk").pk)
    redeliver_everything(Pipeline.objects.get(name="removed"), Destination.objects.get(name="warehouse"))


def check_all(house: House) -> None:
    """Assert everything."""
    check_runs()
    check_manifests()
    check_destinations(house)
    check_cancelled(house)
    check_rejections()
    check_sources(house.outside)
    assert house.outside.druid.count("POST /druid/indexer/v1/task") > 0


def test_the_archive_holds_work_in_every_state(house: House) -> None:
    assert set(Run.objects.values_list("state", flat=True)) == {
        *("pending", "planning", "running", "completing", "delivering", "loading", "publishing"),
        *("succeeded", "partial", "failed", "cancelled"),
    }
    assert set(Partition.objects.values_list("stage", "state")) >= {
        *(("fetch", "pending"), ("fetch", "leased"), ("fetch", "failed")),
        *(("validate", "pending"), ("validate", "leased"), ("validate", "done")),
    }
    assert set(DeliveryPart.objects.values_list("state", flat=True)) >= {"pending", "leased", "done", "skipped"}
    assert set(Delivery.objects.values_list("state", flat=True)) == {
        *("planned", "staged", "submitted", "published", "available", "verified"),
        *("published_not_loaded", "failed", "removed"),
    }
    assert Delivery.objects.filter(needs_abort=True).count() > 1
    assert Run.objects.exclude(state__in=("succeeded", "partial", "failed", "cancelled")).count() >= 20


def test_work_in_flight_is_finished_after_the_upgrade(house: House) -> None:
    house.finish()
    end_what_had_failed()
    house.finish()

    check_all(house)
    assert reconcile.reconcile() == []
    garbage.clean_up()
    check_manifests()


@pytest.mark.worker
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_real_workers_finish_it_too(use_workers: Callable[[], House]) -> None:
    house = use_workers()
    house.finish()
    end_what_had_failed()
    house.finish()

    check_all(house)
