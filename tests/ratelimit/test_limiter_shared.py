"""Several real processes on one limit: never above it in any span of time, and hardly ever below."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import pytest
import redis

from tests.servers import ROOT, Valkey

pytestmark = pytest.mark.waits

RATE, BURST, SECONDS, WORKERS = 50.0, 10, 4.0, 4
# A process that is woken late lets its grant come close to the next one; a real server would not notice.
JITTER_S = 0.1


def start_workers(url: str, keys: list[str]) -> list[subprocess.Popen[str]]:
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.ratelimit.worker", "--url", url, "--key", key),
                *("--rate", str(RATE), "--burst", str(BURST), "--seconds", str(SECONDS)),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for key in keys
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    return workers


def grants_of(workers: list[subprocess.Popen[str]]) -> list[list[float]]:
    with ThreadPoolExecutor(len(workers)) as threads:
        outputs = list(threads.map(lambda worker: worker.communicate("go\n", timeout=60)[0], workers))
    return [json.loads(output) for output in outputs]


def worst_excess(times: list[float], *, rate: float) -> float:
    """Return the most grants in any span of t seconds minus rate * t: the burst that a server would have seen."""
    ordered = sorted(times)
    # Grants i..j are j - i + 1 in t_j - t_i seconds: the largest (j - rate t_j) - (i - rate t_i) + 1 over i <= j.
    levels = [index - rate * at for index, at in enumerate(ordered)]
    lowest = accumulate(levels, min)
    return max(level - low for level, low in zip(levels, lowest, strict=True)) + 1


def test_the_processes_together_never_pass_the_limit_and_use_nearly_all_of_it(valkey: Valkey, key: str) -> None:
    workers = start_workers(valkey.url(), [key] * WORKERS)

    grants = grants_of(workers)

    times = [at for granted in grants for at in granted]
    ideal = BURST + RATE * SECONDS
    assert worst_excess(times, rate=RATE) <= BURST + RATE * JITTER_S
    assert 0.95 * ideal <= len(times) <= ideal + WORKERS
    assert min(len(granted) for granted in grants) >= 0.5 * ideal / WORKERS, "one process got next to nothing"


def test_a_flush_in_the_middle_costs_at_most_one_more_burst(own_valkey: Valkey, key: str) -> None:
    workers = start_workers(own_valkey.url(), [key] * WORKERS)
    flush = threading.Timer(SECONDS / 2, redis.Redis.from_url(own_valkey.url()).flushall)
    flush.start()

    times = [at for granted in grants_of(workers) for at in granted]

    flush.join()
    assert worst_excess(times, rate=RATE) <= 2 * BURST + RATE * JITTER_S
    assert len(times) >= 0.95 * (BURST + RATE * SECONDS)


def test_a_source_and_a_queue_are_limited_apart_from_each_other(valkey: Valkey, key: str) -> None:
    started_at = time.monotonic()
    workers = start_workers(valkey.url(), [f"source:{key}", f"queue:{key}"])

    source, queue = grants_of(workers)

    ideal = BURST + RATE * SECONDS
    assert min(len(source), len(queue)) >= 0.95 * ideal
    assert max(len(source), len(queue)) <= ideal + 1
    assert min(source + queue) > started_at


def test_the_excess_of_a_known_series_is_found() -> None:
    two_at_once_then_at_the_rate = [0.0, 0.0, 0.5, 1.0]

    assert worst_excess(two_at_once_then_at_the_rate, rate=2) == 2
