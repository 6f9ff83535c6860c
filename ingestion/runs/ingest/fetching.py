"""The fetch stage: pages become raw parts, committed together with the cursor, page by page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Sum
from django.db.models.functions import Now

from ingestion import dispatch, registry
from ingestion.models import Part, Partition, PartitionState, Run
from ingestion.ports.batch import Page
from ingestion.ports.errors import SourceChanged
from ingestion.runs.ingest import completion
from ingestion.runs.record import events
from ingestion.runs.record.lake import open_lake, part_key, sha256_hex
from ingestion.runs.record.views import spec_of
from ingestion.runs.work.attempts import Outcome, attempt
from ingestion.runs.work.contexts import source_context
from ingestion.runs.work.leases import Lease, claim_partition
from ingestion.runs.work.task_messages import fetch_message, validate_message
from ingestion.toolkit.failpoints import failpoint

_ZSTD_LEVEL = 3
_MOST_RECORDS = 10**15
"""No source is believed that announces more; sums of such numbers still fit their column."""


def fetch_partition(partition_id: int, *, is_chained: bool) -> Outcome:
    """Fetch the partition's remaining pages; the successor is sent here unless a chain does it.

    Safe to call twice, at once and late: only the holder of the lease writes, and only while it holds it.
    """
    lease = claim_partition(partition_id, stage=Partition.Stage.FETCH)
    if lease is None:
        return Outcome.NOT_MINE
    failpoint("fetch.claimed")
    partition = Partition.objects.select_related("run__pipeline__source").get(pk=partition_id)
    priority = partition.run.priority
    call = fetch_message(partition_id, priority=priority)
    outcome = attempt(
        lease, call, lambda: _fetch(partition, lease), back_to=PartitionState.PENDING, fail=completion.fail_partition
    )
    failpoint("fetch.before_successor")
    if outcome is Outcome.DONE and not is_chained:
        dispatch.send(validate_message(partition_id, priority=priority))
    if outcome is Outcome.FAILED:
        completion.complete_if_last(partition.run_id)
    return outcome


def _fetch(partition: Partition, lease: Lease) -> None:
    source = partition.run.pipeline.source
    connector = registry.build_connector(source)
    with source_context(source, lease) as ctx:
        _store_pages(partition, lease, connector.fetch(spec_of(partition), partition.cursor, ctx))


def _store_pages(partition: Partition, lease: Lease, pages: Iterator[Page]) -> None:
    """Store every page and commit it with the cursor; close the partition at its end, or where it is cut."""
    run = partition.run
    seq, raw_bytes = partition.next_seq, partition.raw_bytes
    expected = _expectation(partition)
    for page in pages:
        lease.beat(is_resumed=False)
        part = _store(run, partition, page, seq=seq)
        seq, raw_bytes = seq + 1, raw_bytes + (len(page.body) if page.stored is None else page.stored.length)
        for warning in page.warnings:
            events.record(run.pk, "source.warning", level="warning", message=warning, lane=partition.lane)
        is_last = page.next_cursor is None
        is_cut = not is_last and raw_bytes >= settings.HEADGATE_PARTITION_BYTES
        expected.take(page)
        with transaction.atomic():
            if is_last or is_cut:
                _close(lease, seq=seq, raw_bytes=raw_bytes, expected_records=expected.at_end)
            else:
                lease.change(
                    cursor=page.next_cursor,
                    next_seq=seq,
                    raw_bytes=raw_bytes,
                    expected_records=expected.records,
                    attempt=0,
                )
            part.save(force_insert=True)
            if is_cut:
                _continue(partition, page, expected_records=expected.beyond)
            failpoint("fetch.before_commit")
        failpoint("fetch.after_commit")
        if is_last or is_cut:
            return
        # After the commit, so that a slot that is due has lost nothing.
        lease.beat()
    # No last page came: the connector was told to stop between two pages, or had nothing to say at all.
    lease.beat()
    if seq:
        raise SourceChanged("source.ended_early", pages=seq)
    _close(lease, seq=seq, raw_bytes=raw_bytes, expected_records=expected.at_end)


@dataclass
class _Expectation:
    """The records a partition will have, by what the source announces for its lane; never fewer than were read.

    `before` were read by the lane's earlier links. None: not known, as a page did not say how many it holds.
    """

    before: int | None
    read: int | None
    records: int | None

    def take(self, page: Page) -> None:
        """Count the page, and believe the newest total it tells."""
        if page.record_count is None or self.read is None:
            self.read = None
            return
        self.read += page.record_count
        if page.total is not None and self.before is not None:
            self.records = min(page.total, _MOST_RECORDS) - self.before
        if self.records is not None:
            self.records = max(self.records, self.read)

    @property
    def at_end(self) -> int | None:
        """Return what the partition has now that nothing more is read into it."""
        return self.records if self.read is None else self.read

    @property
    def beyond(self) -> int | None:
        """Return what is left for the lane's next link."""
        return None if self.read is None or self.records is None else self.records - self.read


