"""Rows of a run as the ports' values: query, spec, part, manifest and delivery, and the manifests that are a pipeline's state."""

import json
from collections.abc import Collection, Mapping, Sequence

from django.db.models import Q, Subquery

from ingestion.models import PUBLISHED_RUN_STATES, Delivery, Part, Partition, Pipeline, Run, RunState
from ingestion.ports.batch import PartitionSpec, Query, StoredInput
from ingestion.ports.errors import Refused
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, PartView, WriteMode
from ingestion.ports.schema import ContractBody


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


def part_view(part: Part) -> PartView:
    """Return a clean part as a sink sees it."""
    return PartView(
        key=part.key,
        lane=part.lane,
        link=part.link,
        seq=part.seq,
        rows=part.rows or 0,
        size_bytes=part.size_bytes,
        sha256=part.sha256,
        hashes=part.hashes_key,
    )


def contract_body(run: Run) -> ContractBody:
    """Return the contract the run was checked against; one without columns where nothing was read."""
    if run.contract is None:
        return ContractBody(name=run.pipeline.name)
    return ContractBody.model_validate(run.contract.body)


def write_mode(run: Run) -> WriteMode:
    """Return what the run's publication does with the rows of earlier ones."""
    if run.mode == Pipeline.Mode.FULL_REFRESH:
        return WriteMode.REPLACE
    return WriteMode.MERGE if contract_body(run).key else WriteMode.APPEND


def logical_time(run: Run) -> str:
    """Return the time that the run's data are for: its slot, else when it was asked for."""
    return (run.slot or run.created_at).isoformat()


def manifest_of(run: Run) -> Manifest:
    """Return the run's manifest, parts in (lane, link, seq) order."""
    parts = tuple(
        part_view(part)
        for part in Part.objects.filter(run=run, zone=Part.Zone.CLEAN, rows__gt=0).order_by("lane", "link", "seq")
    )
    return Manifest(
        run_id=run.pk,
        pipeline=run.pipeline.name,
        mode=write_mode(run),
        contract=contract_body(run),
        contract_version=run.contract.version if run.contract else 0,
        parts=parts,
        rows=sum(part.rows for part in parts),
        logical_time=logical_time(run),
    )


def delivery_view(delivery: Delivery, run: Run) -> DeliveryView:
    """Return the delivery as its sink sees it."""
    return DeliveryView(
        id=delivery.pk,
        run_id=run.pk,
        pipeline=run.pipeline.name,
        pipeline_id=run.pipeline_id,
        destination=delivery.destination.name,
        mode=write_mode(run),
        contract=contract_body(run),
        state=DeliveryState(delivery.state),
        attempt=delivery.attempt,
        logical_time=logical_time(run),
        refs=delivery.refs,
        polls=delivery.polls,
    )


class PublishedManifests:
    """The manifests of a pipeline's runs, as `ports.context.PublishedRuns` gives them to a sink."""

    def delivered(self, delivery: DeliveryView) -> Sequence[Manifest]:
        """Return what the destination holds of the pipeline beside this delivery, in the order of runs."""
        verified = Delivery.objects.filter(
            destination__name=delivery.destination, run__pipeline=delivery.pipeline_id, state=DeliveryState.VERIFIED
        ).exclude(pk=delivery.id)
        found: list[Manifest] = []
        # By the number: "-run" would turn the order of runs, newest first, around.
        for row in verified.select_related("run__pipeline", "run__contract").order_by("-run_id").iterator():
            found.append(manifest_of(row.run))
            if found[-1].mode is WriteMode.REPLACE:
                break
        return found[::-1]

    def manifests(self, run_ids: Collection[int], *, pipeline_id: int) -> Mapping[int, Manifest | None]:
        """Return what each run of the pipeline published or is about to; None for one that was withdrawn."""
        shown = {*PUBLISHED_RUN_STATES, RunState.DELIVERING, RunState.LOADING, RunState.PUBLISHING}
        runs = Run.objects.select_related("pipeline", "contract").filter(pk__in=run_ids, pipeline=pipeline_id)
        return {run.pk: manifest_of(run) if run.state in shown else None for run in runs}


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the manifest as JSON text; the same manifest gives the same bytes."""
    document = {
        "version": 1,
        "run": manifest.run_id,
        "pipeline": manifest.pipeline,
        "mode": manifest.mode,
        "contract": {"name": manifest.contract.name, "version": manifest.contract_version},
        "logical_time": manifest.logical_time,
        "rows": manifest.rows,
        "parts": [
            {
                "key": part.key,
                "lane": part.lane,
                "link": part.link,
                "rows": part.rows,
                "bytes": part.size_bytes,
                "sha256": part.sha256,
            }
            for part in manifest.parts
        ],
    }
    return json.dumps(document, indent=1, sort_keys=True).encode()


_PUBLISHED = Q(published_at__isnull=False)
"""Not by the run's state alone: a partial run that a retry has reopened was published, and readers go on seeing it."""


def published_runs(pipeline: Pipeline, *, until: Run | None = None) -> list[Run]:
    """Return the runs of the published state in their order: the last full refresh, and what came after it.

    With `until`, the state that this run's publication left behind. It never changes: a run that was created before
    and published after is no part of it. Empty where nothing was published.
    """
    runs = Run.objects.filter(_PUBLISHED, pipeline=pipeline).select_related("pipeline", "contract")
    if until is not None:
        # Compared in the database: SQLite compares text, and would not find 12:00:05.000 to be Python's 12:00:05.
        at = Subquery(Run.objects.filter(pk=until.pk).values("published_at"))
        runs = runs.filter(Q(published_at__lt=at) | Q(published_at=at, pk__lte=until.pk))
    found: list[Run] = []
    for run in runs.order_by("-pk").iterator(chunk_size=100):
        found.append(run)
        if write_mode(run) == WriteMode.REPLACE:
            break
    return found[::-1]


def published_state(pipeline: Pipeline, *, until: Run | None = None) -> list[Manifest]:
    """Return the manifests of the published state in their order.

    Where they merge by key, a reader takes of each key the row of the latest run.
    """
    return [manifest_of(run) for run in published_runs(pipeline, until=until)]


def latest_publication(pipeline: Pipeline) -> Run | None:
    """Return the run whose publication made the state what it is now, or None where nothing was published."""
    published = Run.objects.filter(_PUBLISHED, pipeline=pipeline).select_related("pipeline", "contract")
    return published.order_by("-published_at", "-pk").first()


def ensure_published(run: Run) -> None:
    """Raise Refused unless the run was published."""
    if run.published_at is None and run.state not in PUBLISHED_RUN_STATES:
        raise Refused("run.not_published", run=run.pk)
