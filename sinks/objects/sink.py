"""Publishes a run as files into a folder or an S3 bucket, with a manifest written last.

Where things lie stands in `keys.py`, which manifests are published in `publications.py`.
"""

from collections.abc import Collection
from functools import cached_property
from typing import ClassVar

from pydantic import BaseModel

from ingestion.ports.check import CheckReport
from ingestion.ports.context import Context
from ingestion.ports.housekeeping import Housekeeping
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, PartView, Receipt, WriteMode
from ingestion.ports.sink import Capabilities, CommitStep
from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake.destination import as_destination
from ingestion.toolkit.lake.opening import ObjectStore, open_lake
from sinks.objects.check import findings_of
from sinks.objects.compaction import compact_state
from sinks.objects.config import ObjectsConfig
from sinks.objects.counting import count_rows
from sinks.objects.documents import manifest_bytes, read_document
from sinks.objects.housekeeping import drop_pipeline, retain_publications
from sinks.objects.keys import manifest_key, parse_template
from sinks.objects.publications import Publications
from sinks.objects.staging import Stage

MEGABYTE = 1 << 20


class ObjectsSink:
    """Brings the clean parts as files, then names them all in one manifest: that is the moment they count."""

    kind: ClassVar[str] = "objects"
    Config: ClassVar[type[BaseModel]] = ObjectsConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        write_modes=frozenset(WriteMode), formats=frozenset({"parquet", "jsonl", "csv"}), orders_runs=True
    )

    def __init__(self, config: ObjectsConfig) -> None:
        self.config = config

    def check(self, ctx: Context) -> CheckReport:
        """Return whether a file can be written, read back and removed there, each finding with its fix."""
        return CheckReport(tuple(findings_of(self._store, self.config.url)))

    def stage(self, part: PartView, delivery: DeliveryView, ctx: Context) -> Receipt:
        """Bring the part's rows to a place that no manifest names yet; what is written is verified by its hash."""
        stage = self._stage(delivery)
        with as_destination(delivery.destination):
            is_there = stage.holds(part)
        if not is_there:
            stage.bring(part, ctx)
        return Receipt(inserted=part.rows)

    def commit(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        """Write the manifest, then move the pointer; what a killed stage left undone is brought first."""
        stage = self._stage(delivery)
        key = manifest_key(manifest.pipeline, manifest.run_id)
        publications = self._publications(manifest.pipeline, delivery.destination)
        with as_destination(delivery.destination):
            there = {info.key: info.size_bytes for info in self._store.list(stage.folder)}
            before = publications.read(key)
        published = None if before is None else read_document(before)
        files = []
        for part in manifest.parts:
            with as_destination(delivery.destination):
                found = stage.find(part, size_of=there.get, published=published)
            files += found if found is not None else stage.bring(part, ctx)
            ctx.beat()
        with as_destination(delivery.destination):
            failpoint("objects.before_manifest")
            content = manifest_bytes(manifest, files, layout=self.config.layout)
            if content != before:
                publications.write(key, content, run_id=manifest.run_id)
            failpoint("objects.before_pointer")
            publications.point()
            failpoint("objects.after_pointer")
            # What an earlier attempt of the run left there and the manifest does not name: nobody may count it.
            self._clear_run(stage.folder, ctx, keep={file.path for file in files})
        ctx.beat()
        rows = sum(part.rows for part in manifest.parts)
        return CommitStep(DeliveryState.AVAILABLE, receipt=Receipt(inserted=rows), refs={"manifest": key})

    def count(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> int:
        """Return the rows of the files that this run's manifest at the destination lists and that are there."""
        with as_destination(delivery.destination):
            publications = self._publications(manifest.pipeline, delivery.destination)
            content = publications.read(manifest_key(manifest.pipeline, manifest.run_id))
            if content is None:
                return 0
            return count_rows(read_document(content), self._store, ctx, destination=delivery.destination)

    def abort(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> None:
        """Remove the run's manifest and files; a run that a later one has replaced stays as it was published."""
        key = manifest_key(manifest.pipeline, manifest.run_id)
        publications = self._publications(manifest.pipeline, delivery.destination)
        with as_destination(delivery.destination):
            if publications.read(key) is not None:
                if publications.newest_run() != manifest.run_id or not publications.take_apart(manifest.run_id):
                    return
                self._store.delete(key)
            failpoint("objects.after_manifest_removed")
            publications.point()
            self._clear_run(self._stage(delivery).folder, ctx)

    def compact(self, pipeline: str, ctx: Context, *, dry_run: bool = False) -> Housekeeping:
        """Write the small files of the published state together into larger ones; readers see the same rows.

        Of a merged state each key's row of the latest run remains. Files of before stay until `retain` removes them.
        """
        with as_destination(self.config.place):
            return compact_state(
                self._publications(pipeline, self.config.place),
                self._store,
                ctx,
                target_bytes=self.config.compact_to_mb * MEGABYTE,
                dry_run=dry_run,
            )

    def retain(
        self, pipeline: str, ctx: Context, *, keep_runs: int | None, keep_days: int | None, dry_run: bool = False
    ) -> Housekeeping:
        """Remove publications that are neither part of the published state nor to be kept, and what nothing names.

        A publication is kept that one of the two rules keeps; without rules only leftovers go. Nothing goes that was
        part of the state within `grace_hours`; uploads go that were abandoned a day ago.
        """
        with as_destination(self.config.place):
            return retain_publications(
                self._publications(pipeline, self.config.place),
                self._store,
                ctx,
                keep_runs=keep_runs,
                keep_days=keep_days,
                grace_hours=self.config.grace_hours,
                dry_run=dry_run,
            )

    def drop(self, pipeline: str, ctx: Context, *, dry_run: bool = False) -> Housekeeping:
        """Remove everything of the pipeline from the destination, the pointer first."""
        with as_destination(self.config.place):
            publications = self._publications(pipeline, self.config.place)
            return drop_pipeline(publications, self._store, ctx, dry_run=dry_run)

    @cached_property
    def _store(self) -> ObjectStore:
        return open_lake(self.config.url, **self.config.opening())

    def _publications(self, pipeline: str, destination: str) -> Publications:
        return Publications(self._store, pipeline, destination=destination)

    def _stage(self, delivery: DeliveryView) -> Stage:
        return Stage(self._store, self.config.layout, parse_template(self.config.key_template), delivery)

    def _clear_run(self, folder: str, ctx: Context, *, keep: Collection[str] = ()) -> None:
        # Whoever is still writing here has lost the lease: a delivery is staged by one worker at a time.
        self._store.abort_stale_uploads(ctx.clock(), prefix=folder)
        for found in list(self._store.list(folder)):
            if found.key not in keep:
                self._store.delete(found.key)
                ctx.beat()
