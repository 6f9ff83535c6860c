"""A place on this machine for files on their way, and bringing bytes there that are the recorded ones."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingestion.ports.context import Context, Lake
from ingestion.ports.errors import StoreCorrupt
from ingestion.toolkit.lake.local import translate_os_error
from ingestion.toolkit.lake.opening import ObjectStore
from ingestion.toolkit.scratch import scratch_folder

BLOCK_BYTES = 1 << 20
TRIES = 2
"""Bytes that are not the recorded ones may have been spoilt on the way: they are read once more."""


@contextmanager
def working_folder(ctx: Context) -> Iterator[Path]:
    """Give an empty folder that is gone afterwards."""
    try:
        with scratch_folder(ctx.scratch, "objects") as folder:
            yield folder
    except OSError as error:
        raise translate_os_error(error) from error


def fetch(lake: Lake, key: str, *, sha256: str, into: Path, ctx: Context) -> None:
    """Bring an object into a local file; StoreCorrupt where it is missing or not what was recorded."""
    found = ""
    for _ in range(TRIES):
        digest = hashlib.sha256()
        with lake.open(key) as stream, into.open("wb") as target:
            while block := stream.read(BLOCK_BYTES):
                ctx.beat()
                digest.update(block)
                target.write(block)
        found = digest.hexdigest()
        if found == sha256:
            return
    raise StoreCorrupt("store.corrupt", key=key, detail=f"SHA-256 begins {found[:16]}")


def send(source: Path, store: ObjectStore, key: str, *, sha256: str, ctx: Context) -> None:
    """Store a local file whose hash is known, unless it is there."""
    store.put_if_absent(key, source, sha256=sha256, beat=ctx.beat)
