"""Bringing one clean part to the destination: as it is, or written anew in the form that was asked for."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, StoreCorrupt
from ingestion.ports.publication import DeliveryView, PartView
from ingestion.ports.schema import ColumnType
from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake.destination import as_destination
from ingestion.toolkit.lake.keys import sha256_of
from ingestion.toolkit.lake.opening import ObjectStore
from sinks.objects.documents import Document, read_staged, staged_bytes
from sinks.objects.keys import STAGED_SUFFIX, KeyTemplate
from sinks.objects.layout import Layout, Partition, StoredFile, UnfitPartitionError, folder_of
from sinks.objects.working import BLOCK_BYTES, TRIES, fetch, send, working_folder

if TYPE_CHECKING:
    import pyarrow as pa

_JSON_TYPES = frozenset({ColumnType.OBJECT, ColumnType.ARRAY})


@dataclass(frozen=True, slots=True)
class Stage:
    """The files of one delivery at its destination."""

    store: ObjectStore
    layout: Layout
    template: KeyTemplate
    delivery: DeliveryView

    @property
    def folder(self) -> str:
        """Return the folder of the run's files, with a slash at its end."""
        delivery = self.delivery
        return self.template.folder_of(delivery.pipeline, run_id=delivery.run_id, logical_time=delivery.logical_time)

    def find(
        self, part: PartView, *, size_of: Callable[[str], int | None], published: Document | None = None
    ) -> list[StoredFile] | None:
        """Return the part's files where `size_of` knows them all with the right size; else None.

        They are those of the note that staging left, or of what the run has published already.
        """
        if self.layout.is_copy:
            files: list[StoredFile] | None = [self._copied(part)]
        else:
            files = self._noted(part, size_of=size_of) or _published_of(part, published, layout=self.layout)
        is_whole = files is not None and all(size_of(file.path) == file.size_bytes for file in files)
        return files if is_whole else None

    def holds(self, part: PartView) -> bool:
        """Return whether the part's files are there already."""
        if not self.layout.is_copy:
            return self.find(part, size_of=self._size_of) is not None
        found = self.store.head(self._copied(part).path)
        return found is not None and (found.size_bytes, found.sha256) == (part.size_bytes, part.sha256)

    def bring(self, part: PartView, ctx: Context) -> list[StoredFile]:
        """Bring the part's rows there and return the files; the same part gives the same files."""
        if self.layout.is_copy:
            file = self._copied(part)
            self._copy(part, file.path, ctx)
            return [file]
        with working_folder(ctx) as folder:
            source = folder / "part.parquet"
            fetch(ctx.lake, part.key, sha256=part.sha256, into=source, ctx=ctx)
            files = [self._store(made, part, ctx) for made in self._written(source, part, folder, ctx)]
        if sum(file.rows for file in files) != part.rows:
            raise StoreCorrupt("store.corrupt", key=part.key, detail=f"it does not hold {part.rows} rows")
        with as_destination(self.delivery.destination):
            failpoint("objects.before_note")
            self.store.put(self._note_key(part), staged_bytes(files, layout=self.layout))
        return files

    def _noted(self, part: PartView, *, size_of: Callable[[str], int | None]) -> list[StoredFile] | None:
        key = self._note_key(part)
        if size_of(key) is None:
            return None
        try:
            return read_staged(self.store.read(key), layout=self.layout)
        except StoreCorrupt:
            # Another worker has committed the run meanwhile, and the note went with that.
            return None

    def _size_of(self, key: str) -> int | None:
        found = self.store.head(key)
        return None if found is None else found.size_bytes

    def _copied(self, part: PartView) -> StoredFile:
        path = f"{self.folder}{self._name_of(part)}-{part.sha256[:16]}{self.layout.extension}"
        return StoredFile(path, part.name, part.rows, part.size_bytes, part.sha256)

    def _copy(self, part: PartView, key: str, ctx: Context) -> None:
        destination = self.delivery.destination
        found = ""
        for _ in range(TRIES):
            # Opened first: where the lake has lost the part, nothing is begun at the destination.
            with ctx.lake.open(part.key) as stream:
                with as_destination(destination):
                    writer = self.store.writer(key, sha256=part.sha256)
                try:
                    while block := stream.read(BLOCK_BYTES):
                        ctx.beat()
                        with as_destination(destination):
                            writer.write(block)
                    found = writer.sha256
                    if found == part.sha256:
                        with as_destination(destination):
                            writer.commit()
                        return
                finally:
                    writer.abort()
        raise StoreCorrupt("store.corrupt", key=part.key, detail=f"SHA-256 begins {found[:16]}")

    def _written(
        self, source: Path, part: PartView, folder: Path, ctx: Context
    ) -> Iterator[tuple[Path, Partition, int]]:
        """Yield a local file for each partition, with its rows; gone when the next one is asked for."""
        from ingestion.toolkit.clean.reader import PartFile  # noqa: PLC0415 (loads Arrow and polars)
        from sinks.objects.rows import batches_of  # noqa: PLC0415
        from sinks.objects.splitting import Splitter  # noqa: PLC0415

        file = PartFile(source, key=part.key, rows=part.rows)
        making = partial(self._write, folder=folder, repeating=file.repeating_columns(), ctx=ctx)
        if not self.layout.partition_by:
            yield making((), batches_of(file), file.schema)
            return
        try:
            splitter = Splitter(file.schema, self.layout.partition_by, folder)
            for batch in batches_of(file):
                ctx.beat()
                splitter.add(batch)
        except UnfitPartitionError as error:
            raise self._wrong_partition(error) from error
        for partition in splitter.partitions():
            yield making(partition, splitter.batches(partition), splitter.kept_schema)

    def _write(
        self,
        partition: Partition,
        batches: Iterator["pa.RecordBatch"],
        schema: "pa.Schema",
        *,
        folder: Path,
        repeating: Collection[str],
        ctx: Context,
    ) -> tuple[Path, Partition, int]:
        from sinks.objects.rows import open_rows  # noqa: PLC0415 (loads Arrow and polars)

        declared = self.delivery.contract.columns
        json_columns = frozenset(column.name for column in declared if column.type in _JSON_TYPES)
        path = folder / "made"
        options: dict[str, Any] = {"schema": schema, "repeating": repeating, "json_columns": json_columns}
        with open_rows(path, self.layout, **options) as writer:
            for batch in batches:
                ctx.beat()
                writer.write(batch)
        return path, partition, writer.rows

    def _store(self, made: tuple[Path, Partition, int], part: PartView, ctx: Context) -> StoredFile:
        path, partition, rows = made
        sha256 = sha256_of(path)
        try:
            folders = folder_of(partition)
        except UnfitPartitionError as error:
            raise self._wrong_partition(error) from error
        key = f"{self.folder}{folders}{self._name_of(part)}-{sha256[:16]}{self.layout.extension}"
        with as_destination(self.delivery.destination):
            send(path, self.store, key, sha256=sha256, ctx=ctx)
        return StoredFile(key, part.name, rows, path.stat().st_size, sha256, partition, source=part.sha256)

    def _name_of(self, part: PartView) -> str:
        delivery = self.delivery
        return self.template.name_of(
            part.name, pipeline=delivery.pipeline, run_id=delivery.run_id, logical_time=delivery.logical_time
        )

    def _note_key(self, part: PartView) -> str:
        return f"{self.folder}{self._name_of(part)}-{part.sha256[:16]}{STAGED_SUFFIX}"

    def _wrong_partition(self, error: UnfitPartitionError) -> ConfigError:
        where = f"destination {self.delivery.destination}"
        return ConfigError("config.invalid", where=where, detail=f"partition_by: {error}")


def _published_of(part: PartView, published: Document | None, *, layout: Layout) -> list[StoredFile] | None:
    if published is None or published.layout.as_json() != layout.as_json():
        return None
    found = [file for file in published.files if (file.part, file.source) == (part.name, part.sha256)]
    return found or None
