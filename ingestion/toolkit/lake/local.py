"""A lake in a folder of this machine."""

import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ingestion.ports.context import ObjectInfo
from ingestion.ports.errors import ConfigError, IngestError, SinkUnavailable, StoreCorrupt
from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake.keys import (
    blocks,
    check_hash,
    check_key,
    check_prefix,
    check_same,
    is_hidden,
    opened,
    sha256_of,
    size_of,
)

SYNC_EVERY_BYTES = 16 << 20
"""Written bytes are handed to the disk this often, so that commit after a long stream has little left to wait for."""
TEMPORARY_PREFIX = ".w-"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SETTINGS = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
        errno.ENOENT,
        errno.EEXIST,
    }
)
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_flush_data = getattr(os, "fdatasync", os.fsync)


def translate_os_error(error: OSError) -> IngestError:
    """Return our error for one of the file system's; what is unknown may pass, so it is tried again."""
    if error.errno in _FULL:
        return SinkUnavailable("store.no_space")
    detail = error.strerror or type(error).__name__
    if error.errno in _SETTINGS:
        return ConfigError("store.config", detail=f"{detail}: {error.filename}" if error.filename else detail)
    return SinkUnavailable("store.unavailable", detail=detail)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise translate_os_error(error) from error


class LocalLake:
    """Objects as files below one folder; a file has its name only once it is complete and on the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"LocalLake({str(self.root)!r})"

    def put_if_absent(
        self,
        key: str,
        source: bytes | Path,
        *,
        sha256: str | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> ObjectInfo:
        """Store the object unless it is there; the same content there is success, other content StoreCorrupt."""
        path = self._path(key)
        if path.is_file():
            found = sha256_of(source)
            check_hash(key, expected=sha256, found=found)
            with _translated():
                return self._existing(key, size_bytes=size_of(source), sha256=found)
        return self._filled(key, source, sha256=sha256, beat=beat).commit()

    def put(self, key: str, source: bytes | Path, *, sha256: str | None = None) -> ObjectInfo:
        """Store the object, replacing what is there; only for pointers that are meant to move."""
        return self._filled(key, source, sha256=sha256).commit(replace=True)

    def writer(self, key: str, *, sha256: str | None = None) -> "LocalWriter":
        """Return a writer that streams one object of unknown length; nothing is seen before `commit`.

        With the hash that is expected, other bytes are StoreCorrupt at `commit`.
        """
        return LocalWriter(self, key, expected=sha256)

    def open(self, key: str) -> BinaryIO:
        """Return the object as a seekable binary file; StoreCorrupt where it is missing."""
        path = self._path(key)
        with _translated():
            try:
                return path.open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise StoreCorrupt("store.missing", key=key) from error

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `offset`, or all that follow it."""
        with self.open(key) as stream, _translated():
            stream.seek(offset)
            return stream.read() if length is None else stream.read(length)

    def head(self, key: str) -> ObjectInfo | None:
        """Return size and time of the object, or None; a folder keeps no hashes."""
        path = self._path(key)
        with _translated():
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return None if path.is_dir() else _info(key, found)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in key order."""
        folder = check_prefix(prefix).rpartition("/")[0]
        with _translated():
            yield from _walk(self.root / folder, base=f"{folder}/" if folder else "", prefix=prefix)

    def delete(self, key: str) -> None:
        """Remove the object, and folders that are empty then; nothing happens where it is not there."""
        path = self._path(key)
        with _translated():
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            _sync_folder(path.parent)
            for folder in path.parents:
                if folder == self.root:
                    break
                try:
                    folder.rmdir()
                except OSError:
                    break

    def presign(self, key: str, *, expires_s: int) -> str:  # noqa: ARG002 - a file has no expiry
        """Return the file's own address: who may read the folder may read it, at any time."""
        return self._path(key).absolute().as_uri()

    def place(self, key: str) -> None:
        """Return None: a folder is no bucket."""
        self._path(key)

    def local_path(self, key: str) -> Path | None:
        """Return the file that holds the object."""
        return self._path(key)

    def abort_stale_uploads(self, older_than: datetime, *, prefix: str = "", dry_run: bool = False) -> int:
        """Remove what writers left unfinished before that time below a prefix that ends with "/", and count it."""
        limit = older_than.timestamp()
        removed = 0
        with _translated():
            for folder, _, names in os.walk(self.root / check_prefix(prefix)):
                for name in names:
                    path = Path(folder, name)
                    with suppress(FileNotFoundError):
                        if name.startswith(TEMPORARY_PREFIX) and path.stat().st_mtime < limit:
                            if not dry_run:
                                path.unlink()
                            removed += 1
        return removed

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _filled(
        self, key: str, source: bytes | Path, *, sha256: str | None, beat: Callable[[], None] = lambda: None
    ) -> "LocalWriter":
        writer = self.writer(key, sha256=sha256)
        try:
            with opened(source) as stream:
                for block in blocks(stream):
                    writer.write(block)
                    beat()
        except BaseException:
            writer.abort()
            raise
        return writer

    def _existing(self, key: str, *, size_bytes: int, sha256: str) -> ObjectInfo:
        path = self._path(key)
        # The winner's name may not be on the disk yet; whoever reports success answers for it.
        _sync_folder(path.parent)
        found = _info(key, path.stat(), sha256=sha256_of(path))
        return check_same(key, existing=found, size_bytes=size_bytes, sha256=sha256)

    def _publish(self, temporary: Path, path: Path) -> bool:
        """Give the finished file its name and return True, or return False where the name is taken."""
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            return self._publish_locked(temporary, path)
        return True

    def _publish_locked(self, temporary: Path, path: Path) -> bool:
        # File systems without hard links: the kernel drops the lock of a writer that dies, so none is left behind.
        with (self.root / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return False
            temporary.rename(path)
            return True


class LocalWriter:
    """One object being written beside its place, under a hidden name."""

    def __init__(self, lake: LocalLake, key: str, *, expected: str | None) -> None:
        self.size_bytes = 0
        self._expected = expected
        self._lake = lake
        self._key = key
        self._path = lake.root / check_key(key)
        self._digest = hashlib.sha256()
        self._unsynced_bytes = 0
        self._committed: ObjectInfo | None = None
        with _translated():
            self._temporary, self._stream = _create_beside(self._path, root=lake.root)

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of what was written so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Append the bytes."""
        with _translated():
            self._stream.write(data)
            self._digest.update(data)
            self.size_bytes += len(data)
            self._unsynced_bytes += len(data)
            if self._unsynced_bytes >= SYNC_EVERY_BYTES:
                self._stream.flush()
                _flush_data(self._stream.fileno())
                self._unsynced_bytes = 0

    def commit(self, *, replace: bool = False) -> ObjectInfo:
        """Make the object visible, durable and immutable, and return its size and SHA-256."""
        if self._committed is None:
            failpoint("lake.before_put")
            try:
                with _translated():
                    self._committed = self._finish(replace=replace)
            finally:
                self.abort()
            failpoint("lake.after_put")
        return self._committed

    def abort(self) -> None:
        """Remove what was written; harmless after `commit`."""
        with suppress(OSError):
            self._stream.close()
        self._temporary.unlink(missing_ok=True)

    def _finish(self, *, replace: bool) -> ObjectInfo:
        check_hash(self._key, expected=self._expected, found=self.sha256)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        if replace:
            self._temporary.replace(self._path)
        elif not self._lake._publish(self._temporary, self._path):
            return self._lake._existing(self._key, size_bytes=self.size_bytes, sha256=self.sha256)
        _sync_folder(self._path.parent)
        return _info(self._key, self._path.stat(), sha256=self.sha256)


def _create_beside(path: Path, *, root: Path) -> tuple[Path, BinaryIO]:
    tries = 5
    while True:
        tries -= 1
        _make_folders(path.parent, root=root)
        temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        try:
            # Not tempfile: its files are readable by their owner alone, and others read a lake or a destination too.
            return temporary, temporary.open("xb", buffering=1 << 18)
        except FileNotFoundError:
            # A delete in another process has just removed the folder that had become empty.
            if not tries:
                raise


def _make_folders(folder: Path, *, root: Path) -> None:
    if folder.is_dir():
        return
    if folder != root:
        _make_folders(folder.parent, root=root)
    folder.mkdir(parents=True, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    # A name is on the disk only once its folder is.
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _info(key: str, found: os.stat_result, *, sha256: str | None = None) -> ObjectInfo:
    modified_at = datetime.fromtimestamp(found.st_mtime, tz=UTC)
    return ObjectInfo(key=key, size_bytes=found.st_size, sha256=sha256, modified_at=modified_at)


def _walk(folder: Path, *, base: str, prefix: str) -> Iterator[ObjectInfo]:
    try:
        with os.scandir(folder) as found:
            entries = [(f"{e.name}/" if e.is_dir() else e.name, e) for e in found if not is_hidden(e.name)]
    except (FileNotFoundError, NotADirectoryError):
        return
    # With its slash a folder sorts where its keys do.
    for name, entry in sorted(entries, key=lambda pair: pair[0]):
        key = base + name
        if name.endswith("/"):
            if key.startswith(prefix) or prefix.startswith(key):
                yield from _walk(folder / entry.name, base=key, prefix=prefix)
        elif key.startswith(prefix):
            with suppress(FileNotFoundError):
                yield _info(key, entry.stat())