def _expectation(partition: Partition) -> _Expectation:
    earlier = Partition.objects.filter(run_id=partition.run_id, lane=partition.lane, link__lt=partition.link)
    counted = earlier.aggregate(
        links=Count("pk"), known=Count("expected_records"), sum=Sum("expected_records", default=0)
    )
    own = Part.objects.filter(run_id=partition.run_id, zone=Part.Zone.RAW, lane=partition.lane, link=partition.link)
    read = [page.get("records") for pages in own.values_list("pages", flat=True) for page in pages]
    return _Expectation(
        before=counted["sum"] if counted["links"] == counted["known"] else None,
        read=None if None in read else sum(read),
        records=partition.expected_records,
    )


def _store(run: Run, partition: Partition, page: Page, *, seq: int) -> Part:
    """Return the part of a page, its object stored; the row is the caller's to write."""
    index: dict[str, Any] = {
        "url": page.url,
        "status": page.status,
        "headers": dict(page.headers),
        "records": page.record_count,
        "offset": 0,
    }
    where = {"run": run, "zone": Part.Zone.RAW, "lane": partition.lane, "link": partition.link, "seq": seq}
    if page.stored is not None:
        span = page.stored
        return Part(
            key=span.key, offset=span.offset, size_bytes=span.length, sha256=span.sha256, pages=[index], **where
        )
    import zstandard  # noqa: PLC0415 (only workers have bodies to store)

    body = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compress(page.body)
    digest = sha256_hex(body)
    key = part_key(
        run, zone=Part.Zone.RAW, lane=partition.lane, link=partition.link, seq=seq, sha256=digest, extension="zst"
    )
    failpoint("fetch.before_put")
    open_lake().put_if_absent(key, body, sha256=digest)
    failpoint("fetch.after_put")
    index |= {"length": len(page.body), "sha256": sha256_hex(page.body)}
    return Part(key=key, size_bytes=len(body), sha256=digest, pages=[index], **where)


def _close(lease: Lease, *, seq: int, raw_bytes: int, expected_records: int | None) -> None:
    lease.release(
        to=PartitionState.PENDING,
        stage=Partition.Stage.VALIDATE,
        next_seq=seq,
        raw_bytes=raw_bytes,
        expected_records=expected_records,
        attempt=0,
        not_before=None,
        sent_at=Now(),
    )


def _continue(partition: Partition, page: Page, *, expected_records: int | None) -> None:
    """Insert the next link of the lane, which begins where this one was cut."""
    following = Partition.objects.create(
        run_id=partition.run_id,
        lane=partition.lane,
        link=partition.link + 1,
        spec=partition.spec,
        label=partition.label,
        cursor=page.next_cursor,
        expected_records=expected_records,
        sent_at=Now(),
    )
    dispatch.send_after_commit(fetch_message(following.pk, priority=partition.run.priority))
