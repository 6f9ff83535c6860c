"""Writes the data directory of the upgrade test with the code of commit 77ec71b, stopped in the middle of its work.

    git worktree add --detach /tmp/old 77ec71b
    cd /tmp/old && python <this file> <where the archive goes>/77ec71b.tar.xz

Each scene is played in a process of its own that is killed at a failpoint, so that leases, half-written objects and
unsent messages are those that a real kill leaves. No message outlives its process. README.md lists the scenes.
"""

# ruff: noqa: E402 - the environment comes first

import base64
import io
import json
import os
import shutil
import signal
import sqlite3
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))
DATA = Path(tempfile.gettempdir()) / "headgate-upgrade-data"
shutil.rmtree(DATA, ignore_errors=True)
os.environ |= {
    "DJANGO_SETTINGS_MODULE": "ingest_project.settings",
    "HEADGATE_ENV_FILE": os.devnull,
    "HEADGATE_DATA": str(DATA),
    "HEADGATE_MAX_ACTIVE_RUNS": "1000",
    "HEADGATE_PARTITION_BYTES": "500",
    "HEADGATE_LOG_LEVEL": "ERROR",
}

import django

django.setup()

from django.conf import settings
from django.core.management import call_command
from django.db import connections
from ingestion.runs.creation import create_run

from ingestion import dispatch
from ingestion.models import (
    Delivery,
    Destination,
    Pipeline,
    PipelineDependency,
    Run,
    Schedule,
    Source,
    Upload,
)
from ingestion.runs import cancellation, contracts, loading, pipelines, recovery, redelivery, upkeep, uploads
from ingestion.toolkit import failpoints
from tests.fakes.druid import FakeDruid
from tests.fakes.paged_provider import PagedProvider
from tests.runs.driver import Driver
from tests.servers import Valkey

COLUMNS = [
    {"name": "id", "type": "integer", "nullable": False},
    {"name": "formula", "type": "string", "pattern": "^[A-Z]"},
    {"name": "energy", "type": "number", "min": -100, "max": 100},
    {"name": "at", "type": "datetime"},
]
API_COLUMNS = [{"name": "id", "type": "string", "nullable": False}]
ROWS = 24
USERS = {"headgate": "kept"}
FILES = ("lake", "catalog", "warehouse")

settings.HEADGATE_EGRESS_ALLOW = ["127.0.0.0/8"]
settings.HEADGATE_EGRESS_PORTS = list(range(1, 65536))
driver = Driver()
dispatch.publish_as_is = driver.publish
dispatch.publish_chord = driver.publish_chord
dispatch.queue_depth = lambda _queue: 0


# --- the stage


def play(work: Callable[[], object], *, kill: str = "") -> None:
    """Do the work in a process of its own, which is killed at the named hit of a failpoint."""
    connections.close_all()
    pid = os.fork()
    if pid == 0:
        try:
            if kill:
                folder = tempfile.mkdtemp()
                failpoints.arm(json.dumps({"dir": folder, "rules": [{"at": kill, "do": "kill"}]}))
            work()
        except BaseException:  # noqa: BLE001 - the parent reads the exit code
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    found = -signal.SIGKILL if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
    if found != (-signal.SIGKILL if kill else 0):
        raise SystemExit(f"a scene ended with {found} (kill {kill!r})")


def rows_csv(*, first: int = 0, count: int = ROWS, version: int = 1) -> bytes:
    """Return a CSV: every tenth energy is no number, and the last row repeats the first row's key."""
    lines = ["id,formula,energy,at"]
    for number in range(first, first + count):
        energy = "much" if number % 10 == 9 else f"{number % 50 / 8 + version}"
        lines.append(f"{number},Si{number}O{version},{energy},2026-0{1 + number % 2}-{1 + number % 28:02d}T00:00:00Z")
    lines.append(f"{first},Si{first}O9,1.5,2026-01-01T00:00:00Z")
    return ("\n".join(lines) + "\n").encode()


def file_pipeline(name: str, *, into: tuple[str, ...] = FILES, keyed: bool = True, **values: Any) -> Pipeline:
    """Return a pipeline of uploads into the named destinations."""
    body = {"name": name, "columns": COLUMNS, "time": "at", **({"key": ["id"]} if keyed else {})}
    pipeline = pipelines.upload_pipeline(name, contract=contracts.save_contract(body))
    pipeline.destinations.set(Destination.objects.filter(name__in=into))
    Pipeline.objects.filter(pk=pipeline.pk).update(**values)
    pipeline.refresh_from_db()
    return pipeline


