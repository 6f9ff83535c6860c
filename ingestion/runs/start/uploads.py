"""Receiving files: streamed into the lake, hashed on the way, stored once whatever their name."""

import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from ingestion.models import Contract, Pipeline, Run, RunState, Upload
from ingestion.ports.errors import ConfigError, Refused
from ingestion.quality.contracts import contract_hash, parse_contract
from ingestion.runs.record.lake import RESERVED_NAMES, open_lake
from ingestion.runs.start import contracts, pipelines
from ingestion.runs.start.creation import contract_for, create_run
from ingestion.toolkit.failpoints import failpoint

_NAME_CHARACTERS = 255
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class UploadReceiver:
    """One file being received: `write` as it comes, then `finish`, or `abort`.

    The bytes go to the lake as they come, so that little is left to do after the last one.
    """

    def __init__(self, name: str, *, created_by: Any = None, expected_bytes: int | None = None) -> None:
        self._limit_bytes: int = settings.HEADGATE_UPLOAD_MAX_BYTES
        self._expected_bytes = expected_bytes
        clean = PurePath(name.replace("\\", "/")).name.replace("\0", "")[-_NAME_CHARACTERS:] or "upload"
        if expected_bytes is not None and expected_bytes > self._limit_bytes:
            raise Refused("file.too_large", name=clean, limit_bytes=self._limit_bytes)
        self._upload = Upload.objects.create(name=clean, created_by=created_by)
        stored_name = _UNSAFE.sub("_", clean).strip("._")[-100:] or "file"
        self._upload.key = f"uploads/{self._upload.pk}/{stored_name}"
        self._upload.save(update_fields=["key"])
        self._writer = open_lake().writer(self._upload.key)

    def write(self, data: bytes) -> None:
        """Append the bytes; Refused, and nothing is kept, once there are more than the limit."""
        if self._writer.size_bytes + len(data) > self._limit_bytes:
            self.abort()
            raise Refused("file.too_large", name=self._upload.name, limit_bytes=self._limit_bytes)
        self._writer.write(data)

    def finish(self) -> tuple[Upload, bool]:
        """Return the upload and whether its content is new; the same bytes again give the upload there is."""
        received = self._writer.size_bytes
        if received == 0:
            self.abort()
            raise ConfigError("file.empty", name=self._upload.name)
        if self._expected_bytes is not None and received != self._expected_bytes:
            self.abort()
            raise ConfigError("upload.incomplete", received=received, expected=self._expected_bytes)
        info = self._writer.commit()
        failpoint("upload.committed")
        try:
            with transaction.atomic():
                self._upload.size_bytes, self._upload.sha256 = info.size_bytes, info.sha256
                self._upload.save(update_fields=["size_bytes", "sha256"])
        except IntegrityError:
            known = Upload.objects.get(sha256=info.sha256)
            self.abort()
            return known, False
        return self._upload, True

    def abort(self) -> None:
        """Keep nothing of the file."""
        self._writer.abort()
        if self._upload.pk is not None:
            open_lake().delete(self._upload.key)
            self._upload.delete()


def ingest_upload(
    upload: Upload,
    *,
    trigger: str,
    pipeline: Pipeline | None = None,
    datasource_name: str | None = None,
    contract: str | Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    priority: int | None = None,
    may_configure: bool = True,
) -> tuple[Run, bool]:
    """Return the run of the upload, and whether this call created it.

    A run of an upload is unique by (pipeline, contract version, content): the same file twice is one run, and a
    repaired contract runs it again. Without a pipeline one is found or made, named after `datasource_name`, the
    contract or the file. Who may not configure may bring a contract for a pipeline of their own, not change one that
    others use: that is Refused.
    """
    if contract is not None and not may_configure:
        _refuse_changes(contract, pipeline=pipeline, datasource_name=datasource_name)
    saved = contracts.save_contract(contract) if contract is not None else None
    if pipeline is None:
        pipeline = pipelines.upload_pipeline(_pipeline_name(datasource_name, saved, upload), contract=saved)
    elif saved is not None and pipeline.contract_id != saved.pk:
        pipelines.adopt_contract(pipeline, saved)
    if pipeline.source.kind not in pipelines.upload_kinds():
        raise ConfigError("upload.wrong_source", pipeline=pipeline.name, kind=pipeline.source.kind)
    query = {"options": {**(pipeline.query.get("options") or {}), **(options or {})}} if options else None
    version = contract_for(pipeline)
    # A draft was inferred from data like these, so it does not make a run of its own.
    number = 0 if version is None or version.is_draft else version.version
    key = f"upload:{pipeline.pk}:{number}:{upload.sha256}"
    # A cancelled run is the end of one request, so the same file may be asked for again.
    if cancelled := Run.objects.filter(idempotency_key__startswith=key, state=RunState.CANCELLED).count():
        key = f"{key}:{cancelled}"
    return create_run(pipeline, trigger=trigger, idempotency_key=key, uploads=[upload], query=query, priority=priority)


def receive(
    read: Callable[[int], bytes], *, name: str, created_by: User | None = None, block_bytes: int = 1 << 20
) -> tuple[Upload, bool]:
    """Return the upload of a whole stream that `read` gives block by block, and whether its content is new."""
    receiver = UploadReceiver(name, created_by=created_by)
    try:
        while block := read(block_bytes):
            receiver.write(block)
    except BaseException:
        receiver.abort()
        raise
    return receiver.finish()


def _refuse_changes(given: str | Mapping[str, Any], *, pipeline: Pipeline | None, datasource_name: str | None) -> None:
    body = parse_contract(given)
    newest = Contract.objects.filter(name=body.name).order_by("-version").first()
    if newest is not None and (newest.is_draft or newest.sha256 != contract_hash(body)):
        raise Refused("request.forbidden")
    if pipeline is None:
        pipeline = Pipeline.objects.filter(name=_clean_name(datasource_name or body.name)).first()
    if pipeline is not None and (pipeline.contract is None or pipeline.contract.name != body.name):
        raise Refused("request.forbidden")


def _pipeline_name(datasource_name: str | None, contract: Contract | None, upload: Upload) -> str:
    given = datasource_name or (contract.name if contract else "")
    if given:
        return _clean_name(given)
    name = _clean_name(PurePath(upload.name).stem)
    return f"{name}_file" if name in RESERVED_NAMES else name


def _clean_name(given: str) -> str:
    name = _UNSAFE.sub("_", given.strip().lower()).replace(".", "_").strip("_-")[:63]
    if not name:
        raise ConfigError("upload.unnamed", name=given)
    return name
