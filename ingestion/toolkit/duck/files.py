"""Parts as local files, for readers that know paths alone: where they lie, or a bounded store of copies."""

import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from ingestion.ports.errors import ConfigError, StoreCorrupt
from ingestion.ports.publication import PartView
from ingestion.toolkit.lake.keys import blocks, sha256_of
from ingestion.toolkit.lake.opening import ObjectStore
from ingestion.toolkit.scratch import scratch_folder

IN_USE_S = 900
"""A copy that was asked for within that time is not removed: somebody may be reading it."""


def local_files(lake: ObjectStore, parts: Sequence[PartView], *, folder: Path, limit_bytes: int) -> list[Path]:
    """Return a local file for each part: the lake's own, or a copy in the folder, which keeps `limit_bytes` at most.

    ConfigError where the parts together are larger. Copies are checked by their hash, made whole or not at all, and
    used again, the longest unused going first.
    """
    found = [lake.local_path(part.key) for part in parts]
    missing = {part.sha256: part for part, path in zip(parts, found, strict=True) if path is None}
    size_bytes = sum(part.size_bytes for part in missing.values())
    if size_bytes > limit_bytes:
        raise ConfigError("query.too_large", size_bytes=size_bytes, limit_bytes=limit_bytes)
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder, limit_bytes - size_bytes, keep=missing.keys())
    copies = {sha256: _copy(lake, part, folder=folder) for sha256, part in missing.items()}
    files = [path or copies[part.sha256] for part, path in zip(parts, found, strict=True)]
    for part, path in zip(parts, files, strict=True):
        if not path.is_file():
            raise StoreCorrupt("store.missing", key=part.key)
    return files


def _copy(lake: ObjectStore, part: PartView, *, folder: Path) -> Path:
    target = folder / f"{part.sha256}.parquet"
    try:
        os.utime(target)
    except FileNotFoundError:
        with scratch_folder(folder.parent, "copy") as made:
            copy = made / target.name
            with lake.open(part.key) as stored, copy.open("wb") as file:
                file.writelines(blocks(stored))
            if sha256_of(copy) != part.sha256:
                raise StoreCorrupt("store.corrupt", key=part.key, detail="its SHA-256 is another one") from None
            copy.replace(target)
    return target


def _make_room(folder: Path, room_bytes: int, *, keep: Collection[str]) -> None:
    """Remove copies, the longest unused first, until those that are not kept leave the room."""
    held: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # removed by somebody else just now
        if path.stem not in keep:
            held.append((status.st_mtime, status.st_size, path))
    used_bytes = sum(size for _, size, _ in held)
    unused_since = time.time() - IN_USE_S
    for at, size, path in sorted(held):
        if used_bytes <= room_bytes or at > unused_since:
            return
        path.unlink(missing_ok=True)
        used_bytes -= size
