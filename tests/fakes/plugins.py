"""A connector and a sink without a network, for tests of the use cases; faults by their settings."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import pyarrow as pa
from pydantic import BaseModel, SecretStr

from ingestion.ports.batch import Cursor, Page, PartitionSpec, Query, Records
from ingestion.ports.check import CheckReport, Finding
from ingestion.ports.connector import Stream
from ingestion.ports.context import Context
from ingestion.ports.errors import RateLimited, SinkRejected, SinkUnavailable, SourceRejected, SourceUnavailable
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, PartView, Receipt, WriteMode
from ingestion.ports.sink import Capabilities, CommitStep

CALLS: list[str] = []
"""What was asked of the plugins, in order; a test clears it."""
TROUBLE: dict[str, int] = {}
"""How often a named trouble is still to happen."""


def trouble(name: str) -> bool:
    """Return whether the named trouble happens now, and count it."""
    left = TROUBLE.get(name, 0)
    if left:
        TROUBLE[name] = left - 1
    return left > 0


class PagesConnector:
    """Serves `lanes` x `pages` pages of `per_page` records; record ids count up over all of them."""

    kind: ClassVar[str] = "pages"

    class Config(BaseModel):
        """How much there is, which id comes twice, and the total that each page announces."""

        lanes: int = 1
        pages: int = 3
        per_page: int = 4
        repeat_id: int | None = None
        totals: list[int | None] = []
        token: SecretStr | None = None

    def __init__(self, config: Config) -> None:
        self._config = config

    def streams(self) -> Sequence[Stream]:
        """Return the one stream."""
        return (Stream("items", key=("id",), cursor_field="version"),)

    def check(self, ctx: Context) -> CheckReport:
        """Return that all is well."""
        return CheckReport((Finding("pages", ok=True, elapsed_ms=0.0),))

    def plan(self, query: Query, since: Cursor | None, ctx: Context) -> Iterable[PartitionSpec]:
        """Yield one partition per lane."""
        if trouble("plan.unavailable"):
            raise SourceUnavailable("source.unavailable", host="pages", detail="asked for")
        for lane in range(self._config.lanes):
            yield PartitionSpec(lane, {"lane": lane, "since": dict(since) if since else None})

    def fetch(self, spec: PartitionSpec, cursor: Cursor | None, ctx: Context) -> Iterator[Page]:
        """Yield the lane's pages from the cursor on."""
        config = self._config
        for page in range(cursor["page"] if cursor else 0, config.pages):
            ctx.beat()
            if trouble("fetch.unavailable"):
                raise SourceUnavailable("source.unavailable", host="pages", detail="asked for")
            if trouble("fetch.limited"):
                raise RateLimited("source.rate_limited", host="pages", retry_after_s=1)
            if trouble("fetch.rejected"):
                raise SourceRejected("source.rejected", host="pages", status=400, detail="asked for")
            if trouble("fetch.defect"):
                raise ZeroDivisionError
            CALLS.append(f"page {spec.lane}/{page}")
            first = (spec.lane * config.pages + page) * config.per_page
            ids = [
                config.repeat_id if config.repeat_id is not None and i == 0 else first + i
                for i in range(config.per_page)
            ]
            body = json.dumps([{"id": n, "name": f"n{n}", "version": f"2026-01-{page + 1:02d}T00:00:00Z"} for n in ids])
            following = {"page": page + 1} if page + 1 < config.pages else None
            total = config.totals[page] if page < len(config.totals) else None
            url = f"pages://{spec.lane}/{page}"
            yield Page(body.encode(), following, url=url, record_count=config.per_page, total=total)

    def standardize(self, records: Records, stream: Stream) -> pa.Table:
        """Return the records as columns."""
        rows = [
            {**record, "_row": number, "_page": page.seq}
            for page in records.pages
            for number, record in enumerate(json.loads(page.read()))
        ]
        for number, row in enumerate(rows):
            row["_row"] = number
        schema = pa.schema(
            [
                ("id", pa.int64()),
                ("name", pa.string()),
                ("version", pa.string()),
                ("_row", pa.int64()),
                ("_page", pa.int32()),
            ]
        )
        return pa.Table.from_pylist(rows, schema=schema)

    def checkpoint(self, spec: PartitionSpec, since: Cursor | None, high_water: str | None) -> Cursor | None:
        """Return the greatest version."""
        return {"version": high_water} if high_water else None


class MemorySink:
    """Keeps parts in memory; what is committed can be counted."""

    kind: ClassVar[str] = "memory"
    capabilities = Capabilities(frozenset(WriteMode))
    staged: ClassVar[dict[tuple[int, str], int]] = {}
    committed: ClassVar[dict[int, int]] = {}
    next_poll_s: ClassVar[float] = 0.01

    class Config(BaseModel):
        """Nothing to set."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def check(self, ctx: Context) -> CheckReport:
        """Return that all is well."""
        return CheckReport((Finding("memory", ok=True, elapsed_ms=0.0),))

    def stage(self, part: PartView, delivery: DeliveryView, ctx: Context) -> Receipt:
        """Note the part."""
        if trouble("stage.unavailable"):
            raise SinkUnavailable("sink.unavailable", destination=delivery.destination, detail="asked for")
        CALLS.append(f"stage {part.name}")
        self.staged[delivery.run_id, part.name] = part.rows
        return Receipt(inserted=part.rows)

    def commit(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        """Make the parts visible, after a look or two where asked for."""
        if trouble("commit.rejected"):
            raise SinkRejected("sink.rejected", destination=delivery.destination, detail="asked for")
        if trouble("commit.later"):
            return CommitStep(DeliveryState.SUBMITTED, next_poll_s=self.next_poll_s, refs={"task": "t1"})
        CALLS.append(f"commit {manifest.run_id}")
        self.committed[manifest.run_id] = sum(self.staged[manifest.run_id, part.name] for part in manifest.parts)
        return CommitStep(DeliveryState.AVAILABLE, receipt=Receipt(inserted=self.committed[manifest.run_id]))

    def count(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> int:
        """Return the committed rows, less one where asked for."""
        return self.committed.get(manifest.run_id, 0) - (1 if trouble("count.short") else 0)

    def abort(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> None:
        """Forget the run's parts."""
        CALLS.append(f"abort {manifest.run_id}")
        for key in [key for key in self.staged if key[0] == manifest.run_id]:
            del self.staged[key]
        self.committed.pop(manifest.run_id, None)
