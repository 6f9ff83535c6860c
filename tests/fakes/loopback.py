"""A Context with the real HTTP client, allowed to reach loopback servers only, and nothing shared behind it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self
from urllib.parse import urlsplit

from ingestion.ports.context import Context, HttpResponse
from ingestion.toolkit.http.client import Http
from ingestion.toolkit.http.egress import EgressPolicy
from tests.conformance.context import RecordingContext, SentRequest


@contextmanager
def loopback_context(*addresses: str, recording: RecordingContext | None = None, **options: Any) -> Iterator[Context]:
    """Yield a context whose client may reach these addresses; `recording` keeps events, progress and slow-downs."""
    kept = recording or RecordingContext()
    policy = EgressPolicy(allow=tuple(urlsplit(address).netloc for address in addresses))
    with Http(policy, limiter=kept.limiter, limit_key="source:test", **options) as http:
        yield replace(kept.context, http=http)


class LoopbackRecording(RecordingContext):
    """A recording context whose requests go to a server on loopback, over the real client."""

    def __init__(self, address: str) -> None:
        super().__init__()
        policy = EgressPolicy(allow=(urlsplit(address).netloc,))
        self.client = Http(policy, limiter=self.limiter, limit_key="source:test", sleep=lambda _: None)
        self.http = _RecordedHttp(self.client)  # type: ignore[assignment]
        self.context = replace(self.context, http=self.http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.client.close()


class _RecordedHttp:
    """The client, and what was asked of it."""

    def __init__(self, client: Http) -> None:
        self._client = client
        self.requests: list[SentRequest] = []
        self.post, self.probe = client.post, client.probe
        self.slow_down, self.variant = client.slow_down, client.variant

    def get(self, url: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> HttpResponse:
        self.requests.append(SentRequest("GET", url, dict(headers or {})))
        found = self._client.get(url, headers=headers, **options)
        # a server's clock goes on between two reads that are compared
        return replace(found, headers={name: text for name, text in found.headers.items() if name != "date"})
