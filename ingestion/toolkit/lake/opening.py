"""The place of raw, clean and rejected parts: one small interface over a folder or an S3 bucket."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from ingestion.ports.context import Lake, LakeWriter, ObjectInfo
from ingestion.ports.errors import ConfigError
from ingestion.toolkit.lake.local import LocalLake
from ingestion.toolkit.lake.s3_options import StorageOptions, parse_s3_url


class ObjectWriter(LakeWriter, Protocol):
    """A writer that can be asked what it hashed."""

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of what was written so far."""
        ...


class ObjectStore(Lake, Protocol):
    """A lake as its owner sees it: with the housekeeping that plugins have no business with."""

    def put_if_absent(
        self, key: str, source: bytes | Path, *, sha256: str | None = None, beat: Callable[[], None] = ...
    ) -> ObjectInfo:
        """Store the object as the port says; `beat` is called every few megabytes, and may end it by raising."""
        ...

    def writer(self, key: str, *, sha256: str | None = None) -> ObjectWriter:
        """Return a writer as the port says; with the expected hash, other bytes are StoreCorrupt at `commit`."""
        ...

    def abort_stale_uploads(self, older_than: datetime, *, prefix: str = "", dry_run: bool = False) -> int:
        """Remove what writers left unfinished before that time below a prefix that ends with "/", and count it.

        A dry run only counts.
        """
        ...


def open_lake(
    url: str,
    *,
    access_key: str | None = None,
    secret_key: str | None = None,
    storage: StorageOptions | None = None,
) -> ObjectStore:
    """Return the lake at `file:///folder`, at a plain path, or at `s3://bucket/prefix?endpoint=&region=`.

    Options of an S3 address: endpoint, region, path_style (0 or 1; 1 where an endpoint is given),
    checksum (when_supported or when_required), access_key, secret_key. Keyword arguments win over the address;
    without either boto3 looks for credentials where it always does. `storage` is for buckets; a folder ignores it.
    Nothing is asked of the store yet, and who only reads needs no more than the right to list and to get.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        options = parse_s3_url(url, access_key=access_key, secret_key=secret_key, storage=storage)
        from ingestion.toolkit.lake.s3 import S3Lake  # noqa: PLC0415 (boto3 takes a second to import: only users pay)

        return S3Lake(options)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise ConfigError("store.config", detail="a file address has three slashes, as in file:///srv/lake")
        return LocalLake(Path(unquote(parts.path)))
    if "://" in url or not url:
        raise ConfigError("store.config", detail="the address must be a folder, file:///folder or s3://bucket/prefix")
    return LocalLake(Path(url).absolute())
