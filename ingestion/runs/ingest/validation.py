"""The validate stage: raw parts become a clean part and a rejected part, without asking the source."""

import io
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from django.db import transaction
from django.db.models.functions import Now

from ingestion import registry
from ingestion.models import Contract, Part, Partition, PartitionState, Run
from ingestion.ports.batch import RawPage, Records
from ingestion.ports.connector import Stream
from ingestion.ports.errors import RateLimited, StoreCorrupt
from ingestion.ports.schema import ContractBody
from ingestion.quality.contracts import compile_contract
from ingestion.quality.draft import draft_contract
from ingestion.quality.parts import write_clean, write_rejected
from ingestion.runs.ingest import completion
from ingestion.runs.record import events
from ingestion.runs.record.lake import make_part, open_lake, put_hashes, sha256_hex
from ingestion.runs.record.views import query_of, spec_of
from ingestion.runs.start import contracts
from ingestion.runs.work.attempts import Outcome, attempt
from ingestion.runs.work.leases import Lease, claim_partition
from ingestion.runs.work.task_messages import validate_message
from ingestion.toolkit.failpoints import failpoint

if TYPE_CHECKING:
    import pyarrow as pa

    from ingestion.quality.checking import Verdict

CONTRACT_WAIT_S = 2.0


def validate_partition(partition_id: int) -> Outcome:
    """Standardize and check the partition's raw parts, store what came of them, and complete the run if it was the last.

    Safe to call twice, at once and late: the same raw parts give the same objects under the same keys, and only
    the holder of the lease writes their rows.
    """
    lease = claim_partition(partition_id, stage=Partition.Stage.VALIDATE)
    if lease is None:
        return Outcome.NOT_MINE
    failpoint("validate.claimed")
    partition = Partition.objects.select_related("run__pipeline__source", "run__contract").get(pk=partition_id)
    outcome = attempt(
        lease,
        validate_message(partition_id, priority=partition.run.priority),
        lambda: _validate(partition, lease),
        back_to=PartitionState.PENDING,
        fail=completion.fail_partition,
    )
    if outcome in (Outcome.DONE, Outcome.FAILED):
        completion.complete_if_last(partition.run_id)
    return outcome


def _validate(partition: Partition, lease: Lease) -> None:
    run = partition.run
    source = run.pipeline.source
    stream = registry.find_stream(source, run.pipeline.stream)
    raw = list(Part.objects.filter(run=run, zone=Part.Zone.RAW, lane=partition.lane, link=partition.link))
    records = Records(pages=[_page(part) for part in raw], spec=spec_of(partition), query=query_of(run))
    table = registry.build_connector(source).standardize(records, stream)
    lease.beat(is_resumed=False)
    contract = _contract(run, partition, table, stream)
    verdict = compile_contract(contract).check(
        table,
        run_id=run.pk,
        part=f"{partition.lane}-{partition.link}",
        is_file=stream.is_file,
        cursor_field=stream.cursor_field,
    )
    del table
    lease.beat(is_resumed=False)
    failpoint("validate.before_put")
    parts = _store(partition, verdict, contract)
    with transaction.atomic():
        lease.release(
            to=PartitionState.DONE,
            **asdict(verdict.counts),
            high_water=verdict.high_water,
            finished_at=Now(),
        )
        Part.objects.bulk_create(parts)
        for warning in verdict.warnings:
            events.record(run.pk, "contract.warning", level="warning", message=warning, lane=partition.lane)
        failpoint("validate.before_commit")
    failpoint("validate.after_commit")


def _contract(run: Run, partition: Partition, table: "pa.Table", stream: Stream) -> ContractBody:
    """Return the run's contract; without one, the first partition drafts it and the others wait for that."""
    if run.contract is None:
        run.contract = Contract.objects.filter(runs=run.pk).first()
    if run.contract is not None:
        return ContractBody.model_validate(run.contract.body)
    if stream.schema is not None:
        body = stream.schema
    elif _is_first(partition):
        body = _with_key(draft_contract(table, name=run.pipeline.name), stream)
    else:
        raise RateLimited("contract.awaited", retry_after_s=CONTRACT_WAIT_S)
    run.contract = contracts.adopt_draft(run, body)
    return ContractBody.model_validate(run.contract.body)


def _is_first(partition: Partition) -> bool:
    """Return whether no partition before this one may still succeed."""
    candidates = Partition.objects.filter(run=partition.run_id).exclude(state=PartitionState.FAILED)
    first = candidates.order_by("lane", "link").values_list("pk", flat=True).first()
    return first == partition.pk


def _with_key(draft: ContractBody, stream: Stream) -> ContractBody:
    """Return the draft with the key that the stream declares, if its columns are there."""
    if not stream.key or any(draft.column(name) is None for name in stream.key):
        return draft
    return draft.model_copy(update={"key": stream.key})


def _page(part: Part) -> RawPage:
    index = part.pages[0] if part.pages else {}
    is_span = not part.key.startswith(f"{Part.Zone.RAW}/")
    return RawPage(
        seq=part.seq,
        url=index.get("url", ""),
        read=partial(_read_span, part) if is_span else partial(_read_body, part),
        open=partial(_open_object, part) if is_span else lambda: io.BytesIO(_read_body(part)),
        offset=part.offset,
        length=part.size_bytes if is_span else index.get("length", 0),
    )


def _read_span(part: Part) -> bytes:
    return open_lake().read(part.key, offset=part.offset, length=part.size_bytes)


def _read_body(part: Part) -> bytes:
    import zstandard  # noqa: PLC0415 (only workers have bodies to store)

    stored = open_lake().read(part.key)
    if sha256_hex(stored) != part.sha256:
        raise StoreCorrupt("store.corrupt", key=part.key, detail="SHA-256 differs")
    return zstandard.ZstdDecompressor().decompress(stored, max_output_size=part.pages[0]["length"] + 1)


def _open_object(part: Part) -> BinaryIO:
    return open_lake().open(part.key)


def _store(partition: Partition, verdict: "Verdict", contract: ContractBody) -> list[Part]:
    """Return the rows of the objects that hold the verdict, the objects stored."""
    where = {"lane": partition.lane, "link": partition.link, "seq": 0}
    parts = []
    if verdict.clean.num_rows:
        clean = make_part(partition.run, Part.Zone.CLEAN, table=verdict.clean, write=write_clean, **where)
        failpoint("validate.after_put_clean")
        if contract.key:
            from ingestion.toolkit.clean.keys import hash_keys  # noqa: PLC0415 (heavy)

            clean.hashes_key = put_hashes(clean, hash_keys(verdict.clean, contract.key, time=contract.time))
            failpoint("validate.after_put_hashes")
        parts.append(clean)
    if verdict.rejected.num_rows:
        parts.append(
            make_part(partition.run, Part.Zone.REJECTED, table=verdict.rejected, write=write_rejected, **where)
        )
        failpoint("validate.after_put_rejected")
    return parts
