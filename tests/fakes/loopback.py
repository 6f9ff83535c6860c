"""A Context with the real HTTP client, allowed to reach loopback servers only, and nothing shared behind it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ingestion.ports.context import Context
from ingestion.toolkit.http.client import Http
from ingestion.toolkit.http.egress import EgressPolicy
from tests.conformance.context import RecordingContext


@contextmanager
def loopback_context(*addresses: str, recording: RecordingContext | None = None, **options: Any) -> Iterator[Context]:
    """Yield a context whose client may reach these addresses; `recording` keeps events, progress and slow-downs."""
    kept = recording or RecordingContext()
    policy = EgressPolicy(allow=tuple(urlsplit(address).netloc for address in addresses))
    with Http(policy, limiter=kept.limiter, limit_key="source:test", **options) as http:
        yield replace(kept.context, http=http)
