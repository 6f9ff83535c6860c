"""Storing tables as parts of a run: the object here, its row by the caller."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from ingestion.models import Part, Run
from ingestion.runs.record.lake import open_lake, part_key, sha256_hex

if TYPE_CHECKING:
    import pyarrow as pa


def make_part(
    run: Run,
    zone: str,
    *,
    lane: int,
    link: int,
    seq: int,
    table: "pa.Table",
    write: "Callable[[pa.Table, BinaryIO], None]",
) -> Part:
    """Return the unsaved row of the table's part, its object stored; the same table gives the same key and bytes."""
    buffer = io.BytesIO()
    write(table, buffer)
    data = buffer.getvalue()
    digest = sha256_hex(data)
    key = part_key(run, zone=zone, lane=lane, link=link, seq=seq, sha256=digest, extension="parquet")
    open_lake().put_if_absent(key, data, sha256=digest)
    return Part(
        run=run,
        zone=zone,
        lane=lane,
        link=link,
        seq=seq,
        key=key,
        size_bytes=len(data),
        sha256=digest,
        rows=table.num_rows,
    )


def put_hashes(part: Part, hashes: bytes) -> str:
    """Store the key hashes of a clean part beside it and return their key."""
    key = f"{part.key.removesuffix('.parquet')}.keys"
    open_lake().put_if_absent(key, hashes)
    return key
