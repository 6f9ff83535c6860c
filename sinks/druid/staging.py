"""Rows on their way: objects that are written for Druid's workers to read, and the store that they lie in.

<zone>/<pipeline>/<run>/<destination>/<part>-<sha256[:16]>.stats.json               what is known of a clean part
<zone>/<pipeline>/<run>/<destination>/<part>-<sha256[:16]>-<columns>.json.gz        its rows as JSON Lines
<zone>/<pipeline>/<run>/<destination>/<part>-<sha256[:16]>-<columns>.object.json    what that object must be found as
<zone>/<pipeline>/<run>/<destination>/merged-a<attempt>-<n>-<sha256[:16]>.json.gz   rows of a merge

Only objects that we wrote ourselves ever reach Druid, and each is looked up before a task may read it, with the keys
that Druid will use where we have them: on a missing one a task holds its slot for more than three minutes.
"""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from pydantic import SecretStr

from ingestion.ports.context import BucketPlace, Context, Lake, LakeWriter, ObjectInfo
from ingestion.ports.errors import Cancelled, SinkRejected, StoreCorrupt
from ingestion.ports.publication import DeliveryView, PartView
from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake.destination import as_destination
from ingestion.toolkit.lake.opening import ObjectStore, open_lake
from sinks.druid.columns import DruidColumn, can_be_read_as_parquet, columns_hash, druid_columns, types_of_part
from sinks.druid.config import DruidConfig, InputKind
from sinks.druid.input_source import Input, s3_source
from sinks.druid.spec import PARQUET

if TYPE_CHECKING:
    from sinks.druid.rows import PartStats

ZONE = "staged"
INLINE_BYTES = 1_000_000
STORE = "staging store"
"""Name of the store where something is wrong with it: its errors are those of the destination, not of our own lake."""
GRACE_S = 900
"""Added to a task's time limit for the addresses it reads: they must outlive its retries."""


@dataclass(frozen=True, slots=True)
class StagedObject:
    """One object that a task is to read."""

    key: str
    size_bytes: int
    sha256: str
    rows: int


