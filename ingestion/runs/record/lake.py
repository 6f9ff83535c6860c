"""Our own lake: how it is opened, and the deterministic names in it."""

import hashlib
import secrets
from functools import lru_cache

from django.conf import settings

from ingestion.models import Run
from ingestion.toolkit.failpoints import is_switched
from ingestion.toolkit.lake.opening import ObjectStore
from ingestion.toolkit.lake.opening import open_lake as open_store


def open_lake() -> ObjectStore:
    """Return the lake of this installation, one client a process."""
    return _open(settings.HEADGATE_LAKE_URL)


@lru_cache(maxsize=4)
def _open(url: str) -> ObjectStore:
    return open_store(url)


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
