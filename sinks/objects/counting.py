"""Counting the rows that a reader of the destination sees."""

import hashlib

from ingestion.ports.context import Context
from ingestion.ports.errors import SinkRejected, StoreCorrupt
from ingestion.toolkit.lake.opening import ObjectStore
from sinks.objects.documents import Document
from sinks.objects.layout import StoredFile
from sinks.objects.working import BLOCK_BYTES


def count_rows(document: Document, store: ObjectStore, ctx: Context, *, destination: str) -> int:
    """Return the rows of the files that a manifest names; one that is gone counts for nothing.

    Parquet says in its footer how many rows it has. Lines are not counted again: a file of text must be, byte for
    byte, the one that was counted when it was written, else it is SinkRejected.
    """
    rows = 0
    for file in document.files:
        try:
            if document.layout.format == "parquet":
                rows += _rows_of_parquet(file, store, destination=destination)
            else:
                rows += _rows_of_text(file, store, ctx, destination=destination)
        except StoreCorrupt as error:
            if error.code != "store.missing":
                raise
        ctx.beat()
    return rows


def _rows_of_parquet(file: StoredFile, store: ObjectStore, *, destination: str) -> int:
    import pyarrow as pa  # noqa: PLC0415 (heavy)
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with store.open(file.path) as stream:
            return pq.read_metadata(stream).num_rows
    except pa.ArrowException as error:
        detail = f"the file {file.path} there is no longer readable Parquet"
        raise SinkRejected("sink.rejected", destination=destination, detail=detail) from error


def _rows_of_text(file: StoredFile, store: ObjectStore, ctx: Context, *, destination: str) -> int:
    found = store.head(file.path)
    if found is None:
        return 0
    is_same = found.size_bytes == file.size_bytes
    if is_same:
        # A bucket was told the hash and proved it when it took the file; a folder keeps none.
        is_same = (found.sha256 or _sha256_of(file.path, store, ctx)) == file.sha256
    if not is_same:
        detail = f"the file {file.path} there has other bytes than were written"
        raise SinkRejected("sink.rejected", destination=destination, detail=detail)
    return file.rows


def _sha256_of(key: str, store: ObjectStore, ctx: Context) -> str:
    digest = hashlib.sha256()
    with store.open(key) as stream:
        while block := stream.read(BLOCK_BYTES):
            ctx.beat()
            digest.update(block)
    return digest.hexdigest()
