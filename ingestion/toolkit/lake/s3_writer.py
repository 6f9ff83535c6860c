"""Streaming one object of unknown length into a bucket."""

import hashlib
from contextlib import AbstractContextManager
from typing import Protocol

from ingestion.ports.context import ObjectInfo
from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake.keys import check_hash
from ingestion.toolkit.lake.s3_upload import PART_BYTES, MultipartUpload


class Bucket(Protocol):
    """The bucket as its writer needs it; each call tells the store's errors as ours."""

    def translated(self, key: str) -> AbstractContextManager[None]:
        """Give the block in which the store's errors become ours."""
        ...

    def start_upload(self, key: str, *, sha256: str | None) -> MultipartUpload:
        """Return a multipart upload of the object, begun."""
        ...

    def look_first(self, key: str, *, size_bytes: int, sha256: str) -> ObjectInfo | None:
        """Return the same object where it is there and the store would overwrite it; StoreCorrupt for another."""
        ...

    def put_small(self, key: str, data: bytes, *, sha256: str, only_if_absent: bool) -> ObjectInfo:
        """Store the object with one request."""
        ...

    def finish_upload(
        self, key: str, upload: MultipartUpload, *, size_bytes: int, sha256: str, only_if_absent: bool
    ) -> ObjectInfo:
        """Make the uploaded parts the object."""
        ...


class S3Writer:
    """One object being sent as it is written; what fits into one part goes as one request at the end."""

    def __init__(self, lake: Bucket, key: str, *, expected: str | None) -> None:
        self.size_bytes = 0
        self._expected = expected
        self._lake = lake
        self._key = key
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._upload: MultipartUpload | None = None
        self._committed: ObjectInfo | None = None

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of what was written so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Append the bytes."""
        self._digest.update(data)
        self.size_bytes += len(data)
        with memoryview(data) as view:
            start = 0
            while start < len(view):
                # Sent only once more bytes come, for the last part is sent by `commit`; and given away, not copied.
                if len(self._buffer) == PART_BYTES:
                    with self._lake.translated(self._key):
                        self._send(self._buffer)
                    self._buffer = bytearray()
                end = start + PART_BYTES - len(self._buffer)
                self._buffer += view[start:end]
                start = end

    def commit(self) -> ObjectInfo:
        """Make the object visible, durable and immutable, and return its size and SHA-256."""
        if self._committed is None:
            failpoint("lake.before_put")
            try:
                with self._lake.translated(self._key):
                    self._committed = self._finish()
            finally:
                self.abort()
            failpoint("lake.after_put")
        return self._committed

    def abort(self) -> None:
        """Remove what was written; harmless after `commit`."""
        self._buffer = bytearray()
        if self._upload is not None:
            if self._committed is None:
                self._upload.abort()
            self._upload = None

    def _send(self, data: bytearray) -> None:
        if self._upload is None:
            self._upload = self._lake.start_upload(self._key, sha256=self._expected)
        self._upload.add(data)

    def _finish(self) -> ObjectInfo:
        digest = self.sha256
        check_hash(self._key, expected=self._expected, found=digest)
        there = self._lake.look_first(self._key, size_bytes=self.size_bytes, sha256=digest)
        if there is not None:
            if self._upload is not None:
                self._upload.abort()
            return there
        if self._upload is None:
            return self._lake.put_small(self._key, bytes(self._buffer), sha256=digest, only_if_absent=True)
        self._send(self._buffer)
        return self._lake.finish_upload(
            self._key, self._upload, size_bytes=self.size_bytes, sha256=digest, only_if_absent=True
        )
