"""The health of this installation: its ability to do its work, asked by probes and people."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

import redis
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor

from ingestion.models import Run
from ingestion.ports.errors import IngestError
from ingestion.runs.record.lake import open_lake

_CHECK_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class PartHealth:
    """One part: whether it answers, what it blocks where it does not, and how long it took."""

    part: str
    is_ok: bool
    is_critical: bool
    elapsed_ms: float
    blocks: str


def check_readiness() -> tuple[bool, list[PartHealth]]:
    """Return whether requests can be served, and each part; only the database is critical, the rest degrades.

    The parts are asked at once, each for a second at most. Hosts and errors are not told: anybody may ask.
    """
    checks: tuple[tuple[str, bool, str, Callable[[], object]], ...] = (
        ("database", True, "everything", _check_database),
        ("broker", False, "new work is taken and starts once it is back", _check_redis),
        ("lake", False, "uploads and running work wait", _check_lake),
    )
    pool = ThreadPoolExecutor(max_workers=len(checks))
    try:
        asked = [(name, critical, blocks, pool.submit(_timed, check)) for name, critical, blocks, check in checks]
        found = []
        for name, critical, blocks, future in asked:
            try:
                is_ok, elapsed_ms = future.result(timeout=_CHECK_TIMEOUT_S)
            except FutureTimeoutError:
                is_ok, elapsed_ms = False, _CHECK_TIMEOUT_S * 1000
            found.append(PartHealth(name, is_ok, critical, round(elapsed_ms, 1), "" if is_ok else blocks))
    finally:
        # Not waited for: a part that hangs must not make the answer hang.
        pool.shutdown(wait=False)
    return all(part.is_ok for part in found if part.is_critical), found


def last_run_state() -> dict[str, Any] | None:
    """Return the newest ended run's number, state and time, or None."""
    ended = Run.objects.filter(finished_at__isnull=False).order_by("-finished_at")
    newest = ended.values("id", "state", "finished_at").first()
    return dict(newest) if newest else None


def _timed(check: Callable[[], object]) -> tuple[bool, float]:
    started = time.perf_counter()
    try:
        check()
    except (DatabaseError, InterfaceError, redis.RedisError, IngestError, OSError, _NotReadyError):
        return False, (time.perf_counter() - started) * 1000
    finally:
        connection.close()
    return True, (time.perf_counter() - started) * 1000


class _NotReadyError(Exception):
    """A part answers but cannot serve yet."""


def _check_database() -> None:
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise _NotReadyError


def _check_redis() -> None:
    with redis.Redis.from_url(settings.HEADGATE_REDIS_URL, socket_timeout=_CHECK_TIMEOUT_S) as client:
        client.ping()


def _check_lake() -> None:
    open_lake().head("health")
