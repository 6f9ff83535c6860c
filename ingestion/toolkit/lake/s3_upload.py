"""One multipart upload: parts in parallel, checksums, and an end that is certain."""

import base64
import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.toolkit.failpoints import failpoint
from ingestion.toolkit.lake.keys import BLOCK_BYTES, blocks, opened
from ingestion.toolkit.lake.s3_errors import S3_ERRORS
from ingestion.toolkit.lake.s3_options import StorageOptions

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PART_BYTES = 8 << 20
"""Size of a part, grown for files that would need more than 10,000 of them; a stream of unknown length ends at 80 GB."""
MAX_PARTS = 9_000
THREAD_COUNT = 3
"""Parts on their way at once. With one more being filled, memory is about 32 MB whatever the object's size."""


def part_bytes(size_bytes: int) -> int:
    """Return the size of the parts, all but the last, of an object of that size: 8 MB, or more for giants."""
    mebibytes = -(-size_bytes // MAX_PARTS) >> 20
    return max(PART_BYTES, (mebibytes + 1) << 20)


def send_parts(upload: "MultipartUpload", source: bytes | Path, *, size_bytes: int, beat: Callable[[], None]) -> str:
    """Send the bytes or the file as parts, and return the SHA-256 of what was sent; `beat` is called for each."""
    whole = hashlib.sha256()
    length = part_bytes(size_bytes)
    with opened(source) as stream:
        for offset in range(0, size_bytes, length):
            if isinstance(source, bytes):
                piece = source[offset : offset + length]
                whole.update(piece)
                upload.add(piece)
            else:
                part = hashlib.sha256()
                for block in islice(blocks(stream), length // BLOCK_BYTES):
                    whole.update(block)
                    part.update(block)
                upload.add_span(source, offset=offset, length=length, digest=part.digest())
            beat()
    return whole.hexdigest()


class MultipartUpload:
    """The parts of one object on their way; nothing is seen before `complete`."""

    def __init__(
        self,
        client: "S3Client",
        *,
        bucket: str,
        name: str,
        with_checksums: bool,
        metadata: dict[str, str],
        storage: StorageOptions,
    ) -> None:
        self._client = client
        self._with_checksums = with_checksums
        self._target: dict[str, Any] = {"Bucket": bucket, "Key": name}
        self._digests: list[bytes] = []
        self._done: list[dict[str, Any]] = []
        self._waiting: deque[Future[dict[str, Any]]] = deque()
        extra: dict[str, Any] = {**storage.arguments()}
        if with_checksums:
            extra["ChecksumAlgorithm"] = "SHA256"
        self._upload_id = client.create_multipart_upload(**self._target, Metadata=metadata, **extra)["UploadId"]
        self._pool = ThreadPoolExecutor(THREAD_COUNT, thread_name_prefix="lake-part")

    @property
    def composite_sha256(self) -> str:
        """Return the checksum that a store shows for the whole: the hash of the parts' hashes, and their number."""
        whole = hashlib.sha256(b"".join(self._digests)).digest()
        return f"{base64.b64encode(whole).decode()}-{len(self._digests)}"

    def add(self, data: bytes | bytearray) -> None:
        """Send the next part; returns once no more than the allowed number is on the way."""
        self._add(lambda: data, digest=hashlib.sha256(data).digest())

    def add_span(self, path: Path, *, offset: int, length: int, digest: bytes) -> None:
        """Send so many bytes of a file as the next part; they are in memory only while they are sent."""
        self._add(partial(_read_span, path, offset=offset, length=length), digest=digest)

    def complete(self, *, is_conditional: bool) -> None:
        """Make the object out of its parts; raises what boto3 raises, and then the end may be unknown."""
        while self._waiting:
            self._done.append(self._waiting.popleft().result())
        extra: dict[str, Any] = {"IfNoneMatch": "*"} if is_conditional else {}
        parts: Any = {"Parts": self._done}
        self._client.complete_multipart_upload(**self._target, UploadId=self._upload_id, MultipartUpload=parts, **extra)
        self._pool.shutdown()

    def abort(self) -> None:
        """Remove the parts; harmless after `complete`. What this cannot reach is left to `abort_stale_uploads`."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        with suppress(*S3_ERRORS):
            self._client.abort_multipart_upload(**self._target, UploadId=self._upload_id)

    def _add(self, read: Callable[[], bytes | bytearray], *, digest: bytes) -> None:
        number = len(self._digests) + 1
        if number > 1:
            failpoint("lake.between_parts")
        self._digests.append(digest)
        while len(self._waiting) >= THREAD_COUNT:
            self._done.append(self._waiting.popleft().result())
        self._waiting.append(self._pool.submit(self._send, read, number=number, digest=digest))

    def _send(self, read: Callable[[], bytes | bytearray], *, number: int, digest: bytes) -> dict[str, Any]:
        # The checksum goes as a plain header, not as boto3's trailer, which many S3 clones refuse.
        checksum = {"ChecksumSHA256": base64.b64encode(digest).decode()} if self._with_checksums else {}
        # A bytearray is sent as it is; bytes are put behind their headers into one message, which is one more copy,
        # and files are read in small blocks.
        data = read()
        body: Any = data if isinstance(data, bytearray) else bytearray(data)
        extra: dict[str, Any] = {"Body": body, **checksum}
        answer = self._client.upload_part(**self._target, UploadId=self._upload_id, PartNumber=number, **extra)
        return {"PartNumber": number, "ETag": answer["ETag"], **checksum}


def _read_span(path: Path, *, offset: int, length: int) -> bytearray:
    data = bytearray(length)
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        found = 0
        while read := file.readinto(memoryview(data)[found:]):
            found += read
    del data[found:]
    return data
