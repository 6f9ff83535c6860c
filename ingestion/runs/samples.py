"""The bundled sample: its measurements through an upload, its structures through the demo provider's pipeline."""

from pathlib import Path

from ingestion.models import Pipeline, Run, RunState, Source
from ingestion.ports.errors import Refused
from ingestion.runs.creation import create_run
from ingestion.runs.pipelines import default_destinations
from ingestion.runs.recovery import retry_run
from ingestion.runs.uploads import ingest_upload, receive

SOURCE = "demo-optimade"
PIPELINE = "demo-structures"
MEASUREMENTS = "measurements.csv"
CONTRACT = "measurements.yaml"


def load_measurements(folder: Path) -> Run:
    """Return the run of the sample's measurements; the same one every time, reopened where it had failed."""
    with (folder / MEASUREMENTS).open("rb") as file:
        upload, _ = receive(file.read, name=MEASUREMENTS)
    contract = (folder / CONTRACT).read_text(encoding="utf-8")
    run, _ = ingest_upload(upload, trigger=Run.Trigger.CLI, contract=contract)
    return _reopened(run)


def load_structures(*, port: int) -> Run:
    """Return the first run of the demo pipeline, made where there is none; reopened where it had failed."""
    pipeline = _demo_pipeline(port=port)
    key = f"sample:{pipeline.pk}"
    if cancelled := Run.objects.filter(idempotency_key__startswith=key, state=RunState.CANCELLED).count():
        key = f"{key}:{cancelled}"
    run, _ = create_run(pipeline, trigger=Run.Trigger.CLI, idempotency_key=key)
    return _reopened(run)


def move_demo_source(*, port: int) -> None:
    """Tell the demo source, if it was made, on which port of this machine its provider listens now."""
    for source in Source.objects.filter(name=SOURCE, kind="optimade"):
        config = {**source.config, "base_url": _address(port)}
        if config != source.config:
            source.config = config
            source.save(update_fields=["config", "updated_at"])


def _demo_pipeline(*, port: int) -> Pipeline:
    move_demo_source(port=port)
    source, _ = Source.objects.get_or_create(
        name=SOURCE, defaults={"kind": "optimade", "config": {"base_url": _address(port)}}
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


def _reopened(run: Run) -> Run:
    if run.state not in (RunState.FAILED, RunState.PARTIAL):
        return run
    try:
        return retry_run(run.pk, by="load_sample")
    except Refused:
        # A later run of the pipeline was published since, so this one stays what it is.
        return run
