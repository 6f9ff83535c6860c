"""The store for rows on their way as a part of the destination: its errors are not taken for those of our own lake."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pydantic import SecretStr

from ingestion.ports.context import BucketPlace, LakeWriter, ObjectInfo
from ingestion.toolkit.lake.destination import as_destination
from ingestion.toolkit.lake.opening import ObjectStore, open_lake

PART = "staging store"
"""What the store is called where something is wrong with it."""


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
        with as_destination(self._destination, part=PART):
            return self._store.put_if_absent(key, source, sha256=sha256)

    def put(self, key: str, source: bytes | Path, *, sha256: str | None = None) -> ObjectInfo:
        """Store the object, replacing what is there."""
        with as_destination(self._destination, part=PART):
            return self._store.put(key, source, sha256=sha256)

    def writer(self, key: str) -> "StagingWriter":
        """Return a writer that streams one object."""
        with as_destination(self._destination, part=PART):
            return StagingWriter(self._store.writer(key), destination=self._destination)

    def open(self, key: str) -> BinaryIO:
        """Return the object as a seekable binary file."""
        with as_destination(self._destination, part=PART):
            return self._store.open(key)

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `offset`, or all that follow it."""
        with as_destination(self._destination, part=PART):
            return self._store.read(key, offset=offset, length=length)

    def head(self, key: str) -> ObjectInfo | None:
        """Return what the store knows of the object, or None."""
        with as_destination(self._destination, part=PART):
            return self._store.head(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`."""
        with as_destination(self._destination, part=PART):
            yield from self._store.list(prefix)

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where it is not there."""
        with as_destination(self._destination, part=PART):
            self._store.delete(key)

    def presign(self, key: str, *, expires_s: int) -> str:
        """Return a URL that reads this one object until it expires."""
        with as_destination(self._destination, part=PART):
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
        with as_destination(self._destination, part=PART):
            self._writer.write(data)
        self.size_bytes = self._writer.size_bytes

    def commit(self) -> ObjectInfo:
        """Make the object visible."""
        with as_destination(self._destination, part=PART):
            return self._writer.commit()

    def abort(self) -> None:
        """Remove what was written; harmless after `commit`."""
        with as_destination(self._destination, part=PART):
            self._writer.abort()
