"""A place on this machine for files on their way, and bringing bytes there that are the recorded ones."""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from ingestion.ports.context import Context, Lake
from ingestion.ports.errors import Cancelled, StoreCorrupt
from ingestion.toolkit.lake.local import translate_os_error
from ingestion.toolkit.lake.opening import ObjectStore

BLOCK_BYTES = 1 << 20
TRIES = 2
"""Bytes that are not the recorded ones may have been spoilt on the way: they are read once more."""
_PREFIX = "objects-"
_LEFT_BEHIND_S = 24 * 3600


@contextmanager
def working_folder(ctx: Context) -> Iterator[Path]:
    """Give an empty folder that is gone afterwards; what killed processes left of theirs a day ago goes with it."""
    try:
        if ctx.scratch is not None:
            ctx.scratch.mkdir(parents=True, exist_ok=True)
            _sweep(ctx.scratch)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=ctx.scratch, ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        raise translate_os_error(error) from error


def fetch(lake: Lake, key: str, *, sha256: str, into: Path, ctx: Context) -> None:
    """Bring an object into a local file; StoreCorrupt where it is missing or not what was recorded."""
    found = ""
    for _ in range(TRIES):
        digest = hashlib.sha256()
        with lake.open(key) as stream, into.open("wb") as target:
            while block := stream.read(BLOCK_BYTES):
                raise_if_stopped(ctx)
                digest.update(block)
                target.write(block)
        found = digest.hexdigest()
        if found == sha256:
            return
    raise StoreCorrupt("store.corrupt", key=key, detail=f"SHA-256 begins {found[:16]}")


def send(source: Path, store: ObjectStore, key: str, *, sha256: str, ctx: Context) -> None:
    """Store a local file whose hash is known, unless it is there."""
    store.put_if_absent(key, source, sha256=sha256, beat=partial(raise_if_stopped, ctx))


def raise_if_stopped(ctx: Context) -> None:
    """Tell the watcher that work goes on, and end it where it shall not."""
    if ctx.should_stop():
        raise Cancelled
    ctx.progress()


def _sweep(folder: Path) -> None:
    for left in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - _LEFT_BEHIND_S:
                shutil.rmtree(left, ignore_errors=True)
