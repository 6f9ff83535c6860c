"""A lake in a bucket of S3, or of a store that speaks its language."""

import base64
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from botocore.exceptions import ClientError

from ingestion.ports.context import BucketPlace, ObjectInfo
from ingestion.ports.errors import SinkUnavailable, StoreCorrupt
from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake.keys import (
    check_hash,
    check_key,
    check_prefix,
    check_same,
    is_hidden,
    sha256_of,
    sha256_of_stream,
    size_of,
)
from ingestion.toolkit.lake.s3_client import make_client
from ingestion.toolkit.lake.s3_errors import (
    ALREADY_THERE,
    CONFLICT,
    MISSING,
    NOT_IMPLEMENTED,
    S3_ERRORS,
    code_of,
    translate,
)
from ingestion.toolkit.lake.s3_options import S3Options
from ingestion.toolkit.lake.s3_reader import open_ranges, read_range
from ingestion.toolkit.lake.s3_upload import PART_BYTES, MultipartUpload, send_parts
from ingestion.toolkit.lake.s3_writer import S3Writer

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef, MultipartUploadTypeDef

CONFLICT_TRIES = 5
Beat: TypeAlias = Callable[[], None]
PROBE_NAME = ".headgate/create-if-absent"
_has_conditional_writes: dict[tuple[str | None, str, str], bool] = {}


def _nothing() -> None: ...


