"""The one place that creates runs; every front door comes here."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from ingestion import dispatch, registry
from ingestion.models import Contract, Pipeline, Run, Schedule, Upload
from ingestion.ports.errors import ConfigError, Refused
from ingestion.runs.record import events
from ingestion.runs.start.contracts import KEY_CHANGED, key_change, latest_version
from ingestion.runs.work.task_messages import plan_message

_QUERY_FIELDS = frozenset({"filter", "fields", "limit", "options"})


def create_run(
    pipeline: Pipeline,
    *,
    trigger: str,
    slot: datetime | None = None,
    schedule: Schedule | None = None,
    idempotency_key: str | None = None,
    query: Mapping[str, Any] | None = None,
    uploads: Sequence[Upload] = (),
    priority: int | None = None,
    republishes: Run | None = None,
) -> tuple[Run, bool]:
    """Return the run that was asked for, and whether this call created it.

    The same slot of a pipeline, or the same idempotency key, gives the same run; a key that was used for another
    request is Refused. Nothing is sent before the row is committed.
    """
    asked = {**pipeline.query, **(query or {})}
    if unknown := sorted(set(asked) - _QUERY_FIELDS):
        detail = f"{', '.join(unknown)} is no part of a query ({', '.join(sorted(_QUERY_FIELDS))})"
        raise ConfigError("config.invalid", where=pipeline.name, detail=detail)
    if not uploads and republishes is None and registry.find_stream(pipeline.source, pipeline.stream).is_file:
        uploads = _last_uploads(pipeline)
    if idempotency_key is not None:
        found = Run.objects.filter(idempotency_key=idempotency_key).first()
        if found is not None:
            return _same_request(found, pipeline, asked, uploads), False
    if pipeline.is_paused and trigger != Run.Trigger.ROLLBACK:
        raise Refused("pipeline.paused", pipeline=pipeline.name)
    contract = contract_for(pipeline)
    merges = pipeline.mode == Pipeline.Mode.INCREMENTAL and republishes is None
    refresh = key_change(pipeline, contract) if merges else ""
    try:
        with transaction.atomic():
            run = Run.objects.create(
                pipeline=pipeline,
                contract=contract,
                trigger=trigger,
                slot=slot,
                schedule=schedule,
                idempotency_key=idempotency_key,
                query=asked,
                mode=Pipeline.Mode.FULL_REFRESH if refresh else pipeline.mode,
                message=refresh,
                priority=priority or pipeline.priority,
                republishes=republishes,
                sent_at=Now(),
            )
            run.uploads.set(uploads)
            events.record(run.pk, "run.created", trigger=trigger)
            if refresh:
                events.record(run.pk, KEY_CHANGED, level="warning", message=refresh)
            dispatch.send_after_commit(plan_message(run.pk, priority=run.priority))
    except IntegrityError:
        return _created_meanwhile(pipeline, asked, uploads, slot=slot, idempotency_key=idempotency_key), False
    run.refresh_from_db()
    return run, True


def contract_for(pipeline: Pipeline) -> Contract | None:
    """Return the newest version of the pipeline's contract, or None where the first run is to draft it."""
    return latest_version(pipeline.contract) if pipeline.contract else None


def _last_uploads(pipeline: Pipeline) -> list[Upload]:
    """Return the files that the pipeline's newest run was given: what "run now" means for uploads.

    Without any the run is Refused: a full refresh of nothing would empty the destinations.
    """
    newest = Run.objects.filter(pipeline=pipeline, uploads__isnull=False).order_by("-pk").first()
    if newest is None:
        raise ConfigError("upload.awaited", pipeline=pipeline.name)
    return list(newest.uploads.order_by("pk"))


def _created_meanwhile(
    pipeline: Pipeline,
    asked: Mapping[str, Any],
    uploads: Sequence[Upload],
    *,
    slot: datetime | None,
    idempotency_key: str | None,
) -> Run:
    if idempotency_key is not None:
        found = Run.objects.filter(idempotency_key=idempotency_key).first()
        if found is not None:
            return _same_request(found, pipeline, asked, uploads)
    return Run.objects.get(pipeline=pipeline, slot=slot)


def _same_request(found: Run, pipeline: Pipeline, asked: Mapping[str, Any], uploads: Sequence[Upload]) -> Run:
    same_uploads = {upload.pk for upload in uploads} == set(found.uploads.values_list("pk", flat=True))
    if found.pipeline_id != pipeline.pk or found.query != dict(asked) or not same_uploads:
        raise Refused("run.idempotency_mismatch", key=found.idempotency_key)
    return found
