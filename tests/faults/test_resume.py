"""Resume: a pull of 1,000 pages is killed at random points; at most one page is asked for again each time."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fakes.paged_provider import PagedProvider
from tests.faults.harness import check, note, pull, used, wait_for_end
from tests.faults.share import Share
from tests.worker.cluster import Cluster
from tests.worker.material import fingerprint

POINTS = ("fetch.before_put", "fetch.after_put", "fetch.before_commit", "fetch.after_commit", "lake.after_put")


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_pull_killed_at_random_points_is_the_same_as_one_that_was_not(
    make_cluster: Callable[..., Cluster], tmp_path: Path, share: Share
) -> None:
    pages, kills = share.times(1000, least=100), share.times(100, least=10)
    chance = share.chance("resume") if share.seed else random.Random(20261122)
    # One at each point, the rest anywhere.
    places = [(point, chance.randrange(1, pages)) for point in POINTS]
    others = [(point, n) for point in POINTS for n in range(1, pages) if (point, n) not in places]
    places += chance.sample(others, kills - len(places))
    points = {"dir": str(tmp_path / "f"), "rules": [{"at": f"{point}#{n}", "do": "kill"} for point, n in places]}
    with PagedProvider(pages=pages, per_page=20) as provider:
        address = urlsplit(provider.url).netloc
        calm = make_cluster(HEADGATE_EGRESS_ALLOW=address)
        calm.start_worker(beat=True)
        undisturbed = pull(provider)
        wait_for_end(calm, [undisturbed], patience_s=300)
        expected = fingerprint(undisturbed)
        calm.kill_workers()
        provider.reset()
        cluster = make_cluster(HEADGATE_EGRESS_ALLOW=address, HEADGATE_FAILPOINTS=json.dumps(points))
        cluster.start_worker(beat=True)
        started = time.monotonic()

        run = pull(provider)
        wait_for_end(cluster, [run], patience_s=800)

        rows = check(cluster, [run], [provider.ids])
        injected = used(tmp_path / "f")
        note(
            f"kill -9 at {kills} random points of {pages} pages",
            cluster,
            injections=injected,
            rows=rows,
            started=started,
        )
        again = sum(provider.requests.values()) - pages
        assert injected == kills
        assert again <= kills, f"{again} pages were asked for again after {kills} kills"
        assert max(provider.requests.values()) <= 1 + kills
        assert fingerprint(run) == expected
