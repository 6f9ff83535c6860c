"""Publishes a run as Parquet files into a folder or an S3 bucket, with a manifest written last.

<pipeline>/<run>/<lane>-<link>-<seq>-<sha256[:16]>.parquet    the rows
<pipeline>/manifests/<run:08d>.json                           what the run published; without it nothing counts
<pipeline>/latest.json                                        names the newest manifest
"""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from ingestion.ports.connector import CheckReport
from ingestion.ports.context import Context
from ingestion.ports.errors import (
    AuthError,
    Cancelled,
    ConfigError,
    IngestError,
    SinkRejected,
    SinkUnavailable,
    StoreCorrupt,
)
from ingestion.ports.sink import (
    Capabilities,
    CommitStep,
    DeliveryState,
    DeliveryView,
    Manifest,
    PartView,
    Receipt,
    WriteMode,
)
from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake import ObjectStore, open_lake
from ingestion.toolkit.lake_s3_options import parse_s3_url
from sinks.objects_check import findings_of

BLOCK_BYTES = 1 << 20
MANIFEST_VERSION = 1
POINTER_TRIES = 5


class ObjectsConfig(BaseModel):
    """Where the files go, and who may write there; without keys those of the machine's environment are used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        min_length=1,
        description="A folder as an absolute path, or s3://bucket/prefix?endpoint=https://host&region=name",
    )
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _is_usable(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme == "s3":
            if {"access_key", "secret_key"} & set(parse_qs(parts.query, keep_blank_values=True)):
                msg = "credentials do not belong into the address: write them into access_key and secret_key"
                raise ValueError(msg)
            try:
                parse_s3_url(url)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        elif "://" in url and parts.scheme != "file":
            msg = "write a folder, file:///folder or s3://bucket/prefix"
            raise ValueError(msg)
        elif parts.scheme != "file" and not Path(url).is_absolute():
            msg = "write the folder as an absolute path: a relative one would depend on where a worker was started"
            raise ValueError(msg)
        return url


class ObjectsSink:
    """Copies the clean parts as they are, then names them all in one manifest: that is the moment they count."""

    kind: ClassVar[str] = "objects"
    Config: ClassVar[type[BaseModel]] = ObjectsConfig
    capabilities: ClassVar[Capabilities] = Capabilities(write_modes=frozenset(WriteMode))

    def __init__(self, config: ObjectsConfig) -> None:
        self.config = config

    def check(self, ctx: Context) -> CheckReport:
        """Return whether a file can be written, read back and removed there, each finding with its fix."""
        return CheckReport(tuple(findings_of(self._store, self.config.url)))

    def stage(self, part: PartView, delivery: DeliveryView, ctx: Context) -> Receipt:
        """Copy the part's bytes, verified by their hash, to a place that no manifest names yet."""
        key = part_key(delivery.pipeline, delivery.run_id, part)
        with self._errors_of(delivery):
            found = self._store.head(key)
        if found is None or (found.size_bytes, found.sha256) != (part.size_bytes, part.sha256):
            self._copy(part, key, delivery=delivery, ctx=ctx)
        return Receipt(inserted=part.rows)

    def commit(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        """Write the manifest, then move the pointer; what a killed stage left undone is copied first."""
        for part in manifest.parts:
            with self._errors_of(delivery):
                found = self._store.head(part_key(manifest.pipeline, manifest.run_id, part))
            if found is None or found.size_bytes != part.size_bytes:
                self.stage(part, delivery, ctx)
        key = manifest_key(manifest.pipeline, manifest.run_id)
        with self._errors_of(delivery):
            failpoint("objects.before_manifest")
            self._write(key, manifest_bytes(manifest))
            failpoint("objects.before_pointer")
            self._point_to_newest(manifest.pipeline)
            failpoint("objects.after_pointer")
            # What an earlier attempt of the run left there and the manifest does not name: nobody may count it.
            listed = {part_key(manifest.pipeline, manifest.run_id, part) for part in manifest.parts}
            self._clear_run(manifest, ctx, keep=listed)
        rows = sum(part.rows for part in manifest.parts)
        ctx.progress()
        return CommitStep(DeliveryState.AVAILABLE, receipt=Receipt(inserted=rows), refs={"manifest": key})

    def count(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> int:
        """Return the rows of the files that this run's manifest at the destination lists and that are there."""
        import pyarrow as pa  # noqa: PLC0415 (heavy)
        import pyarrow.parquet as pq  # noqa: PLC0415

        rows = 0
        with self._errors_of(delivery):
            for part in self._published_parts(manifest.pipeline, manifest.run_id):
                try:
                    with self._store.open(part["path"]) as stream:
                        rows += pq.read_metadata(stream).num_rows
                except StoreCorrupt as error:
                    if error.code != "store.missing":
                        raise
                except pa.ArrowException as error:
                    detail = f"the file {part['path']} there is no longer readable Parquet"
                    raise SinkRejected("sink.rejected", destination=delivery.destination, detail=detail) from error
                ctx.progress()
        return rows

    def abort(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> None:
        """Remove the run's manifest and files; a run that a later one has superseded stays as it was published."""
        key = manifest_key(manifest.pipeline, manifest.run_id)
        with self._errors_of(delivery):
            is_published = self._store.head(key) is not None
            if is_published and self._newest_run(manifest.pipeline) != manifest.run_id:
                return
            self._store.delete(key)
            failpoint("objects.after_manifest_removed")
            self._point_to_newest(manifest.pipeline)
            self._clear_run(manifest, ctx)

    @cached_property
    def _store(self) -> ObjectStore:
        access_key, secret_key = self.config.access_key, self.config.secret_key
        return open_lake(
            self.config.url,
            access_key=access_key.get_secret_value() if access_key else None,
            secret_key=secret_key.get_secret_value() if secret_key else None,
        )

    def _copy(self, part: PartView, key: str, *, delivery: DeliveryView, ctx: Context) -> None:
        # Opened first: where the lake has lost the part, nothing is begun at the destination.
        with ctx.lake.open(part.key) as stream:
            with self._errors_of(delivery):
                writer = self._store.writer(key, sha256=part.sha256)
            try:
                while block := stream.read(BLOCK_BYTES):
                    if ctx.should_stop():
                        raise Cancelled
                    with self._errors_of(delivery):
                        writer.write(block)
                    ctx.progress()
                if writer.sha256 != part.sha256:
                    raise StoreCorrupt("store.corrupt", key=part.key, detail=f"SHA-256 begins {writer.sha256[:16]}")
                with self._errors_of(delivery):
                    writer.commit()
            finally:
                writer.abort()

    def _write(self, key: str, content: bytes) -> None:
        found = self._read_if_there(key)
        if found is None:
            self._store.put_if_absent(key, content)
        elif found != content:
            # A run that was published in part and then completed by a retry: the same run, now with more parts.
            self._store.put(key, content)

    def _point_to_newest(self, pipeline: str) -> None:
        """Let the pointer name the highest run with a manifest.

        The pointer follows the manifests and is looked at again after it was written, so that of two runs that
        commit at once the older cannot leave it behind: whoever writes last sees both manifests.
        """
        key = pointer_key(pipeline)
        for _ in range(POINTER_TRIES):
            newest = self._newest_run(pipeline)
            wanted = None if newest is None else pointer_bytes(pipeline, newest)
            if wanted == self._read_if_there(key):
                return
            if wanted is None:
                self._store.delete(key)
            else:
                self._store.put(key, wanted)
        raise SinkUnavailable("store.unavailable", detail=f"{key} is being moved by others")

    def _newest_run(self, pipeline: str) -> int | None:
        newest = None
        for found in self._store.list(f"{pipeline}/manifests/"):
            stem = Path(found.key).stem
            if stem.isdecimal():
                newest = max(newest or 0, int(stem))
        return newest

    def _clear_run(self, manifest: Manifest, ctx: Context, *, keep: Collection[str] = ()) -> None:
        folder = f"{manifest.pipeline}/{manifest.run_id}/"
        # Whoever is still writing here has lost the lease: a delivery is staged by one worker at a time.
        self._store.abort_stale_uploads(ctx.clock(), prefix=folder)
        for found in list(self._store.list(folder)):
            if found.key not in keep:
                self._store.delete(found.key)
                ctx.progress()

    def _published_parts(self, pipeline: str, run_id: int) -> list[dict[str, Any]]:
        content = self._read_if_there(manifest_key(pipeline, run_id))
        if content is None:
            return []
        parts: list[dict[str, Any]] = json.loads(content)["parts"]
        return parts

    def _read_if_there(self, key: str) -> bytes | None:
        try:
            return self._store.read(key)
        except StoreCorrupt as error:
            if error.code != "store.missing":
                raise
            return None

    @contextmanager
    def _errors_of(self, delivery: DeliveryView) -> Iterator[None]:
        """Give the store's errors as the destination's, so that they are not taken for errors of our lake."""
        destination = delivery.destination
        try:
            yield
        except AuthError as error:
            raise AuthError("sink.auth", destination=destination, detail=_detail(error)) from error
        except SinkUnavailable as error:
            raise SinkUnavailable("sink.unavailable", destination=destination, detail=_detail(error)) from error
        except StoreCorrupt as error:
            raise SinkRejected("sink.rejected", destination=destination, detail=str(error)) from error
        except ConfigError as error:
            raise ConfigError("config.invalid", where=f"destination {destination}", detail=str(error)) from error


def part_key(pipeline: str, run_id: int, part: PartView) -> str:
    """Return where a part's file lies."""
    return f"{pipeline}/{run_id}/{part.name}-{part.sha256[:16]}.parquet"


def manifest_key(pipeline: str, run_id: int) -> str:
    """Return where the manifest of a run lies; the names sort as the runs do."""
    return f"{pipeline}/manifests/{run_id:08d}.json"


def pointer_key(pipeline: str) -> str:
    """Return where the newest manifest is named."""
    return f"{pipeline}/latest.json"


def pointer_bytes(pipeline: str, run_id: int) -> bytes:
    """Return the content of the pointer."""
    return _json_bytes({"manifest": manifest_key(pipeline, run_id), "run": run_id})


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the content of the manifest: the same run gives the same bytes, in whatever order its parts come."""
    ordered = sorted(manifest.parts, key=lambda part: (part.lane, part.link, part.seq))
    contract = manifest.contract
    return _json_bytes(
        {
            "version": MANIFEST_VERSION,
            "pipeline": manifest.pipeline,
            "run": manifest.run_id,
            "mode": manifest.mode.value,
            "logical_time": manifest.logical_time,
            "contract": {
                "name": contract.name,
                "version": manifest.contract_version,
                "key": list(contract.key),
                "time": contract.time,
            },
            "columns": [
                {"name": column.name, "type": column.type.value, "nullable": column.nullable, "unit": column.unit}
                for column in contract.columns
            ],
            "rows": sum(part.rows for part in ordered),
            "parts": [
                {
                    "path": part_key(manifest.pipeline, manifest.run_id, part),
                    "name": part.name,
                    "rows": part.rows,
                    "bytes": part.size_bytes,
                    "sha256": part.sha256,
                }
                for part in ordered
            ],
        }
    )


def _json_bytes(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1) + "\n").encode()


def _detail(error: IngestError) -> str:
    return str(error.values.get("detail") or error)
