"""The rows of a run as the ports' values: a run's query, a partition's spec."""

from ingestion.models import Partition, Run
from ingestion.ports.batch import PartitionSpec, Query, StoredInput


def query_of(run: Run) -> Query:
    """Return the run's question as its connector gets it."""
    asked = run.query
    return Query(
        stream=run.pipeline.stream,
        filter=asked.get("filter"),
        fields=tuple(asked.get("fields") or ()),
        limit=asked.get("limit"),
        inputs=tuple(
            StoredInput(key=upload.key, name=upload.name, size_bytes=upload.size_bytes, sha256=upload.sha256 or "")
            for upload in run.uploads.order_by("pk")
        ),
        options=asked.get("options") or {},
    )


def spec_of(partition: Partition) -> PartitionSpec:
    """Return the partition as its connector described it."""
    return PartitionSpec(
        lane=partition.lane,
        data=partition.spec,
        label=partition.label,
        expected_records=partition.expected_records,
    )