class S3Lake:
    """Objects of one bucket below one prefix, each with its SHA-256 in its metadata."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._base = f"{options.prefix}/" if options.prefix else ""
        self._where = options.endpoint or "AWS"
        self._with_checksums = options.checksum == "when_supported"
        self._made: tuple[int, S3Client] | None = None
        self._is_reachable = False

    def __repr__(self) -> str:
        return f"S3Lake('s3://{self._options.bucket}/{self._options.prefix}' at {self._where})"

    def put_if_absent(
        self, key: str, source: bytes | Path, *, sha256: str | None = None, beat: Beat = _nothing
    ) -> ObjectInfo:
        """Store the object unless it is there; the same content there is success, other content StoreCorrupt."""
        check_key(key)
        failpoint("lake.before_put")
        with self.translated(key):
            info = self._put(key, source, sha256=sha256, only_if_absent=True, beat=beat)
        failpoint("lake.after_put")
        return info

    def put(self, key: str, source: bytes | Path, *, sha256: str | None = None) -> ObjectInfo:
        """Store the object, replacing what is there; only for pointers that are meant to move."""
        check_key(key)
        failpoint("lake.before_put")
        with self.translated(key):
            info = self._put(key, source, sha256=sha256, only_if_absent=False)
        failpoint("lake.after_put")
        return info

    def writer(self, key: str, *, sha256: str | None = None) -> S3Writer:
        """Return a writer that streams one object of unknown length; nothing is seen before `commit`.

        With the hash that is expected, other bytes are StoreCorrupt at `commit`, and the store is told it.
        """
        return S3Writer(self, check_key(key), expected=sha256)

    def open(self, key: str) -> BinaryIO:
        """Return the object as a seekable binary file; StoreCorrupt where it is missing."""
        info = self.head(key)
        if info is None:
            raise StoreCorrupt("store.missing", key=key)
        return open_ranges(partial(self._read_whole_range, key), size_bytes=info.size_bytes)

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Return `length` bytes from `offset`, or all that follow it."""
        name = self._name(key)
        with self.translated(key):
            return read_range(self.client, bucket=self._options.bucket, name=name, offset=offset, length=length)

    def head(self, key: str) -> ObjectInfo | None:
        """Return what the store knows of the object, or None."""
        self._name(key)
        with self.translated(key):
            found = self._head(key)
        return None if found is None else _info(key, found)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key begins with `prefix`, in key order."""
        pages = self.client.get_paginator("list_objects_v2")
        with self.translated(""):
            for page in pages.paginate(Bucket=self._options.bucket, Prefix=self._base + check_prefix(prefix)):
                for found in page.get("Contents", ()):
                    key = found["Key"].removeprefix(self._base)
                    if not is_hidden(key) and not key.endswith("/"):
                        yield ObjectInfo(key, found["Size"], None, found["LastModified"])

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where it is not there."""
        name = self._name(key)
        with self.translated(""):
            try:
                self.client.delete_object(Bucket=self._options.bucket, Key=name)
            except ClientError as error:
                if code_of(error) not in MISSING:
                    raise

    def presign(self, key: str, *, expires_s: int) -> str:
        """Return a URL that reads this one object until it expires."""
        params = {"Bucket": self._options.bucket, "Key": self._name(key)}
        with self.translated(key):
            return self.client.generate_presigned_url("get_object", Params=params, ExpiresIn=expires_s)

    def place(self, key: str) -> BucketPlace:
        """Return where the object lies, for another system that reads the bucket by itself."""
        options = self._options
        return BucketPlace(options.bucket, self._name(key), options.endpoint, options.region, options.path_style)

    def local_path(self, key: str) -> Path | None:
        """Return None: the object is elsewhere."""
        self._name(key)
        return None

    def abort_stale_uploads(self, older_than: datetime, *, prefix: str = "", dry_run: bool = False) -> int:
        """Abort the uploads begun before that time below a prefix that ends with "/", and count them."""
        aborted = 0
        with self.translated(""):
            for upload in self._unfinished_uploads(prefix):
                if upload["Initiated"] < older_than:
                    aborted += 1 if dry_run else self._abort(upload["Key"], upload_id=upload["UploadId"])
        return aborted

    @property
    def client(self) -> "S3Client":
        """Return this process's client: a connection that a fork shares with its parent gives mixed answers."""
        if self._made is None or self._made[0] != os.getpid():
            self._made = (os.getpid(), make_client(self._options))
        return self._made[1]

    @contextmanager
    def translated(self, key: str) -> Iterator[None]:
        """Give errors of boto3 as ours; `key` names the object, "" where none was asked for."""
        try:
            yield
        except S3_ERRORS as error:
            raise translate(error, key=key, where=self._where) from error

    def start_upload(self, key: str, *, sha256: str | None) -> MultipartUpload:
        """Return a multipart upload of the object; the hash goes to its metadata where it is known beforehand."""
        return MultipartUpload(
            self.client,
            bucket=self._options.bucket,
            name=self._name(key),
            with_checksums=self._with_checksums,
            metadata={} if sha256 is None else {"sha256": sha256},
            storage=self._options.storage,
        )

    def finish_upload(
        self, key: str, upload: MultipartUpload, *, size_bytes: int, sha256: str, only_if_absent: bool
    ) -> ObjectInfo:
        """Complete the upload, verify what is stored, and find out what happened where the answer does not say."""
        try:
            upload.complete(is_conditional=only_if_absent and self._is_conditional())
        except S3_ERRORS:
            # Completed, and the answer lost: the object is there, and the repeated request found no such upload.
            upload.abort()
            if self._head(key) is None or not only_if_absent:
                raise
            return self._same(key, size_bytes=size_bytes, sha256=sha256)
        return self._verified(
            key,
            size_bytes=size_bytes,
            sha256=sha256,
            composite=upload.composite_sha256,
            only_if_absent=only_if_absent,
        )

    def look_first(self, key: str, *, size_bytes: int, sha256: str) -> ObjectInfo | None:
        """Return the same object where it is there already and the store would overwrite it; StoreCorrupt for another."""
        if self._is_conditional() or self._head(key) is None:
            return None
        return self._same(key, size_bytes=size_bytes, sha256=sha256)

    def _put(
        self, key: str, source: bytes | Path, *, sha256: str | None, only_if_absent: bool, beat: Beat = _nothing
    ) -> ObjectInfo:
        size_bytes = size_of(source)
        is_large = size_bytes > PART_BYTES
        # A large source that comes with its hash is read once only, and compared with it while it is sent.
        digest = sha256 if is_large and sha256 is not None else sha256_of(source)
        check_hash(key, expected=sha256, found=digest)
        # A large object is asked for before it is sent again; a small one is cheaper to send than to ask for.
        if only_if_absent and (is_large or not self._is_conditional()) and self._head(key) is not None:
            return self._same(key, size_bytes=size_bytes, sha256=digest)
        if not is_large:
            data = source if isinstance(source, bytes) else source.read_bytes()
            return self.put_small(key, data, sha256=digest, only_if_absent=only_if_absent)
        upload = self.start_upload(key, sha256=digest)
        try:
            sent = send_parts(upload, source, size_bytes=size_bytes, beat=beat)
            check_hash(key, expected=digest, found=sent)
        except BaseException:
            upload.abort()
            raise
        return self.finish_upload(key, upload, size_bytes=size_bytes, sha256=digest, only_if_absent=only_if_absent)

    def put_small(self, key: str, data: bytes, *, sha256: str, only_if_absent: bool) -> ObjectInfo:
        """Store the object by one request."""
        extra: dict[str, Any] = {**self._options.storage.arguments()}
        if self._with_checksums:
            extra["ChecksumSHA256"] = _base64(sha256)
        if only_if_absent and self._is_conditional():
            extra["IfNoneMatch"] = "*"
        for attempt in range(1, CONFLICT_TRIES + 1):
            try:
                self.client.put_object(
                    Bucket=self._options.bucket, Key=self._name(key), Body=data, Metadata={"sha256": sha256}, **extra
                )
                break
            except ClientError as error:
                if code_of(error) in ALREADY_THERE:
                    return self._same(key, size_bytes=len(data), sha256=sha256)
                if code_of(error) not in CONFLICT or attempt == CONFLICT_TRIES:
                    raise
                time.sleep(0.05 * 2**attempt * random.random())  # noqa: S311 (spreads writers, guards nothing)
        return self._verified(key, size_bytes=len(data), sha256=sha256, composite=None, only_if_absent=only_if_absent)

    def _verified(
        self, key: str, *, size_bytes: int, sha256: str, composite: str | None, only_if_absent: bool
    ) -> ObjectInfo:
        found = self._head(key, ChecksumMode="ENABLED") if self._with_checksums else self._head(key)
        if found is None:
            raise SinkUnavailable("store.unavailable", detail="an object was accepted and is not there")
        info = ObjectInfo(key, size_bytes, sha256, found.get("LastModified"))
        shown = found.get("ChecksumSHA256")
        # A store that shows no checksum, or one of its own making, proves itself by what it gives back.
        if found["ContentLength"] == size_bytes and (
            shown in {composite or "", _base64(sha256)} or self._stored_sha256(key) == sha256
        ):
            return info
        if only_if_absent and self._is_conditional():
            # Ours, and seen by no one yet, as no row names it; left there it would refuse the next attempt.
            self.client.delete_object(Bucket=self._options.bucket, Key=self._name(key))
        elif found.get("Metadata", {}).get("sha256", sha256) != sha256:
            # Another writer came after us, and the object is theirs.
            if only_if_absent:
                raise StoreCorrupt("store.conflict", key=key)
            return info
        raise SinkUnavailable("store.unavailable", detail="the bytes it stored are not those that were sent")

    def _same(self, key: str, *, size_bytes: int, sha256: str) -> ObjectInfo:
        found = self._head(key)
        if found is None:
            raise SinkUnavailable("store.unavailable", detail="an object was there and is gone")
        info = _info(key, found)
        if info.sha256 is None and info.size_bytes == size_bytes:
            info = ObjectInfo(key, size_bytes, self._stored_sha256(key), info.modified_at)
        return check_same(key, existing=info, size_bytes=size_bytes, sha256=sha256)

    def _stored_sha256(self, key: str) -> str:
        with self.open(key) as stream:
            return sha256_of_stream(stream)

    def _read_whole_range(self, key: str, offset: int, length: int) -> bytes:
        data = self.read(key, offset=offset, length=length)
        if not data:
            raise StoreCorrupt("store.corrupt", key=key, detail=f"it ends at byte {offset}")
        return data

    def _head(self, key: str, **extra: Any) -> "HeadObjectOutputTypeDef | None":
        try:
            return self.client.head_object(Bucket=self._options.bucket, Key=self._name(key), **extra)
        except ClientError as error:
            if code_of(error) not in MISSING:
                raise
        if not self._is_reachable:
            # A HEAD has no body: a missing bucket and an unknown user look like a missing object; a list tells.
            self.client.list_objects_v2(Bucket=self._options.bucket, Prefix=self._name(key), MaxKeys=1)
            self._is_reachable = True
        return None

    def _unfinished_uploads(self, prefix: str) -> "Iterator[MultipartUploadTypeDef]":
        pages = self.client.get_paginator("list_multipart_uploads")
        try:
            for page in pages.paginate(Bucket=self._options.bucket, Prefix=self._base + check_prefix(prefix)):
                yield from page.get("Uploads", ())
        except ClientError as error:
            # Stores that cannot list them, or say so where there was never one.
            if code_of(error) not in {"NoSuchUpload", *NOT_IMPLEMENTED}:
                raise

    def _abort(self, name: str, *, upload_id: str) -> int:
        try:
            self.client.abort_multipart_upload(Bucket=self._options.bucket, Key=name, UploadId=upload_id)
        except ClientError as error:
            if code_of(error) not in {"NoSuchUpload", *MISSING}:
                raise
            return 0
        return 1

    def _name(self, key: str) -> str:
        return self._base + check_key(key)

    def _is_conditional(self) -> bool:
        """Return whether the store refuses to overwrite when asked to; found out once a process and place.

        Some clones accept the header and overwrite all the same, so only a second write of the same name tells.
        """
        place = (self._options.endpoint, self._options.bucket, self._base)
        if place not in _has_conditional_writes:
            _has_conditional_writes[place] = not self._creates() or not self._creates()
        return _has_conditional_writes[place]

    def _creates(self) -> bool:
        try:
            extra: dict[str, Any] = {**self._options.storage.arguments(), "IfNoneMatch": "*"}
            self.client.put_object(
                Bucket=self._options.bucket, Key=self._base + PROBE_NAME, Body=b"headgate\n", **extra
            )
        except ClientError as error:
            if code_of(error) in ALREADY_THERE:
                return False
            if code_of(error) not in NOT_IMPLEMENTED:
                raise
        return True


def _info(key: str, found: "HeadObjectOutputTypeDef") -> ObjectInfo:
    return ObjectInfo(key, found["ContentLength"], found.get("Metadata", {}).get("sha256"), found.get("LastModified"))


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
