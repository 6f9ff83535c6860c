"""Celery really carries the work: chords, queue rates, priorities."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ingest_project import queues
from ingestion.models import Partition, Pipeline, Priority, Run, RunEvent, RunState
from ingestion.runs.start import contracts, pipelines
from tests.fakes.paged_provider import PagedProvider
from tests.faults.harness import pull, used
from tests.worker.cluster import Cluster
from tests.worker.material import CONTRACT, csv_bytes, published_ids, upload

pytestmark = pytest.mark.worker


def state_of(run: Run) -> str:
    run.refresh_from_db()
    return run.state


def ended(run: Run) -> bool:
    run.refresh_from_db()
    return run.is_terminal


@pytest.mark.slow
def test_the_chord_body_alone_completes_a_run_of_100_partitions(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(
        HEADGATE_SWITCH_OFF="reconciler,last_partition_check", HEADGATE_PARTITION_BYTES="100", HEADGATE_LEASE_S="30"
    )
    cluster.start_worker(concurrency=3)

    run = upload(csv_bytes(700))
    cluster.wait(lambda: ended(run), what="the end of the run")

    assert run.partitions.count() >= 100
    assert (run.state, run.accepted) == (RunState.SUCCEEDED, 700)
    assert published_ids(run) == list(range(700))


@pytest.mark.slow
def test_a_run_without_faults_sends_no_message_twice_and_leaves_none(
    make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    # Messages wait for many times the pause after which one that was lost is sent again.
    cluster = make_cluster(HEADGATE_PARTITION_BYTES="100", HEADGATE_LEASE_S="30", HEADGATE_RESEND_AFTER_S="1")
    words = {"app": "tests.worker.counting", "SENT": str(tmp_path / "sent")}
    cluster.start_worker(beat=True, concurrency=2, **words)

    run = upload(csv_bytes(1500))
    cluster.wait(lambda: ended(run) and cluster.queued() == 0, what="the end of the run", patience_s=150)

    sent = Counter((tmp_path / "sent").read_text().splitlines())
    assert run.state == RunState.SUCCEEDED
    assert run.partitions.count() >= 200
    assert {message: count for message, count in sent.items() if count > 1} == {}, cluster.logs()[-20000:]
    assert len([message for message in sent if "ingestion.validate" in message]) == run.partitions.count()


@pytest.mark.slow
def test_loads_that_take_minutes_keep_no_run_from_being_planned_and_repaired(
    make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    held = [{"at": f"load.claimed#{number}", "do": "sleep:600"} for number in (1, 2)]
    cluster = make_cluster(HEADGATE_FAILPOINTS=json.dumps({"dir": str(tmp_path / "f"), "rules": held}))
    for name, names in queues.WORKERS.items():
        concurrency = queues.WORKER_CONCURRENCY[name]
        cluster.start_worker(queues=",".join(names), concurrency=concurrency, beat="system" in names, waits=False)
    upload(csv_bytes(20))
    cluster.wait(lambda: used(tmp_path / "f") == 2, what="the two loads that hold their worker")

    run = upload(csv_bytes(30), datasource_name="second")
    cluster.wait(lambda: state_of(run) == RunState.DELIVERING, what="the deliveries of the second run", patience_s=30)
    parts = Partition.objects.filter(run=run)
    parts.update(state="pending", stage="fetch", sent_at=None)
    Run.objects.filter(pk=run.pk).update(state=RunState.RUNNING)
    cluster.wait(lambda: not parts.filter(state="pending").exists(), what="the repair of a lost message", patience_s=30)


@pytest.mark.slow
def test_two_workers_on_one_queue_stay_within_its_rate_and_burst(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(HEADGATE_QUEUE_RATES="fetch=10/5", HEADGATE_PARTITION_BYTES="100", HEADGATE_LEASE_S="30")
    for _ in range(2):
        cluster.start_worker(beat=True, concurrency=2)
    started = time.monotonic()

    run = upload(csv_bytes(350))
    cluster.wait(lambda: ended(run), what="the end of the run")

    elapsed_s = time.monotonic() - started
    count = run.partitions.count()
    assert run.state == RunState.SUCCEEDED
    assert count >= 45
    # The bucket grants at most burst + rate x time, so this many fetches cannot have been quicker.
    assert elapsed_s >= (count - 5) / 10


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_critical_work_overtakes_a_thousand_waiting_partitions(make_cluster: Callable[..., Cluster]) -> None:
    with PagedProvider(pages=2, per_page=5) as provider:
        cluster = make_cluster(
            HEADGATE_PARTITION_BYTES="40",
            HEADGATE_LEASE_S="30",
            HEADGATE_RESEND_AFTER_S="30",
            HEADGATE_EGRESS_ALLOW=urlsplit(provider.url).netloc,
        )
        cluster.start_worker(concurrency=2, beat=True)
        # It delivers nowhere, so that the test is about the thousand partitions alone.
        Pipeline.objects.create(
            name="low", source=pipelines.upload_source(), stream="rows", contract=contracts.save_contract(CONTRACT)
        )
        low = upload(csv_bytes(2600), datasource_name="low", priority=Priority.LOW)
        cluster.wait(lambda: Partition.objects.filter(run=low, state="done").count() > 5, what="the first of the many")
        waiting = Partition.objects.filter(run=low, state="pending").count()

        urgent = pull(provider, priority=Priority.CRITICAL)
        first_page_s = _seconds_to_first_page(urgent)
        cluster.wait(lambda: ended(low) and ended(urgent), what="the end of both", patience_s=240)

        assert waiting >= 900
        assert first_page_s < 5
        assert low.state == RunState.SUCCEEDED
        assert low.accepted == 2600


def _seconds_to_first_page(run: Run) -> float:
    created = run.created_at
    first = run.parts.filter(zone="raw").order_by("seq").values_list("created_at", flat=True).first()
    deadline = time.monotonic() + 20
    while first is None and time.monotonic() < deadline:
        first = run.parts.filter(zone="raw").order_by("seq").values_list("created_at", flat=True).first()
        time.sleep(0.05)
    assert first is not None
    assert RunEvent.objects.filter(run=run, kind="run.planned").exists()
    return float((first - created).total_seconds())
