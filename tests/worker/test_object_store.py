"""A run whose lake and destination are buckets of a real S3 server."""

from collections.abc import Callable

import pytest

from ingestion.models import Run, RunState
from tests.servers import VersityGateway
from tests.worker.cluster import Cluster
from tests.worker.material import catalog_ids, csv_bytes, published_ids, upload

pytestmark = pytest.mark.worker


def test_a_run_over_an_s3_lake_publishes_every_row(
    make_cluster: Callable[..., Cluster], versitygw: VersityGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in versitygw.credentials().items():
        monkeypatch.setenv(name, value)
    url = versitygw.create_bucket("lake-of-a-run")
    cluster = make_cluster(HEADGATE_LAKE_URL=url, HEADGATE_PARTITION_BYTES="4000", **versitygw.credentials())
    cluster.start_worker(beat=True)

    run = upload(csv_bytes(600, bad_every=100))
    cluster.wait(lambda: Run.objects.get(pk=run.pk).is_terminal, what="the end of the run")

    run.refresh_from_db()
    expected = [number for number in range(600) if number % 100]
    assert (run.state, run.code) == (RunState.SUCCEEDED, ""), run.message
    assert published_ids(run) == expected
    assert sorted(catalog_ids(run.pipeline)) == expected
    assert run.deliveries.get(destination__name="lake").counted == len(expected)