def bring(pipeline: Pipeline, content: bytes) -> Run:
    """Return the run of a file that was just received."""
    stored, _ = uploads.receive(io.BytesIO(content).read, name=f"{pipeline.name}.csv")
    run, _ = uploads.ingest_upload(Upload.objects.get(pk=stored.pk), trigger=Run.Trigger.UPLOAD, pipeline=pipeline)
    return run


def api_pipeline(name: str, provider: PagedProvider, *, into: tuple[str, ...] = FILES, **values: Any) -> Pipeline:
    """Return a pipeline that pulls a provider."""
    source = Source.objects.create(
        name=name, kind="optimade", config={"base_url": provider.url, "page_limit": provider.per_page}
    )
    contract = contracts.save_contract({"name": name, "key": ["id"], "columns": API_COLUMNS})
    pipeline = Pipeline.objects.create(name=name, source=source, stream="structures", contract=contract, **values)
    pipeline.destinations.set(Destination.objects.filter(name__in=into))
    return pipeline


def pull(pipeline: Pipeline) -> Run:
    """Return a new run of the pipeline."""
    run, _ = create_run(pipeline, trigger=Run.Trigger.API)
    return run


def finish(run: Run, *, state: str = "succeeded") -> Run:
    """Carry messages out until the run has ended, each next look's time come."""
    for _ in range(200):
        driver.drain()
        run.refresh_from_db()
        if run.is_terminal:
            break
        look(run)
        druid_pause()
    driver.drain()
    if run.state != state:
        raise SystemExit(f"{run.pipeline.name}: {run.state} {run.code} {run.message}")
    return run


def druid_pause() -> None:
    """Let the fake's tasks work."""
    import time

    time.sleep(0.05)


def look(run: Run) -> None:
    """Let every open delivery of the run be looked at now."""
    Delivery.objects.filter(run=run).update(not_before=None)
    for delivery in Delivery.objects.filter(run=run, state__in=("planned", "staged", "submitted", "published")):
        driver.publish(loading.load_call(delivery.pk))
        driver.drain()


def file_scene(name: str, kill: str, **options: Any) -> None:
    """Play the run of one file up to a kill."""

    def work() -> None:
        bring(file_pipeline(name, **options), rows_csv(first=1000 * len(name)))
        driver.drain()

    play(work, kill=kill)


# --- the scenes


def make_destinations(druid: FakeDruid) -> None:
    """Make the places that all scenes deliver to."""
    pipelines.default_destinations()
    Destination.objects.create(name="warehouse", kind="sqlite", config={"path": str(DATA / "warehouse.sqlite3")})
    for name, config in (
        ("druid", {}),
        ("druid-disk", {"datasource": "disk_{pipeline}", "shares_disk": True}),
        ("druid-sql", {"datasource": "sql_{pipeline}", "engine": "sql"}),
    ):
        Destination.objects.create(
            name=name,
            kind="druid",
            config={"url": druid.url, "username": "headgate", **config},
            secrets={"password": USERS["headgate"]},
        )


def scenes_of_files() -> None:
    """Leave a run of a file at every boundary of its life."""
    file_scene("planning", "plan.before_commit#1")
    file_scene("planned", "plan.after_commit#1")
    file_scene("fetching", "fetch.before_commit#1", into=("lake", "warehouse"))
    file_scene("fetched", "fetch.after_commit#2")
    file_scene("validating", "validate.after_put_clean#2")
    file_scene("validated", "validate.after_commit#1")
    file_scene("deduplicating", "settle.after_put#1")
    file_scene("completing", "complete.settled#1")
    file_scene("completed", "complete.after_commit#1")
    file_scene("delivering", "deliver.staged#2")
    file_scene("staged", "deliver.after_commit#3")
    file_scene("into-lake", "objects.before_pointer#1", into=("lake",))
    file_scene("into-lake-noted", "load.committed#1", into=("lake",))
    file_scene("into-catalog", "catalog.before_flip#1", into=("catalog",))
    file_scene("into-catalog-shown", "catalog.after_flip#1", into=("catalog",))
    file_scene("into-table", "relational.before_commit#1", into=("warehouse",))
    file_scene("into-table-taken", "relational.after_commit#1", into=("warehouse",))
    file_scene("counted", "load.before_commit#2")
    file_scene("publishing", "publish.after_manifest#1")
    file_scene("nowhere", "publish.claimed#1", into=())


