"""The contexts that plugins are handed, one for each piece of work."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from django.conf import settings

from ingestion.catalog import DatabaseCatalog
from ingestion.models import Source
from ingestion.ports.context import Context, Limiter
from ingestion.ratelimit.rule import Rate
from ingestion.runs.record import events
from ingestion.runs.record.lake import open_lake
from ingestion.runs.record.views import PublishedManifests
from ingestion.runs.work.leases import Lease

if TYPE_CHECKING:
    from ingestion.toolkit.http.client import Http
    from ingestion.toolkit.http.egress import EgressPolicy


def source_key(source_id: int) -> str:
    """Return the limiter's key of a source."""
    return f"source:{source_id}"


def queue_key(queue: str) -> str:
    """Return the limiter's key of a queue."""
    return f"queue:{queue}"


def egress_policy() -> "EgressPolicy":
    """Return where this installation may connect to, as its administrator set it."""
    from ingestion.toolkit.http.egress import EgressPolicy  # noqa: PLC0415 - httpx, which who only reads does without

    return EgressPolicy(allow=tuple(settings.HEADGATE_EGRESS_ALLOW), ports=frozenset(settings.HEADGATE_EGRESS_PORTS))


def shared_limiter(rate: Rate | None, *, beat: Callable[[], None] = lambda: None) -> Limiter:
    """Return the limiter that all workers share, granting at `rate` (None: only pauses are kept)."""
    from ingestion.ratelimit.limiter import RedisLimiter  # noqa: PLC0415 - redis, which who only reads does without

    return RedisLimiter(settings.HEADGATE_REDIS_URL, lambda _key: rate, beat=beat)


@lru_cache(maxsize=32)
def queue_limiter(queue: str) -> Limiter | None:
    """Return the limiter of a queue, or None where the queue has no rate."""
    limits = settings.HEADGATE_QUEUES[queue]
    if not limits.rate_per_s:
        return None
    return shared_limiter(Rate(limits.rate_per_s, limits.burst or 1))


@contextmanager
def source_context(source: Source, lease: Lease | None = None, *, is_resumed: bool = True) -> Iterator[Context]:
    """Give the context of a connector; under a lease, its calls are broken off when the work must stop.

    Work that is not resumed where it stopped does not hear of the end of its worker slot: begun anew each time, it
    would never be done. Its queue's time limit ends it.
    """
    rate = Rate(source.rate_per_s, source.burst) if source.rate_per_s else None
    beat = _beat(lease)
    limiter = shared_limiter(rate, beat=beat)
    http = _client(limiter=limiter, limit_key=source_key(source.pk), beat=beat)
    with _open(http, lease):
        yield Context(
            http=http,
            limiter=limiter,
            lake=open_lake(),
            clock=_utc_now,
            partition_bytes=settings.HEADGATE_PARTITION_BYTES,
            **_signs(lease, is_resumed=is_resumed),
        )


@contextmanager
def sink_context(lease: Lease | None = None, *, is_resumed: bool = True) -> Iterator[Context]:
    """Give the context of a sink; `is_resumed` as for a source."""
    beat = _beat(lease)
    http = _client(beat=beat)
    with _open(http, lease):
        yield Context(
            http=http,
            limiter=shared_limiter(None, beat=beat),
            lake=open_lake(),
            clock=_utc_now,
            catalog=DatabaseCatalog(beat=_beat(lease, is_resumed=is_resumed)),
            published=PublishedManifests(),
            scratch=settings.HEADGATE_DATA_DIR / "scratch",
            **_signs(lease, is_resumed=is_resumed),
        )


def _signs(lease: Lease | None, *, is_resumed: bool) -> dict[str, Any]:
    """Return what a context tells the core and hears from it; without a lease there is nobody to tell."""
    if lease is None:
        return {}
    return {
        "beat": _beat(lease, is_resumed=is_resumed),
        "on_stop": lease.on_stop,
        "log": partial(events.record, lease.run_id),
    }


def _beat(lease: Lease | None, *, is_resumed: bool = False) -> Callable[[], None]:
    """Return the beat of work; a single call is not resumed after the end of its worker slot, so is not broken off."""
    return partial(lease.beat, is_resumed=is_resumed) if lease else _nothing


def _client(**values: Any) -> "Http":
    from ingestion.toolkit.http.client import Http  # noqa: PLC0415 - httpx, which who only reads does without

    return Http(egress_policy(), **values)


@contextmanager
def _open(http: "Http", lease: Lease | None) -> Iterator[None]:
    """Close the client after the block, and break its calls off where the work must stop."""
    with http, ExitStack() as stack:
        if lease is not None:
            stack.enter_context(lease.on_stop(http.abort))
        yield


def _nothing() -> None: ...


def _utc_now() -> datetime:
    return datetime.now(UTC)
