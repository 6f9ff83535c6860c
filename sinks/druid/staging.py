"""Rows on their way: objects that are written for Druid's workers to read, and the store that they lie in.

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
from typing import TYPE_CHECKING, Any, NoReturn, cast

from pydantic import SecretStr

from ingestion.ports.context import Context, Lake, ObjectInfo
from ingestion.ports.errors import SinkRejected, StoreCorrupt
from ingestion.ports.publication import DeliveryView, PartView
from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake.destination import as_destination
from ingestion.toolkit.lake.opening import open_lake
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

    def stats(self, part: PartView) -> "PartStats":
        """Return the facts of a part."""
        from sinks.druid.rows import read_stats  # noqa: PLC0415 (polars, only where there are rows)

        return read_stats(self._ctx.lake, part, time_column=self._delivery.contract.time)

    def prepare(self, part: PartView, *, with_rows: bool) -> None:
        """Check the part, and write its rows where the input needs them; what is there already stays."""
        stats = self.stats(part)
        if with_rows and self.input.kind is not InputKind.INLINE and not self.reads_parquet([stats]):
            self.staged_rows(part, stats, self.columns([stats]))

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
        from sinks.druid.rows import gzipped, json_lines  # noqa: PLC0415 (polars, only where there are rows)

        # Its columns belong to its name: another part may have turned one of them into text since.
        name = f"{self._base}/{part.name}-{part.sha256[:16]}-{columns_hash(columns)}"

        return self._once(name, lambda: gzipped(json_lines(self._ctx.lake, part, columns)), rows=stats.rows)

    def staged_blocks(self, name: str, blocks: Iterable[bytes], *, rows: int) -> StagedObject:
        """Write rows that are computed, not copied, and return the object; the same rows give the same object."""
        digest, pieces = hashlib.sha256(), []
        for block in blocks:
            digest.update(block)
            pieces.append(block)
            self._ctx.beat()
        data, sha256 = b"".join(pieces), digest.hexdigest()
        key = f"{self._base}/{name}-{sha256[:16]}.json.gz"
        if self.store.head(key) is None:
            self.store.put_if_absent(key, data, sha256=sha256)
        failpoint("druid.staged_rows")
        return StagedObject(key, len(data), sha256, rows)

    def inline_text(self, parts: Sequence[PartView], columns: Sequence[DruidColumn]) -> str:
        """Return the rows of all parts as one text; SinkRejected where they are more than a task can carry."""
        from sinks.druid.rows import json_lines  # noqa: PLC0415

        pieces, size = [], 0
        for part in parts:
            for block in json_lines(self._ctx.lake, part, columns):
                size += len(block)
                if size > INLINE_BYTES:
                    self._refuse_inline()
                pieces.append(block)
                self._ctx.beat()
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
            self._ctx.beat()

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
                self._ctx.beat()

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
                self._ctx.beat()
            info: ObjectInfo = writer.commit()
        finally:
            writer.abort()
        failpoint("druid.rows_written")
        staged = StagedObject(key, info.size_bytes, info.sha256 or "", rows)
        lake.put_if_absent(note, json.dumps(asdict(staged), sort_keys=True).encode())
        failpoint("druid.rows_noted")
        return staged


def open_staging(url: str, *, access_key: SecretStr | None, secret_key: SecretStr | None, destination: str) -> Lake:
    """Return the store at that address, opened with these keys; nothing is asked of it yet."""
    store = open_lake(
        url,
        access_key=access_key.get_secret_value() if access_key else None,
        secret_key=secret_key.get_secret_value() if secret_key else None,
    )
    proxy: Any = StagingStore(store, destination=destination)
    return cast(Lake, proxy)


class StagingStore:
    """Proxy of a store, and of the writers that it gives, whose every call fails with the destination's errors."""

    def __init__(self, store: Any, *, destination: str) -> None:
        self._store, self._destination = store, destination

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def call(*values: Any, **named: Any) -> Any:
            with as_destination(self._destination, part=STORE):
                result = found(*values, **named)
                # What is listed comes while it is asked for, and what is written goes by calls of its own.
                result = iter(list(result)) if name == "list" else result
            return StagingStore(result, destination=self._destination) if name == "writer" else result

        return call
