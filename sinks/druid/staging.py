"""How the rows come to Druid's workers: which way, what has to be written for it, and where that lies.

<zone>/<pipeline>/<run>/<destination>/<part>-<sha256[:16]>.stats.json    what is known of a clean part
<zone>/<pipeline>/<run>/<destination>/<name>-<sha256[:16]>.json.gz       rows as JSON Lines, for the ways that need them

Only objects that we wrote ourselves ever reach Druid, and each is looked up before a task may read it: on a missing
one a task holds its slot for more than three minutes.
"""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from ingestion.ports.context import Context, Lake, ObjectInfo
from ingestion.ports.errors import Cancelled, ConfigError, SinkRejected, StoreCorrupt
from ingestion.ports.sink import DeliveryView, PartView
from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake import bucket_place, local_path, open_lake
from sinks.druid.client import DruidClient
from sinks.druid.columns import DruidColumn, druid_columns, is_changed
from sinks.druid.config import DruidConfig, InputWay
from sinks.druid.spec import JSON, PARQUET

if TYPE_CHECKING:
    from sinks.druid.rows import PartStats

ZONE = "staged"
INLINE_BYTES = 1_000_000
_GRACE_S = 900
"""Added to a task's time limit for the addresses it reads: they must outlive its retries."""
_S3_MODULES = ("s3",)
_PARQUET_MODULES = ("parquet",)
_SQL_MODULES = ("msq", "multi-stage")
_SQL_IS_CORE = 35
"""From this version on the multi-stage engine is part of Druid and no extension any more."""


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a Druid has loaded, as its /status lists it."""

    s3: bool
    parquet: bool
    sql: bool
    version: str = ""

    @classmethod
    def of(cls, status: dict[str, Any]) -> "Extensions":
        """Return what the answer of /status says."""
        names = [f"{module.get('artifact')} {module.get('name')}".lower() for module in status.get("modules") or ()]

        def has(marks: Sequence[str]) -> bool:
            return any(mark in name for name in names for mark in marks)

        version = str(status.get("version") or "")
        major = version.partition(".")[0]
        # A cloud library that every Druid carries is called druid-aws-common; the extension says S3.
        return cls(
            s3=has(_S3_MODULES),
            parquet=has(_PARQUET_MODULES),
            sql=has(_SQL_MODULES) or (major.isdecimal() and int(major) >= _SQL_IS_CORE),
            version=version,
        )


@dataclass(frozen=True, slots=True)
class Way:
    """One way for the rows: how Druid reads, and what it reads."""

    input: InputWay
    format: str
    reason: str


@dataclass(frozen=True, slots=True)
class StagedObject:
    """One object that a task is to read."""

    key: str
    size_bytes: int
    sha256: str
    rows: int


def choose_way(config: DruidConfig, found: Extensions, *, is_bucket: bool, is_local: bool) -> Way:
    """Return how Druid gets the rows; ConfigError where a way was asked for that cannot be. Pure.

    `is_bucket` and `is_local` say what the place is where the rows lie.
    """
    wanted = config.input
    if wanted in (InputWay.AUTO, InputWay.S3) and is_bucket and found.s3:
        if found.parquet:
            return Way(
                InputWay.S3, PARQUET, "Druid reads the Parquet files from the bucket: both extensions are loaded."
            )
        return Way(InputWay.S3, JSON, "Druid reads JSON Lines from the bucket: its Parquet extension is not loaded.")
    if wanted is InputWay.S3:
        missing = "druid-s3-extensions is not loaded there" if is_bucket else "the rows do not lie in a bucket"
        raise ConfigError("sink.no_way", wanted="s3", detail=missing)
    if wanted in (InputWay.AUTO, InputWay.PRESIGNED) and is_bucket:
        lacks = "it was asked for" if wanted is InputWay.PRESIGNED else "druid-s3-extensions is not loaded"
        return Way(InputWay.PRESIGNED, JSON, f"Druid reads JSON Lines by signed addresses: {lacks}.")
    if wanted is InputWay.PRESIGNED:
        raise ConfigError("sink.no_way", wanted="presigned", detail="the rows do not lie in a bucket")
    if wanted in (InputWay.AUTO, InputWay.LOCAL) and config.shares_disk and is_local:
        name = "Parquet" if found.parquet else "JSON Lines"
        return Way(
            InputWay.LOCAL, PARQUET if found.parquet else JSON, f"Druid shares this machine's disk and reads {name}."
        )
    if wanted is InputWay.LOCAL:
        missing = "the rows do not lie in a folder" if config.shares_disk else "shares_disk is not set"
        raise ConfigError("sink.no_way", wanted="local", detail=missing)
    return Way(InputWay.INLINE, JSON, "The rows travel inside the task, so a run may have 1 MB of them at most.")


class Staging:
    """The objects of one delivery on their way into Druid."""

    def __init__(
        self, config: DruidConfig, ctx: Context, *, delivery: DeliveryView, find_way: Callable[[], Way]
    ) -> None:
        """Take how the way is found out: Druid is asked only where it matters."""
        self._find_way = find_way
        self._config, self._ctx, self._delivery = config, ctx, delivery
        self._base = f"{ZONE}/{delivery.pipeline}/{delivery.run_id}/{delivery.destination}"

    @cached_property
    def way(self) -> Way:
        """Return how Druid gets the rows."""
        return self._find_way()

    def prepare(self, part: PartView, *, time_column: str | None, with_rows: bool) -> "PartStats":
        """Return what the part holds, with its rows written where the way needs them; what is there already stays."""
        stats = self._stats(part, time_column=time_column)
        if with_rows and self.needs_rows([stats]):
            self.staged_rows(part, stats)
        return stats

    def needs_rows(self, stats: Sequence["PartStats"]) -> bool:
        """Return whether rows have to be written as JSON Lines for Druid to read them from an object."""
        if self.way.input is InputWay.INLINE:
            return False
        return not self.reads_parquet(stats)

    def reads_parquet(self, stats: Sequence["PartStats"]) -> bool:
        """Return whether Druid can read the clean parts as they are: names it bears, and no uint64, which it clamps."""
        if self.way.format != PARQUET or self._config.staging:
            return False
        columns = druid_columns(self._delivery.contract, [part.types for part in stats])
        return not is_changed(columns) and not any("uint64" in part.types.values() for part in stats)

    def clean_object(self, part: PartView) -> StagedObject:
        """Return the clean part itself as what is read."""
        return StagedObject(part.key, part.size_bytes, part.sha256, part.rows)

    def staged_rows(self, part: PartView, stats: "PartStats") -> StagedObject:
        """Return the part's rows as a staged object, written if they are not there yet."""
        from sinks.druid.rows import gzipped, json_lines  # noqa: PLC0415 (polars, only where there are rows)

        name = f"{self._base}/{part.name}-{part.sha256[:16]}"
        columns = druid_columns(self._delivery.contract, [stats.types])

        def blocks() -> Iterator[bytes]:
            with self._ctx.lake.open(part.key) as source:
                yield from gzipped(json_lines(source, columns))

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
        from sinks.druid.rows import json_lines  # noqa: PLC0415

        pieces, size = [], 0
        for part in parts:
            with self._ctx.lake.open(part.key) as source:
                for block in json_lines(source, columns):
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

    def look_up(self, objects: Sequence[StagedObject], *, is_clean: bool) -> None:
        """Raise StoreCorrupt unless every object is there with the size and hash that were recorded."""
        store = self._ctx.lake if is_clean else self.store
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
        if self.way.input is InputWay.S3:
            return self._s3_source([bucket_place(store, item.key) for item in objects])
        if self.way.input is InputWay.PRESIGNED:
            signer = self._reader if self._config.read_access_key else store
            lifetime_s = self._config.task_timeout_s + _GRACE_S
            return {"type": "http", "uris": [signer.presign(item.key, expires_s=lifetime_s) for item in objects]}
        return {"type": "local", "files": [str(local_path(store, item.key)) for item in objects]}

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
        return _open(self._config.staging, self._config.staging_access_key, self._config.staging_secret_key)

    @cached_property
    def _reader(self) -> Lake:
        return _open(self._config.staging, self._config.read_access_key, self._config.read_secret_key)

    def _s3_source(self, places: Sequence[Any]) -> dict[str, Any]:
        source: dict[str, Any] = {
            "type": "s3",
            "objects": [{"bucket": place.bucket, "path": place.path} for place in places],
        }
        if self._config.s3_key_variable:
            # With properties a spec inherits nothing of druid.s3.*, so all of it is said again; keys themselves
            # would not survive a restart of the Overlord, the names of variables do.
            first = places[0]
            source["properties"] = {
                "accessKeyId": {"type": "environment", "variable": self._config.s3_key_variable},
                "secretAccessKey": {"type": "environment", "variable": self._config.s3_secret_variable},
            }
            source["endpointConfig"] = {"url": first.endpoint, "signingRegion": first.region}
            source["clientConfig"] = {"enablePathStyleAccess": first.path_style, "disableChunkedEncoding": True}
        return source

    def _stats(self, part: PartView, *, time_column: str | None) -> "PartStats":
        from sinks.druid.rows import PartStats, read_stats  # noqa: PLC0415

        key = f"{self._base}/{part.name}-{part.sha256[:16]}.stats.json"
        if self._ctx.lake.head(key) is not None:
            return PartStats.from_json(self._ctx.lake.read(key))
        found = self._ctx.lake.head(part.key)
        if found is None:
            raise StoreCorrupt("store.missing", key=part.key)
        with self._ctx.lake.open(part.key) as source:
            stats = read_stats(source, time_column=time_column)
        if stats.rows != part.rows:
            raise StoreCorrupt("store.corrupt", key=part.key, detail=f"{stats.rows} rows instead of {part.rows}")
        self._ctx.lake.put_if_absent(key, stats.to_json())
        failpoint("druid.stats_written")
        return stats

    def _once(self, name: str, blocks: Callable[[], Iterator[bytes]], *, rows: int) -> StagedObject:
        """Write the object of that name once, and beside it what it must be found as."""
        note, key = f"{name}.object.json", f"{name}.json.gz"
        lake = self._ctx.lake
        if lake.head(note) is not None:
            return StagedObject(**json.loads(lake.read(note)))
        if self.store.head(key) is not None:
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
        text = json.dumps({name: getattr(staged, name) for name in ("key", "size_bytes", "sha256", "rows")}).encode()
        lake.put_if_absent(note, text)
        failpoint("druid.rows_noted")
        return staged

    def _beat(self) -> None:
        self._ctx.progress()
        if self._ctx.should_stop():
            raise Cancelled


def find_way(config: DruidConfig, client: DruidClient, lake: Lake) -> Way:
    """Return how this Druid gets the rows of this lake, as its /status and the settings have it."""
    return choose_way(
        config,
        Extensions.of(client.status()),
        is_bucket=bool(config.staging) or bucket_place(lake, "x") is not None,
        is_local=not config.staging and local_path(lake, "x") is not None,
    )


def _open(url: str, access_key: Any, secret_key: Any) -> Lake:
    return open_lake(
        url,
        access_key=access_key.get_secret_value() if access_key else None,
        secret_key=secret_key.get_secret_value() if secret_key else None,
    )
