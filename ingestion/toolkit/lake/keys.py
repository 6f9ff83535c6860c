"""The rules of keys and the comparison of contents, the same for every kind of lake."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ingestion.ports.context import ObjectInfo
from ingestion.ports.errors import ConfigError, StoreCorrupt

BLOCK_BYTES = 1 << 20
MAX_KEY_BYTES = 900
"""S3 allows 1,024 bytes; the rest is left to the prefix."""
MAX_SEGMENT_BYTES = 200
"""File systems allow 255 bytes a name."""


def check_key(key: str) -> str:
    """Return the key if it is allowed: printable segments between single slashes, none of them beginning with a dot.

    The dot is kept for temporary and probe objects, so that no key can be taken for one, nor climb with "..".
    """
    segments = key.split("/")
    if not key.isprintable():
        raise ConfigError("store.bad_key", key=ascii(key), detail="it holds characters that cannot be printed")
    if not all(segments):
        raise ConfigError("store.bad_key", key=ascii(key), detail="it holds an empty segment")
    if any(segment.startswith(".") for segment in segments) or "\\" in key:
        raise ConfigError("store.bad_key", key=ascii(key), detail="it holds a backslash or a segment with a dot first")
    if len(_encoded(key)) > MAX_KEY_BYTES or any(len(_encoded(segment)) > MAX_SEGMENT_BYTES for segment in segments):
        raise ConfigError("store.bad_key", key=ascii(key[:80]), detail="it is too long")
    return key


def _encoded(text: str) -> bytes:
    # A lone surrogate is not printable, so check_key refused it before this is called.
    return text.encode("utf-8")


def is_hidden(key: str) -> bool:
    """Return whether a name found in a store is one of ours that readers must not see."""
    return key.startswith(".") or "/." in key


def check_prefix(prefix: str) -> str:
    """Return the prefix if some allowed key can begin with it."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


@contextmanager
def opened(source: bytes | Path) -> Iterator[BinaryIO]:
    """Give the bytes or the file as one binary stream, and close it afterwards."""
    stream: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    with stream:
        yield stream


def blocks(stream: BinaryIO, *, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yield what follows in the stream, block by block."""
    while block := stream.read(block_bytes):
        yield block


def size_of(source: bytes | Path) -> int:
    """Return the length of the bytes or the file."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def sha256_of(source: bytes | Path) -> str:
    """Return the SHA-256 of the bytes or the file, in hexadecimal digits."""
    with opened(source) as stream:
        return sha256_of_stream(stream)


def sha256_of_stream(stream: BinaryIO) -> str:
    """Return the SHA-256 of what follows in the stream."""
    digest = hashlib.sha256()
    for block in blocks(stream):
        digest.update(block)
    return digest.hexdigest()


def check_hash(key: str, *, expected: str | None, found: str) -> None:
    """Raise StoreCorrupt where the bytes in hand are not those that the caller recorded."""
    if expected is not None and expected != found:
        raise StoreCorrupt("store.corrupt", key=key, detail=f"SHA-256 {found[:16]} instead of {expected[:16]}")


def check_same(key: str, *, existing: ObjectInfo, size_bytes: int, sha256: str) -> ObjectInfo:
    """Return what is known of the object already there, or raise StoreCorrupt where it is another one."""
    if existing.size_bytes != size_bytes or existing.sha256 != sha256:
        raise StoreCorrupt("store.conflict", key=key)
    return existing