class Staging:
    """The objects of one delivery on their way into Druid."""

    def __init__(
        self, config: DruidConfig, ctx: Context, *, delivery: DeliveryView, find_input: Callable[[], Input]
    ) -> None:
        """Take how the input is found out: Druid is asked only where it matters."""
        self._find_input = find_input
        self._config, self._ctx, self._delivery = config, ctx, delivery
        self._base = f"{ZONE}/{delivery.pipeline}/{delivery.run_id}/{delivery.destination}"

    @cached_property
    def input(self) -> Input:
        """Return the kind of input source that Druid reads the rows by."""
        return self._find_input()

    def prepare(self, part: PartView, *, time_column: str | None, with_rows: bool) -> "PartStats":
        """Return what the part holds, with its rows written where the input needs them; what is there already stays."""
        stats = self._stats(part, time_column=time_column)
        if with_rows and self.input.kind is not InputKind.INLINE and not self.reads_parquet([stats]):
            self.staged_rows(part, stats, self.columns([stats]))
        return stats

    def columns(self, stats: Sequence["PartStats"]) -> tuple[DruidColumn, ...]:
        """Return the columns of the datasource for parts of this run."""
        contract = self._delivery.contract
        return druid_columns(contract, [types_of_part(contract, part.types) for part in stats])

    def reads_parquet(self, stats: Sequence["PartStats"]) -> bool:
        """Return whether Druid can read the clean parts as they are."""
        if self.input.format != PARQUET or self._config.staging:
            return False
        return can_be_read_as_parquet(self.columns(stats), [part.types for part in stats])

    def clean_object(self, part: PartView) -> StagedObject:
        """Return the clean part itself as what is read."""
        return StagedObject(part.key, part.size_bytes, part.sha256, part.rows)

    def staged_rows(self, part: PartView, stats: "PartStats", columns: Sequence[DruidColumn]) -> StagedObject:
        """Return the part's rows, written in these columns, as a staged object; written if they are not there yet."""
        from ingestion.toolkit.clean.reader import open_part  # noqa: PLC0415
        from sinks.druid.rows import gzipped, json_lines  # noqa: PLC0415 (polars, only where there are rows)

        # Its columns belong to its name: another part may have turned one of them into text since.
        name = f"{self._base}/{part.name}-{part.sha256[:16]}-{columns_hash(columns)}"

        def blocks() -> Iterator[bytes]:
            with open_part(self._ctx.lake, part) as file:
                yield from gzipped(json_lines(file, columns))

        return self._once(name, blocks, rows=stats.rows)

    def staged_blocks(self, name: str, blocks: Iterable[bytes], *, rows: int) -> StagedObject:
        """Write rows that are computed, not copied, and return the object; the same rows give the same object."""
        digest, pieces = hashlib.sha256(), []
        for block in blocks:
            digest.update(block)
            pieces.append(block)
            self._beat()
        data, sha256 = b"".join(pieces), digest.hexdigest()
        key = f"{self._base}/{name}-{sha256[:16]}.json.gz"
        if self.store.head(key) is None:
            self.store.put_if_absent(key, data, sha256=sha256)
        failpoint("druid.staged_rows")
        return StagedObject(key, len(data), sha256, rows)

    def inline_text(self, parts: Sequence[PartView], columns: Sequence[DruidColumn]) -> str:
        """Return the rows of all parts as one text; SinkRejected where they are more than a task can carry."""
        from ingestion.toolkit.clean.reader import open_part  # noqa: PLC0415
        from sinks.druid.rows import json_lines  # noqa: PLC0415

        pieces, size = [], 0
        for part in parts:
            with open_part(self._ctx.lake, part) as file:
                for block in json_lines(file, columns):
                    size += len(block)
                    if size > INLINE_BYTES:
                        self._refuse_inline()
                    pieces.append(block)
                    self._beat()
        return b"".join(pieces).decode()

    def inline_objects(self, objects: Sequence[StagedObject]) -> str:
        """Return the rows of staged objects as one text; SinkRejected where they are more than a task can carry."""
        pieces = [gzip.decompress(self.store.read(item.key)) for item in objects]
        if sum(map(len, pieces)) > INLINE_BYTES:
            self._refuse_inline()
        return b"".join(pieces).decode()

    def _refuse_inline(self) -> NoReturn:
        raise SinkRejected("sink.too_large_inline", destination=self._delivery.destination, limit_bytes=INLINE_BYTES)

    def are_there(self, objects: Sequence[StagedObject]) -> bool:
        """Return whether all of these staged objects can still be found."""
        return all(self.store.head(item.key) is not None for item in objects)

    def look_up(self, objects: Sequence[StagedObject], *, is_clean: bool) -> None:
        """Raise StoreCorrupt unless every object is there with the size and hash that were recorded."""
        store = self._ctx.lake if is_clean else self._signer
        for item in objects:
            found = store.head(item.key)
            if found is None:
                raise StoreCorrupt("store.missing", key=item.key)
            if found.size_bytes != item.size_bytes or found.sha256 not in (None, item.sha256):
                detail = f"{found.size_bytes} bytes instead of {item.size_bytes}"
                raise StoreCorrupt("store.corrupt", key=item.key, detail=detail)
            self._ctx.progress()

    def input_source(self, objects: Sequence[StagedObject], *, is_clean: bool) -> dict[str, Any]:
        """Return Druid's inputSource for the objects; what it holds of addresses must not be kept."""
        store = self._ctx.lake if is_clean else self.store
        if self.input.kind is InputKind.S3:
            places = [store.place(item.key) for item in objects]
            return s3_source(self._config, [place for place in places if place is not None])
        if self.input.kind is InputKind.PRESIGNED:
            lifetime_s = self._config.task_timeout_s + GRACE_S
            return {"type": "http", "uris": [self._signer.presign(item.key, expires_s=lifetime_s) for item in objects]}
        return {"type": "local", "files": [str(store.local_path(item.key)) for item in objects]}

    def remove(self) -> None:
        """Remove what was written for the delivery; harmless where nothing is left."""
        for store in {id(store): store for store in (self._ctx.lake, self.store)}.values():
            for found in list(store.list(f"{self._base}/")):
                store.delete(found.key)
                self._ctx.progress()

    @cached_property
    def store(self) -> Lake:
        """Return where the rows lie on their way."""
        if not self._config.staging:
            return self._ctx.lake
        return open_staging(
            self._config.staging,
            access_key=self._config.staging_access_key,
            secret_key=self._config.staging_secret_key,
            destination=self._delivery.destination,
        )

    @cached_property
    def _signer(self) -> Lake:
        """Return the store as those see it who read: under the key that can only read, where there is one."""
        if not self._config.read_access_key:
            return self.store
        return open_staging(
            self._config.staging,
            access_key=self._config.read_access_key,
            secret_key=self._config.read_secret_key,
            destination=self._delivery.destination,
        )

    def _stats(self, part: PartView, *, time_column: str | None) -> "PartStats":
        from ingestion.toolkit.clean.reader import open_part  # noqa: PLC0415
        from sinks.druid.rows import PartStats, read_stats  # noqa: PLC0415

        key = f"{self._base}/{part.name}-{part.sha256[:16]}.stats.json"
        if self._ctx.lake.head(key) is not None:
            return PartStats.from_json(self._ctx.lake.read(key))
        with open_part(self._ctx.lake, part) as file:
            stats = read_stats(file, time_column=time_column)
        if stats.rows != part.rows:
            raise StoreCorrupt("store.corrupt", key=part.key, detail=f"{stats.rows} rows instead of {part.rows}")
        self._ctx.lake.put_if_absent(key, stats.to_json())
        failpoint("druid.stats_written")
        return stats

    def _once(self, name: str, blocks: Callable[[], Iterator[bytes]], *, rows: int) -> StagedObject:
        """Write the object of that name once, and beside it what it must be found as."""
        note, key = f"{name}.object.json", f"{name}.json.gz"
        lake = self._ctx.lake
        there = self.store.head(key)
        if lake.head(note) is not None:
            noted = StagedObject(**json.loads(lake.read(note)))
            if there is not None and there.size_bytes == noted.size_bytes:
                return noted
            # The store has lost it (a bucket that expires what is old): it is written anew.
            lake.delete(note)
        if there is not None:
            # Written, and not noted: whatever these bytes are, they are written anew.
            self.store.delete(key)
        writer = self.store.writer(key)
        try:
            for block in blocks():
                writer.write(block)
                self._beat()
            info: ObjectInfo = writer.commit()
        finally:
            writer.abort()
        failpoint("druid.rows_written")
        staged = StagedObject(key, info.size_bytes, info.sha256 or "", rows)
        lake.put_if_absent(note, json.dumps(asdict(staged), sort_keys=True).encode())
        failpoint("druid.rows_noted")
        return staged

    def _beat(self) -> None:
        self._ctx.progress()
        if self._ctx.should_stop():
            raise Cancelled


