"""The bundled sample: its measurements through an upload, its structures through the demo provider's pipeline."""

from pathlib import Path

from ingestion import registry
from ingestion.models import PUBLISHED_RUN_STATES, Delivery, Pipeline, Run, RunState, Source
from ingestion.ports.errors import Refused
from ingestion.runs.operate.retry import retry_run, roll_back
from ingestion.runs.start.creation import create_run
from ingestion.runs.start.pipelines import default_destinations, druid_destination
from ingestion.runs.start.uploads import ingest_upload, receive

SOURCE = "demo-optimade"
PIPELINE = "demo-structures"
MEASUREMENTS_PIPELINE = "measurements"
MEASUREMENTS = "measurements.csv"
CONTRACT = "measurements.yaml"


def load_measurements(folder: Path) -> Run:
    """Return the run of the sample's measurements; the same one every time, reopened where it had failed.

    Where it was published before there was a Druid, it is a run that publishes the same rows once more, there too.
    """
    with (folder / MEASUREMENTS).open("rb") as file:
        upload, _ = receive(file.read, name=MEASUREMENTS)
    contract = (folder / CONTRACT).read_text(encoding="utf-8")
    _add_druid(MEASUREMENTS_PIPELINE)
    run, _ = ingest_upload(upload, trigger=Run.Trigger.CLI, contract=contract)
    return _brought_to_druid(_reopened(run))


def load_structures(*, port: int) -> Run:
    """Return the first run of the demo pipeline, made where there is none; as with the measurements otherwise."""
    _add_druid(PIPELINE)
    pipeline = _demo_pipeline(port=port)
    key = f"sample:{pipeline.pk}"
    if cancelled := Run.objects.filter(idempotency_key__startswith=key, state=RunState.CANCELLED).count():
        key = f"{key}:{cancelled}"
    run, _ = create_run(pipeline, trigger=Run.Trigger.CLI, idempotency_key=key)
    return _brought_to_druid(_reopened(run))


def move_demo_source(*, port: int) -> None:
    """Tell the demo source, if it was made, on which port of this machine its provider listens now."""
    for source in Source.objects.filter(name=SOURCE, kind=registry.own_kind(SOURCE)):
        config = {**source.config, "base_url": _address(port)}
        if config != source.config:
            source.config = config
            source.save(update_fields=["config", "updated_at"])


def _demo_pipeline(*, port: int) -> Pipeline:
    move_demo_source(port=port)
    source, _ = Source.objects.get_or_create(
        name=SOURCE, defaults={"kind": registry.own_kind(SOURCE), "config": {"base_url": _address(port)}}
    )
    pipeline, is_new = Pipeline.objects.get_or_create(
        name=PIPELINE,
        defaults={"source": source, "stream": "structures", "mode": Pipeline.Mode.INCREMENTAL},
    )
    if is_new:
        pipeline.destinations.set(default_destinations())
    return pipeline


def _address(port: int) -> str:
    return f"http://127.0.0.1:{port}/optimade"


def _add_druid(name: str) -> None:
    """Let a pipeline of the sample deliver to Druid too, where Druid came after it."""
    if druid := druid_destination():
        for pipeline in Pipeline.objects.filter(name=name):
            pipeline.destinations.add(druid)


def _brought_to_druid(run: Run) -> Run:
    """Return the run, or the one that publishes its rows again where it ended before there was a Druid."""
    druid = druid_destination()
    if druid is None:
        return run
    again = Run.objects.filter(republishes=run).exclude(state=RunState.CANCELLED).order_by("-pk").first()
    latest = _reopened(again) if again is not None else run
    if latest.state not in PUBLISHED_RUN_STATES or Delivery.objects.filter(run=latest, destination=druid).exists():
        return latest
    return roll_back(run.pk)


def _reopened(run: Run) -> Run:
    if run.state not in (RunState.FAILED, RunState.PARTIAL):
        return run
    try:
        return retry_run(run.pk, by="load_sample")
    except Refused:
        # A later run of the pipeline was published since, so this one stays what it is.
        return run
