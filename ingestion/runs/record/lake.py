"""The lake of this installation: opening it, the deterministic names in it, and tables stored as parts of a run."""

import hashlib
import io
import secrets
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO

from django.conf import settings

from ingestion.models import Part, Run
from ingestion.ports.publication import KEY_HASHES
from ingestion.toolkit.failpoints import is_switched
from ingestion.toolkit.lake.opening import ObjectStore
from ingestion.toolkit.lake.opening import open_lake as open_store


def open_lake() -> ObjectStore:
    """Return the lake of this installation, one client a process."""
    return _open(settings.HEADGATE_LAKE_URL)


@lru_cache(maxsize=4)
def _open(url: str) -> ObjectStore:
    return open_store(url)


RESERVED_NAMES = frozenset({*Part.Zone.values, "manifests", "uploads"})
"""The first segments of the lake's keys. Pipelines have other names, so that no folder of theirs is taken for one."""


def part_key(run: Run, *, zone: str, lane: int, link: int, seq: int, sha256: str, extension: str) -> str:
    """Return the key of a part: the same work gives the same key, however often it is done (rule R4)."""
    tail = secrets.token_hex(8) if is_switched("random_keys") else sha256[:16]
    return f"{zone}/{run.pipeline.name}/{run.pk}/{lane}-{link}/{seq:06d}-{tail}.{extension}"


def manifest_key(run: Run) -> str:
    """Return the key of what the run publishes."""
    return f"manifests/{run.pipeline.name}/{run.pk}.json"


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of the bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


if TYPE_CHECKING:
    import pyarrow as pa


def make_part(
    run: Run,
    zone: str,
    *,
    lane: int,
    link: int,
    seq: int,
    table: "pa.Table",
    write: "Callable[[pa.Table, BinaryIO], None]",
) -> Part:
    """Return the unsaved row of the table's part, its object stored; the same table gives the same key and bytes."""
    buffer = io.BytesIO()
    write(table, buffer)
    data = buffer.getvalue()
    digest = sha256_hex(data)
    key = part_key(run, zone=zone, lane=lane, link=link, seq=seq, sha256=digest, extension="parquet")
    open_lake().put_if_absent(key, data, sha256=digest)
    return Part(
        run=run,
        zone=zone,
        lane=lane,
        link=link,
        seq=seq,
        key=key,
        size_bytes=len(data),
        sha256=digest,
        rows=table.num_rows,
    )


def put_hashes(part: Part, hashes: bytes) -> str:
    """Store the key hashes of a clean part beside it and return their key."""
    key = hashes_key(part.key)
    open_lake().put_if_absent(key, hashes)
    return key


def hashes_key(part_key: str) -> str:
    """Return where the key hashes of a clean part lie."""
    return f"{part_key.removesuffix('.parquet')}{KEY_HASHES}"
