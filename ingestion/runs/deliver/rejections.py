"""Rows that a destination would not take: written to quarantine one by one, with the record and the reason."""

from collections import defaultdict
from collections.abc import Sequence

from ingestion.models import Delivery, Part
from ingestion.ports.errors import SinkRejected
from ingestion.ports.publication import Receipt, Rejection
from ingestion.runs.record.lake import open_lake
from ingestion.runs.record.manifests import part_view
from ingestion.runs.record.parts import make_part


def store_rejected(delivery: Delivery, receipt: Receipt) -> list[Part]:
    """Return the unsaved rows of the parts that hold the refused records, their objects stored.

    SinkRejected where the receipt counts other rows than it names: each refused row must be found again.
    """
    if len(receipt.rejections) != receipt.rejected:
        raise SinkRejected(
            "sink.refusals_unnamed",
            destination=delivery.destination.name,
            named=len(receipt.rejections),
            rejected=receipt.rejected,
        )
    by_part: dict[str, list[Rejection]] = defaultdict(list)
    for rejection in receipt.rejections:
        by_part[rejection.part].append(rejection)
    if not by_part:
        return []
    clean = Part.objects.filter(run=delivery.run, zone=Part.Zone.CLEAN).order_by("lane", "link", "seq")
    return [_store(delivery, part, by_part[part_view(part).name]) for part in clean if part_view(part).name in by_part]


def replace_rejected(delivery: Delivery, parts: Sequence[Part]) -> None:
    """Let `parts` be what the delivery's destination refused, in the caller's transaction."""
    stored = Part.objects.filter(delivery=delivery)
    if parts or stored.exists():
        stored.delete()
        Part.objects.bulk_create(parts)


def _store(delivery: Delivery, part: Part, rejections: Sequence[Rejection]) -> Part:
    import pyarrow.parquet as pq  # noqa: PLC0415 (heavy, and few deliveries have any)

    from ingestion.quality.parts import write_rejected  # noqa: PLC0415
    from ingestion.quality.rejects import reject_rows  # noqa: PLC0415

    with open_lake().open(part.key) as stored:
        table = pq.read_table(stored)
    ordered = sorted(rejections, key=lambda rejection: rejection.index)
    refused = make_part(
        delivery.run,
        Part.Zone.REFUSED,
        lane=part.lane,
        link=part.link,
        seq=part.seq,
        table=reject_rows(table, ordered),
        write=write_rejected,
    )
    refused.delivery = delivery
    return refused
