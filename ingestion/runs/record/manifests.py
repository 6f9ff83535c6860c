"""What a run publishes, as sinks and readers of the lake see it."""

import json
from collections.abc import Collection, Mapping, Sequence

from ingestion.models import PUBLISHED_RUN_STATES, Delivery, Part, Pipeline, Run, RunState
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, PartView, WriteMode
from ingestion.ports.schema import ContractBody


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
        for row in verified.select_related("run__pipeline", "run__contract").order_by("-run").iterator():
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
