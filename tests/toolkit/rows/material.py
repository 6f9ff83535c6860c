"""Small parts in a lake of a folder, and what stands in the files made of them."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.ports.context import Lake
from ingestion.ports.publication import PartView
from ingestion.toolkit.clean.kinds import agreed_kinds
from ingestion.toolkit.clean.reader import read_shape
from ingestion.toolkit.clean.sequence import Piece, RowSequence


def put_part(
    lake: Lake, columns: Mapping[str, Any], *, run_id: int = 1, lane: int = 0, link: int = 0, group_rows: int = 4
) -> PartView:
    """Put columns, lists or Arrow arrays, into the lake as a part with small row groups."""
    table = pa.table(dict(columns))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=group_rows, coerce_timestamps="us")
    content = buffer.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    key = f"clean/rows/{run_id}/{lane}-{link}/000000-{sha256[:16]}.parquet"
    lake.put_if_absent(key, content)
    return PartView(key, lane, link, 0, rows=table.num_rows, size_bytes=len(content), sha256=sha256)


def numbered(count: int, *, first: int = 0, **columns: Any) -> dict[str, Any]:
    """Return columns of `count` rows with the ids that follow `first`."""
    ids = list(range(first, first + count))
    return {"id": pa.array(ids, pa.int64()), **columns}


def sequence(lake: Lake, parts: Sequence[PartView], **piece: Any) -> RowSequence:
    """Return the rows of the parts, without the lineage that these parts have not."""
    pieces = [Piece(part, read_shape(lake, part), **piece) for part in parts]
    rows = RowSequence(lake, pieces, kinds=agreed_kinds([piece.shape for piece in pieces], declared={}))
    return rows.choose([name for name in rows.kinds if not name.startswith("_")])


def ids_of(rows: RowSequence, **chosen: Any) -> list[int]:
    """Return the ids behind a row."""
    return [value for batch in rows.batches(**chosen) for value in batch.column("id").to_pylist()]
