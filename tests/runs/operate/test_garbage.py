"""Objects that are removed, and objects that are not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from ingestion.models import Delivery, DeliveryPart, Part, PartitionState, Pipeline, Run, RunState
from ingestion.runs.deliver import cancellation
from ingestion.runs.ingest import fetching
from ingestion.runs.operate import garbage, retry
from ingestion.runs.record.lake import open_lake
from ingestion.runs.start.creation import create_run
from ingestion.runs.work.attempts import Outcome
from ingestion.runs.work.leases import claim
from ingestion.toolkit.scratch import scratch_folder
from tests.fakes import plugins
from tests.runs.driver import Driver

pytestmark = pytest.mark.both

MakePipeline = Callable[..., Pipeline]
LATER = timedelta(days=3)


def start(pipeline: Pipeline, **values: Any) -> Run:
    run, _ = create_run(pipeline, trigger=Run.Trigger.API, **values)
    return run


def test_an_object_of_a_run_at_work_is_kept_however_old_it_is(
    driver: Driver, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(make_pipeline())
    driver.step()

    def clean(name: str) -> None:
        # Between the object and its row; an earlier attempt may have stored the object days ago.
        if name == "fetch.after_put":
            garbage.clean_up(now=datetime.now(UTC) + LATER)

    monkeypatch.setattr(fetching, "failpoint", clean)
    driver.drain()

    run.refresh_from_db()
    assert run.state == RunState.SUCCEEDED
    assert all(open_lake().head(key) for key in Part.objects.filter(run=run).values_list("key", flat=True))


def test_what_a_run_that_has_ended_names_is_kept_and_the_rest_goes(driver: Driver, make_pipeline: MakePipeline) -> None:
    run = start(make_pipeline(config={"lanes": 2, "repeat_id": 7}))
    driver.drain()
    again = retry.roll_back(run.pk)
    driver.drain()
    orphan = f"raw/items/{run.pk}/9-0/000000-dead.zst"
    open_lake().put_if_absent(orphan, b"x")

    garbage.clean_up(now=datetime.now(UTC) + LATER)

    named = [key for part in Part.objects.filter(run__in=[run, again]) for key in (part.key, part.hashes_key) if key]
    assert all(open_lake().head(key) for key in [*named, run.manifest_key or Run.objects.get(pk=run.pk).manifest_key])
    assert open_lake().head(orphan) is None


def test_a_cancelled_delivery_is_cleared_away_after_its_last_worker_has_stopped(
    driver: Driver, make_pipeline: MakePipeline
) -> None:
    run = start(make_pipeline())
    while not Delivery.objects.filter(run=run).exists():
        driver.step()
    part = DeliveryPart.objects.get(delivery__run=run)
    assert claim(DeliveryPart, part.pk, expected=(PartitionState.PENDING,), to=PartitionState.LEASED)
    cancellation.cancel_run(run.pk)
    delivery = Delivery.objects.get(run=run)

    early = cancellation.abort_delivery(delivery.pk)
    DeliveryPart.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    late = cancellation.abort_delivery(delivery.pk)

    assert (early, late) == (Outcome.NOT_MINE, Outcome.DONE)
    assert plugins.CALLS.count(f"abort {run.pk}") == 1


def test_what_a_killed_process_left_behind_goes_and_the_rest_of_the_scratch_stays(
    db: None, settings: Any, tmp_path: Path
) -> None:
    settings.HEADGATE_DATA_DIR = tmp_path
    for name in ("query-a1b2c3d4", "druid-merge-b2c3d4e5", "parts", "of-a-sink"):
        (tmp_path / "scratch" / name).mkdir(parents=True)
        (tmp_path / "scratch" / name / "file").write_bytes(b"x")

    with scratch_folder(tmp_path / "scratch", "objects") as in_use:
        assert garbage.clean_up()["scratch"] == 0
        assert garbage.clean_up(now=datetime.now(UTC) + LATER)["scratch"] == 2
        assert in_use.exists()

    assert {path.name for path in (tmp_path / "scratch").iterdir()} == {"parts", "of-a-sink"}