def scenes_of_an_api(provider: PagedProvider, growing: PagedProvider, broken: PagedProvider) -> None:
    """Leave pulls in the middle of a lane, between two links, after a failure, and with a checkpoint."""

    def in_the_lane() -> None:
        settings.HEADGATE_PARTITION_BYTES = 1_000_000
        pull(api_pipeline("api-lane", provider))
        driver.drain()

    def between_links() -> None:
        pull(api_pipeline("api-links", provider))
        driver.drain()

    def with_a_checkpoint() -> None:
        finish(pull(api_pipeline("api-growing", growing, mode=Pipeline.Mode.INCREMENTAL)))

    def since_the_checkpoint() -> None:
        settings.HEADGATE_PARTITION_BYTES = 1_000_000
        pull(Pipeline.objects.get(name="api-growing"))
        driver.drain()

    def failed() -> None:
        finish(pull(api_pipeline("api-failed", broken)), state="failed")

    def put_back() -> None:
        settings.HEADGATE_PARTITION_BYTES = 1_000_000
        pull(api_pipeline("api-waits", broken))
        driver.drain()

    play(in_the_lane, kill="fetch.after_commit#2")
    play(between_links, kill="fetch.after_commit#1")
    play(with_a_checkpoint)
    growing.pages = 4
    play(since_the_checkpoint, kill="fetch.after_commit#1")
    broken.fault(1, "html")
    play(failed)
    broken.reset()
    broken.fault(2, "status_503")
    play(put_back)
    broken.reset()


def scenes_of_more_than_one_run() -> None:
    """Leave what follows a publication: a second file, a roll back, a new destination, a dependant, a schedule."""

    def second_file(name: str) -> Callable[[], None]:
        def work() -> None:
            pipeline = file_pipeline(name)
            finish(bring(pipeline, rows_csv(first=3000)))
            bring(pipeline, rows_csv(first=3012, version=2))
            driver.drain()

        return work

    def rolled_back() -> None:
        pipeline = file_pipeline("rolled-back", mode=Pipeline.Mode.FULL_REFRESH)
        first = finish(bring(pipeline, rows_csv(first=4000)))
        finish(bring(pipeline, rows_csv(first=4100, version=2)))
        recovery.roll_back(first.pk)
        driver.drain()

    def new_destination() -> None:
        pipeline = file_pipeline("new-destination", into=("lake",))
        finish(bring(pipeline, rows_csv(first=5000)))
        finish(bring(pipeline, rows_csv(first=5010, version=2)))
        warehouse = Destination.objects.get(name="warehouse")
        pipeline.destinations.add(warehouse)
        redelivery.fill_destination(pipeline, warehouse)
        driver.drain()

    def removed() -> None:
        pipeline = file_pipeline("removed", into=("lake", "warehouse"))
        finish(bring(pipeline, rows_csv(first=5500)))
        upkeep.drop(Destination.objects.get(name="warehouse"), pipeline, confirm=pipeline.name)

    def cancelled() -> None:
        run = bring(file_pipeline("cancelled"), rows_csv(first=6000))
        while not Delivery.objects.filter(run=run).exclude(state="planned").exists():
            driver.step()
        driver.waiting.clear()
        cancellation.cancel_run(run.pk)

    def waiting_line() -> None:
        pipeline = file_pipeline("dependant", into=("lake",))
        PipelineDependency.objects.create(pipeline=pipeline, upstream=Pipeline.objects.get(name="merging"))
        bring(pipeline, rows_csv(first=7000))
        driver.drain()
        Schedule.objects.create(
            pipeline=Pipeline.objects.get(name="api-lane"),
            interval_s=86_400,
            starts_at=datetime(2020, 1, 1, tzinfo=UTC),
        )

    def table_with_a_rule(name: str) -> Callable[[], None]:
        def work() -> None:
            with sqlite3.connect(DATA / "warehouse.sqlite3") as opened:
                opened.execute(
                    f'CREATE TABLE "{name}" (id bigint NOT NULL, formula text, energy double precision CHECK (energy < 3))'
                )
            finish(bring(file_pipeline(name, into=("warehouse",)), rows_csv(first=5700 + 100 * len(name))))

        return work

    play(table_with_a_rule("rule"))
    play(table_with_a_rule("rule-broken"), kill="relational.after_commit#1")
    play(second_file("merging"), kill="complete.settled#2")
    play(second_file("merging-table"), kill="relational.before_commit#2")
    play(rolled_back, kill="complete.before_commit#3")
    play(new_destination, kill="relational.after_commit#1")
    play(removed)
    play(cancelled)
    play(waiting_line)


