"""A run by real workers, end to end."""

from collections.abc import Callable

import pytest

from ingestion.models import Run, RunState
from ingestion.runs.read.progress import is_balanced, summarize
from tests.worker.cluster import Cluster
from tests.worker.material import catalog_ids, csv_bytes, delivered_ids, published_ids, upload

pytestmark = [pytest.mark.worker, pytest.mark.both]


def ended(run: Run) -> bool:
    run.refresh_from_db()
    return run.is_terminal


def test_an_uploaded_file_is_published_to_every_destination(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(HEADGATE_PARTITION_BYTES="4000")
    cluster.start_worker()

    run = upload(csv_bytes(1000, bad_every=100))
    cluster.wait(lambda: ended(run), what="the end of the run")

    expected = [number for number in range(1000) if number % 100]
    assert (run.state, run.code) == (RunState.SUCCEEDED, ""), run.message + cluster.logs()
    assert (run.fetched, run.accepted, run.rejected) == (1000, 990, 10)
    assert is_balanced(run)
    assert run.partitions.count() > 3
    assert summarize(run)["destinations"] == {"lake": 990, "catalog": 990}
    assert published_ids(run) == expected
    assert delivered_ids(cluster.folder / "lake", run) == expected
    assert sorted(catalog_ids(run.pipeline)) == expected
