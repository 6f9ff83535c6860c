"""Temporary folders below the installation's scratch folder: named after their owner, removed, and swept after a kill.

A name is `<purpose>-<machine>-<pid>-<start>-<random>`: the process that made the folder, and when it was started, so
that another process that has its number later is not taken for it.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

_OWNED = re.compile(r"[a-z-]+-(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]+)-(?P<start>[0-9]+)-[0-9a-f]{8}")
_LEGACY = re.compile(r"(?:query|workbook|objects|druid-merge)-[a-z0-9_]{8}")
"""Names of earlier versions, which say nothing of their owner."""
_PURPOSE = re.compile(r"[a-z]+(?:-[a-z]+)*")


@contextmanager
def scratch_folder(scratch: Path | None, purpose: str) -> Iterator[Path]:
    """Give an empty folder of this process below `scratch` (None: below the system's own), gone when the block ends."""
    if not _PURPOSE.fullmatch(purpose):
        msg = f"{purpose!r} is no purpose: lower-case words joined by hyphens"
        raise ValueError(msg)
    parent = scratch or Path(tempfile.gettempdir())
    pid = os.getpid()
    folder = parent / f"{purpose}-{_machine()}-{pid}-{_start_of(pid) or 0}-{os.urandom(4).hex()}"
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_scratch(scratch: Path, *, before: datetime) -> int:
    """Remove the folders whose process is dead, and return how many they were.

    What a live process uses stays, however old it is. Where a folder's process cannot be known (another machine or
    container made it, or an earlier version), it goes where nothing was written in it since `before`.
    """
    removed = 0
    for folder in scratch.glob("*"):
        with suppress(FileNotFoundError):  # its owner removes it at this moment
            if _is_abandoned(folder, unused_since=before.timestamp()):
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
    return removed


def _is_abandoned(folder: Path, *, unused_since: float) -> bool:
    owned = _OWNED.fullmatch(folder.name)
    if owned is not None and owned["machine"] == _machine() and owned["start"] != "0":
        return _start_of(int(owned["pid"])) != int(owned["start"])
    if owned is None and _LEGACY.fullmatch(folder.name) is None:
        return False
    return all(path.stat().st_mtime < unused_since for path in (folder, *folder.rglob("*")))


@lru_cache(maxsize=1)
def _machine() -> str:
    """Return what tells this machine since its last start, and the container, from others: they number alike."""
    try:
        told = Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        told = os.uname().nodename, ""
    return sha256("".join(told).encode()).hexdigest()[:8]


def _start_of(pid: int) -> int | None:
    """Return when the process was started, in ticks since the machine was; None where it does not run."""
    try:
        # After the name, which may hold anything: the state is the first field, the start the twentieth.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])