def scenes_of_druid(druid: FakeDruid) -> None:
    """Leave deliveries into Druid with every kind of note that they keep."""

    def start(name: str, *, into: tuple[str, ...] = ("druid",), **options: Any) -> Callable[[], None]:
        def work() -> None:
            bring(file_pipeline(name, into=into, **options), rows_csv(first=100 * len(name)))
            driver.drain()

        return work

    def go_on(name: str, *, times: int = 1) -> Callable[[], None]:
        def work() -> None:
            for _ in range(times):
                look(Run.objects.filter(pipeline__name=name).latest("pk"))
                druid_pause()

        return work

    def long_ago() -> None:
        for delivery in Delivery.objects.filter(run__pipeline__name="druid-not-loaded"):
            delivery.refs["published_at"] = "2026-11-01T00:00:00+00:00"
            delivery.save(update_fields=["refs"])
        finish(Run.objects.get(pipeline__name="druid-not-loaded"), state="partial")

    def merged() -> None:
        pipeline = file_pipeline("druid-merging", into=("druid", "catalog"))
        finish(bring(pipeline, rows_csv(first=8000)))
        bring(pipeline, rows_csv(first=8012, version=2))
        driver.drain()

    def cancelled() -> None:
        cancellation.cancel_run(Run.objects.get(pipeline__name="druid-cancelled").pk)

    def failed() -> None:
        finish(bring(file_pipeline("druid-failed", into=("druid",)), rows_csv(first=900)), state="partial")

    play(start("druid-planned"), kill="druid.before_post#1")
    play(start("druid-sent"), kill="druid.after_post#1")
    play(start("druid-disk-planned", into=("druid-disk",)), kill="druid.before_post#1")
    play(start("druid-sql-staged", into=("druid-sql",)), kill="load.claimed#1")
    play(merged, kill="druid.before_post#2")
    druid.load_after(None)
    play(start("druid-published"))
    play(go_on("druid-published", times=2))
    play(start("druid-not-loaded"))
    play(go_on("druid-not-loaded", times=2))
    play(long_ago)
    druid.load_after(0)
    druid.fail_next_task("it was eaten by a whale")
    play(start("druid-failing"))
    play(go_on("druid-failing", times=2))
    druid.fail_next_task("too many parse exceptions")
    play(failed)
    druid.hold()
    play(start("druid-submitted"))
    play(start("druid-replacing", into=("druid-disk",), keyed=False))
    play(start("druid-cancelled"))
    play(cancelled)


# --- the archive


def dump() -> str:
    """Return the database as SQL."""
    with sqlite3.connect(DATA / "headgate.sqlite3") as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return "\n".join(opened.iterdump()) + "\n"


def told_to(druid: FakeDruid) -> list[dict[str, Any]]:
    """Return what the fake Druid was told to do, in order: an upgraded one is told the same."""
    changes = ("POST", "PUT", "DELETE")
    return [
        {"method": each.method, "path": each.path, "body": base64.b64encode(each.body).decode()}
        for each in druid.requests
        if each.method in changes
        and "/sql" not in each.path
        and "/sampler" not in each.path
        and each.path != "/druid/v2"
    ]


def pack(target: Path, files: dict[str, bytes]) -> None:
    """Write everything into one archive; the same content gives the same bytes."""
    for path in sorted(DATA.rglob("*")):
        if path.is_file() and not path.name.startswith("headgate.sqlite3"):
            files[f"data/{path.relative_to(DATA)}"] = path.read_bytes()
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def main(target: Path) -> None:
    """Play all scenes and pack what is left."""
    play(lambda: call_command("migrate", verbosity=0))
    with (
        Valkey() as valkey,
        FakeDruid(users=USERS) as druid,
        PagedProvider(pages=3, per_page=5) as provider,
        PagedProvider(pages=2, per_page=5) as growing,
        PagedProvider(pages=3, per_page=5) as broken,
    ):
        settings.HEADGATE_REDIS_URL = valkey.url(0)
        play(lambda: make_destinations(druid))
        scenes_of_files()
        scenes_of_an_api(provider, growing, broken)
        scenes_of_more_than_one_run()
        scenes_of_druid(druid)
        # The last one: whoever ends a run plans the next one that waits.
        play(lambda: bring(file_pipeline("pending"), rows_csv(first=100)))
        tasks = druid._runner.tasks.values()
        made = {
            "commit": "77ec71b",
            "made_at": datetime.now(UTC).isoformat(),
            "data": str(DATA),
            "druid": druid.url,
            "providers": {"provider": provider.url, "growing": growing.url, "broken": broken.url},
            "held_tasks": [task.task_id for task in tasks if task.state == "RUNNING"],
            "failed_tasks": {task.task_id: task.error for task in tasks if task.state == "FAILED"},
            "druid_was_told": told_to(druid),
        }
        pack(target, {"dump.sql": dump().encode(), "made.json": json.dumps(made, indent=1).encode()})
    sys.stdout.write(f"{target}: {target.stat().st_size} bytes\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