def open_staging(
    url: str, *, access_key: SecretStr | None, secret_key: SecretStr | None, destination: str
) -> "StagingStore":
    """Return the store at that address, opened with these keys; nothing is asked of it yet."""
    store = open_lake(
        url,
        access_key=access_key.get_secret_value() if access_key else None,
        secret_key=secret_key.get_secret_value() if secret_key else None,
    )
    return StagingStore(store, destination=destination)


class StagingStore:
    """Implements `ports.context.Lake` over another store, with the destination's errors."""

    def __init__(self, store: ObjectStore, *, destination: str) -> None:
        self._store, self._destination = store, destination

    def put_if_absent(self, key: str, source: bytes | Path, *, sha256: str | None = None) -> ObjectInfo:
        """Store the object unless it is there."""
        with as_destination(self._destination, part=STORE):
            return self._store.put_if_absent(key, source, sha256=sha256)

    def put(self, key: str, source: bytes | Path, *, sha256: str | None = None) -> ObjectInfo:
        """Store the object, replacing what is there."""
        with as_destination(self._destination, part=STORE):
            return self._store.put(key, source, sha256=sha256)

    def writer(self, key: str) -> "StagingWriter":
        """Return a writer that streams one object."""
        with as_destination(self._destination, part=STORE):
            return StagingWriter(self._store.writer(key), destination=self._destination)

    def open(self, key: str) -> BinaryIO:
        """Return the object as a seekable binary file."""
        with as_destination(self._destination, part=STORE):
            return self._store.open(key)

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `offset`, or all that follow it."""
        with as_destination(self._destination, part=STORE):
            return self._store.read(key, offset=offset, length=length)

    def head(self, key: str) -> ObjectInfo | None:
        """Return what the store knows of the object, or None."""
        with as_destination(self._destination, part=STORE):
            return self._store.head(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`."""
        with as_destination(self._destination, part=STORE):
            yield from self._store.list(prefix)

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where it is not there."""
        with as_destination(self._destination, part=STORE):
            self._store.delete(key)

    def presign(self, key: str, *, expires_s: int) -> str:
        """Return a URL that reads this one object until it expires."""
        with as_destination(self._destination, part=STORE):
            return self._store.presign(key, expires_s=expires_s)

    def place(self, key: str) -> BucketPlace | None:
        """Return where in a bucket the object lies."""
        return self._store.place(key)

    def local_path(self, key: str) -> Path | None:
        """Return the local file that holds the object."""
        return self._store.local_path(key)


class StagingWriter:
    """One object being written, with the destination's errors."""

    def __init__(self, writer: LakeWriter, *, destination: str) -> None:
        self._writer, self._destination = writer, destination
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Append the bytes."""
        with as_destination(self._destination, part=STORE):
            self._writer.write(data)
        self.size_bytes = self._writer.size_bytes

    def commit(self) -> ObjectInfo:
        """Make the object visible."""
        with as_destination(self._destination, part=STORE):
            return self._writer.commit()

    def abort(self) -> None:
        """Remove what was written; harmless after `commit`."""
        with as_destination(self._destination, part=STORE):
            self._writer.abort()
