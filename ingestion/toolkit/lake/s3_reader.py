"""Reading objects of a bucket: ranges, and a seekable file over them."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from ingestion.toolkit.lake.s3_errors import code_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3.client import S3Client

READ_AHEAD_BYTES = 4 << 20
READ_TRIES = 3
"""boto3 repeats a request, but not the reading of an answer that breaks off; that is repeated here."""


def read_range(client: "S3Client", *, bucket: str, name: str, offset: int, length: int | None) -> bytes:
    """Return the bytes from `offset`, fewer where the object ends; raises what boto3 raises."""
    if length == 0:
        return b""
    end = "" if length is None else str(offset + length - 1)
    tries = READ_TRIES
    while True:
        tries -= 1
        try:
            if offset or length is not None:
                answer = client.get_object(Bucket=bucket, Key=name, Range=f"bytes={offset}-{end}")
            else:
                answer = client.get_object(Bucket=bucket, Key=name)
            return answer["Body"].read()
        except ClientError as error:
            if code_of(error) in {"InvalidRange", "416"}:
                return b""
            raise
        except (BotoCoreError, HTTPError):
            if not tries:
                raise


def open_ranges(fetch: Callable[[int, int], bytes], *, size_bytes: int) -> BinaryIO:
    """Return a seekable file that reads ahead, over a function that gets `length` bytes from `offset`."""
    return cast("BinaryIO", io.BufferedReader(_Ranges(fetch, size_bytes=size_bytes), buffer_size=READ_AHEAD_BYTES))


class _Ranges(io.RawIOBase):
    def __init__(self, fetch: Callable[[int, int], bytes], *, size_bytes: int) -> None:
        self._fetch = fetch
        self._size_bytes = size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        if base + offset < 0:
            msg = "negative seek position"
            raise ValueError(msg)
        self._position = base + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self._size_bytes - self._position)
        if length <= 0:
            return 0
        data = self._fetch(self._position, length)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        # The inherited one asks for 8 KB at a time.
        pieces = []
        while piece := self.read(READ_AHEAD_BYTES):
            pieces.append(piece)
        return b"".join(pieces)
