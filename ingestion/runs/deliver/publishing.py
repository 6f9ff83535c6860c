"""The publication: manifest first, then everything that makes the run count in one transaction."""

from django.db import transaction
from django.db.models.functions import Now

from ingestion import checkpoints, registry
from ingestion.models import GIVEN_UP_STATES, Delivery, Partition, PartitionState, Pipeline, Run, RunState
from ingestion.ports.messages import sentence
from ingestion.runs.record import events
from ingestion.runs.record.lake import manifest_key, open_lake, sha256_hex
from ingestion.runs.record.views import manifest_bytes, manifest_of, spec_of
from ingestion.runs.start import admission, dependencies
from ingestion.runs.work.attempts import Outcome, attempt
from ingestion.runs.work.leases import Lease, claim
from ingestion.runs.work.task_messages import publish_message
from ingestion.toolkit.failpoints import failpoint


def publish_run(run_id: int) -> Outcome:
    """Publish the run: its manifest, its checkpoint and its state; then start what waited for it.

    Safe to call twice, at once and late: the manifest has one key and one content, and one caller gets the row.
    """
    lease = claim(Run, run_id, expected=(RunState.PUBLISHING,))
    if lease is None:
        return Outcome.NOT_MINE
    failpoint("publish.claimed")
    run = Run.objects.select_related("pipeline__source", "contract").get(pk=run_id)
    message = publish_message(run_id, priority=run.priority)
    return attempt(lease, message, lambda: _publish(run, lease), back_to=RunState.PUBLISHING, fail=admission.fail_run)


def _publish(run: Run, lease: Lease) -> None:
    body = manifest_bytes(manifest_of(run))
    key = manifest_key(run)
    failpoint("publish.before_manifest")
    open_lake().put_if_absent(key, body, sha256=sha256_hex(body))
    failpoint("publish.after_manifest")
    failed_partitions = Partition.objects.filter(run=run, state=PartitionState.FAILED).count()
    failed_deliveries = Delivery.objects.filter(run=run, state__in=GIVEN_UP_STATES).order_by("pk")
    state, code, message = RunState.SUCCEEDED, "", ""
    for delivery in failed_deliveries[:1]:
        state, code = RunState.PARTIAL, delivery.code
        message = f"Delivery to {delivery.destination} failed: {delivery.message}"
    if failed_partitions:
        first = Partition.objects.filter(run=run, state=PartitionState.FAILED).order_by("lane", "link")[0]
        state, code = RunState.PARTIAL, first.code
        message = f"{failed_partitions} partitions failed, the first: {first.message}"
    if not message and not Delivery.objects.filter(run=run).exists():
        message = sentence("run.not_delivered", {"pipeline": run.pipeline.name})
    with transaction.atomic():
        lease.release(
            to=state,
            code=code,
            message=message,
            manifest_key=key,
            published_at=run.published_at or Now(),
            finished_at=Now(),
        )
        if not failed_partitions and _has_read_all(run):
            _advance_checkpoint(run)
        elif run.mode == Pipeline.Mode.FULL_REFRESH and not run.republishes_id:
            # What lies below the checkpoint is published no more, and this run has not read all of it.
            checkpoints.reset_checkpoint(run, stream=run.pipeline.stream)
        events.record(run.pk, "run.published", state=state, rows=run.accepted, code=code, message=message)
        failpoint("publish.before_commit")
        transaction.on_commit(admission.send_waiting_runs, robust=True)
    failpoint("publish.after_commit")
    dependencies.start_dependents(run)


def _advance_checkpoint(run: Run) -> None:
    """Move the pipeline's checkpoint to the end of what this run has read, in the caller's transaction."""
    if run.pipeline.mode != Pipeline.Mode.INCREMENTAL or run.republishes_id:
        return
    connector = registry.build_connector(run.pipeline.source)
    lanes: dict[int, Partition] = {}
    high_water = ""
    for partition in Partition.objects.filter(run=run).order_by("lane", "link"):
        lanes.setdefault(partition.lane, partition)
        high_water = max(high_water, partition.high_water)
    for partition in lanes.values():
        cursor = connector.checkpoint(spec_of(partition), run.since, high_water or None)
        if cursor is not None:
            checkpoints.advance_checkpoint(run, stream=run.pipeline.stream, cursor=dict(cursor))


def _has_read_all(run: Run) -> bool:
    """Return whether the run has read all that the pipeline's next one is not to read again.

    What lies beyond a limit, or outside of a narrower question, would be behind the checkpoint and never be read.
    """
    asked, usual = run.query, run.pipeline.query
    if any((asked.get(name) or None) != (usual.get(name) or None) for name in ("filter", "fields", "options")):
        return False
    return asked.get("limit") is None or run.fetched < asked["limit"]
