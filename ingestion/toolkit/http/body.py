"""The reading of an answer's body: bounded in size before and after decompression, in time, and checked to be whole."""

import zlib
from collections.abc import Callable, Iterator
from typing import cast

import httpx

from ingestion.ports.errors import SourceChanged, SourceUnavailable
from ingestion.toolkit.http.retry import TransientError
from ingestion.toolkit.redact import redact_url

ACCEPTED_ENCODINGS = "gzip, deflate"
"""The packings that are asked for: only what can be unpacked in bounded steps; httpx's own decoders give 67 MB at a time."""
_STEP_BYTES = 1 << 20
_GZIP_OR_ZLIB, _RAW_DEFLATE = 47, -15


class TooLargeError(Exception):
    """The body is larger than allowed, packed or unpacked."""


class _Inflater:
    """Unpacks gzip (also several members in a row) and deflate, never more than a step at a time."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._is_fresh = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._stream.eof:
                self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                yield self._stream.decompress(data, _STEP_BYTES)
            except zlib.error:
                if not self._is_fresh:
                    raise
                # Some servers send deflate without the zlib header that RFC 9110 asks for.
                self._stream = zlib.decompressobj(_RAW_DEFLATE)
                yield self._stream.decompress(data, _STEP_BYTES)
            self._is_fresh = False
            data = self._stream.unconsumed_tail or self._stream.unused_data

    @property
    def is_whole(self) -> bool:
        return self._is_fresh or self._stream.eof


def read_body(response: httpx.Response, *, max_bytes: int, on_chunk: Callable[[int], None]) -> bytes:
    """Return the unpacked body, which is whole as far as HTTP can tell.

    `on_chunk` is called with the raw bytes received so far, after each piece. TransientError where the body was cut,
    TooLargeError beyond `max_bytes`, SourceChanged for an encoding that was not asked for; httpx's errors pass through.
    """
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        url = redact_url(str(response.url))
        found, expected = f"a body packed as {encoding[:40]!r}", ACCEPTED_ENCODINGS
        raise SourceChanged("source.bad_content", url=url, status=response.status_code, found=found, expected=expected)
    inflater = None if encoding in ("", "identity") else _Inflater()
    declared = _declared_length(response)
    if declared is not None and declared > max_bytes:
        raise TooLargeError
    body = bytearray()
    received = 0
    try:
        # Not iter_raw: a MockTransport's answer counts as read already, and its stream can still be read.
        for chunk in cast(httpx.SyncByteStream, response.stream):
            received += len(chunk)
            on_chunk(received)
            for piece in (chunk,) if inflater is None else inflater.feed(chunk):
                body += piece
                if len(body) > max_bytes:
                    raise TooLargeError
    except zlib.error as error:
        raise _cut(response, f"its {encoding} body is damaged") from error
    if declared is not None and received != declared:
        raise _cut(response, f"it sent {received} of {declared} bytes")
    if inflater is not None and not inflater.is_whole:
        raise _cut(response, f"its {encoding} body ended early, after {received} bytes")
    return bytes(body)


def _declared_length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    is_counted = "transfer-encoding" not in response.headers and response.request.method != "HEAD"
    return int(text) if is_counted and text.isascii() and text.isdigit() else None


def _cut(response: httpx.Response, detail: str) -> TransientError:
    url = redact_url(str(response.url))
    return TransientError(SourceUnavailable("source.unavailable", host=response.url.host, detail=detail, url=url))
