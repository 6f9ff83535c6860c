"""Deduplication across partitions: found by merging sorted key hashes, confirmed by the keys, taken out of the parts."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import F, Max

from ingestion import registry
from ingestion.models import Part, Partition, Run
from ingestion.ports.schema import ContractBody
from ingestion.quality.keys import drop_rows, resolve_duplicates
from ingestion.quality.parts import write_clean, write_rejected
from ingestion.runs.record import events
from ingestion.runs.record.lake import make_part, open_lake, put_hashes
from ingestion.runs.record.views import part_view
from ingestion.runs.work.leases import Lease
from ingestion.toolkit.failpoints import failpoint

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from ingestion.toolkit.clean.reader import PartFile


@dataclass(frozen=True, slots=True)
class _Rewritten:
    """A clean part without its duplicates, and these as a rejected part; both objects are stored."""

    old: Part
    clean: Part
    dropped: Part
    count: int


def deduplicate(run: Run, lease: Lease) -> int:
    """Take the rows out whose key stays in another partition, rewriting only their parts; return how many.

    In files the first row stays, from APIs the one with the greatest cursor_field value, then the last; order is
    (lane, link, row), never arrival. A second call finds nothing. The control totals of the partitions follow.
    """
    if run.contract is None or run.republishes_id:
        return 0
    contract = ContractBody.model_validate(run.contract.body)
    parts = list(
        Part.objects.filter(run=run, zone=Part.Zone.CLEAN).exclude(hashes_key="").order_by("lane", "link", "seq")
    )
    if not contract.key or len(parts) < 2:  # noqa: PLR2004 (within one part there are none left)
        return 0
    from ingestion.toolkit.clean.current import find_duplicates, hashed_part  # noqa: PLC0415 (heavy)

    stream = registry.find_stream(run.pipeline.source, run.pipeline.stream)
    cursor_field = None if stream.is_file else _stored_cursor(parts[0], stream.cursor_field)
    losers = resolve_duplicates(
        find_duplicates(
            [hashed_part(open_lake(), part_view(part), number, key=contract.key) for number, part in enumerate(parts)]
        ),
        partial(_read_keys, parts, [*contract.key, *([cursor_field] if cursor_field else [])]),
        key=contract.key,
        keep="first" if stream.is_file else "latest",
        cursor_field=cursor_field,
    )
    rewritten = []
    for index, positions in losers.items():
        lease.beat(is_resumed=False)
        rewritten.append(_rewrite(run, parts[index], positions, contract))
    if rewritten:
        _replace(run, lease, rewritten)
    return sum(item.count for item in rewritten)


def _rewrite(run: Run, part: Part, positions: Any, contract: ContractBody) -> _Rewritten:
    from ingestion.quality.rejects import reject_duplicates  # noqa: PLC0415 (polars, only where there is work for it)
    from ingestion.toolkit.clean.keys import hash_keys  # noqa: PLC0415

    with _open_clean(part) as file:
        kept, dropped = drop_rows(file.table(), positions)
    clean = make_part(run, Part.Zone.CLEAN, lane=part.lane, link=part.link, seq=part.seq, table=kept, write=write_clean)
    clean.hashes_key = put_hashes(clean, hash_keys(kept, contract.key, time=contract.time))
    rejected = make_part(
        run,
        Part.Zone.REJECTED,
        lane=part.lane,
        link=part.link,
        seq=_next_rejected_seq(part),
        table=reject_duplicates(dropped, key=contract.key),
        write=write_rejected,
    )
    failpoint("deduplicate.after_put")
    return _Rewritten(part, clean, rejected, dropped.num_rows)


def _next_rejected_seq(part: Part) -> int:
    """Return the number of the partition's next rejected part: a retried run may deduplicate the same part again."""
    rejected = Part.objects.filter(run_id=part.run_id, zone=Part.Zone.REJECTED, lane=part.lane, link=part.link)
    last = rejected.aggregate(last=Max("seq"))["last"]
    return 1 if last is None else int(last) + 1


def _replace(run: Run, lease: Lease, rewritten: list[_Rewritten]) -> None:
    """Let the rows name the new objects; the old ones are named by nothing any more and are collected later."""
    with transaction.atomic():
        lease.change()
        for item in rewritten:
            Part.objects.filter(pk=item.old.pk).update(
                key=item.clean.key,
                sha256=item.clean.sha256,
                size_bytes=item.clean.size_bytes,
                rows=item.clean.rows,
                hashes_key=item.clean.hashes_key,
            )
            item.dropped.save(force_insert=True)
            Partition.objects.filter(run=run, lane=item.old.lane, link=item.old.link).update(
                accepted=F("accepted") - item.count, duplicate=F("duplicate") + item.count
            )
        events.record(run.pk, "duplicates.settled", rows=sum(item.count for item in rewritten), parts=len(rewritten))
        failpoint("deduplicate.before_commit")
    failpoint("deduplicate.after_commit")


def _open_clean(part: Part) -> "AbstractContextManager[PartFile]":
    from ingestion.toolkit.clean.reader import open_part  # noqa: PLC0415 (heavy)

    return open_part(open_lake(), part_view(part))


def _read_keys(parts: list[Part], columns: list[str], index: int, positions: Any) -> "pa.Table":
    with _open_clean(parts[index]) as file:
        return file.take(positions, columns)


def _stored_cursor(part: Part, cursor_field: str | None) -> str | None:
    """Return the cursor field if the clean parts carry it; a contract may have discarded it."""
    with _open_clean(part) as file:
        return cursor_field if cursor_field in file.schema.names else None
