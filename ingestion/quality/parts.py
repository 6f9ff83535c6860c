"""Clean and rejected tables as Parquet: the same table always gives the same bytes.

Text is zstd, statistics are on, timestamps are microseconds UTC.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import pyarrow as pa

CLEAN_GROUP_ROWS = 500_000
REJECTED_GROUP_ROWS = 20_000
"""Quarantine is read in pages by people, so its row groups are small; clean parts are scanned whole."""

_ZSTD_LEVEL = 3
_SAMPLE_ROWS = 10_000
_BATCH_ROWS = 5_000
_BLOCK_ROWS = 250
"""Rows made into values at once: a page of them is small."""


def write_clean(table: "pa.Table", target: Path | BinaryIO) -> None:
    """Write a clean part; its row groups have at least 500,000 rows where there are that many."""
    groups = max(1, table.num_rows // CLEAN_GROUP_ROWS)
    _write(table, target, group_rows=max(1, -(-table.num_rows // groups)))


def write_rejected(table: "pa.Table", target: Path | BinaryIO) -> None:
    """Write a part of rejected and duplicate rows, for `read_rejected`."""
    _write(table, target, group_rows=REJECTED_GROUP_ROWS)


def read_rejected(
    source: BinaryIO, *, key: str, rule: str | None = None, column: str | None = None, after: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rejected rows of the object `key` in their order, each with its `position` in the part.

    `after` is the position of the last row seen. `rule` and `column` choose rows with an error of that rule in that
    column. Holds one batch of rows in memory; row groups before `after` are not read.
    """
    import polars as pl  # noqa: PLC0415

    from ingestion.toolkit.clean.reader import PartFile  # noqa: PLC0415

    for start, batch in PartFile(source, key=key).batches(rows=_BATCH_ROWS, first=0 if after is None else after + 1):
        positions = _matching(batch, rule=rule, column=column)
        for block in range(0, len(positions), _BLOCK_ROWS):
            chosen = pl.Series(positions[block : block + _BLOCK_ROWS], dtype=pl.Int64)
            for position, row in zip(chosen, batch.take(chosen.to_arrow()).to_pylist(), strict=True):
                yield {"position": start + position, **row}


def _matching(batch: "pa.RecordBatch", *, rule: str | None, column: str | None) -> list[int]:
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    if rule is None and column is None:
        return list(range(batch.num_rows))
    errors, owners = pc.list_flatten(batch["errors"]), pc.list_parent_indices(batch["errors"])
    fits = np.ones(len(errors), dtype=bool)
    for name, wanted in (("rule", rule), ("column", column)):
        if wanted is not None:
            # By polars: a scalar of Arrow loads pandas, which costs more than reading the page.
            fits &= (pl.Series(pc.struct_field(errors, name)) == wanted).to_numpy()
    return [int(owner) for owner in np.unique(pl.Series(owners).to_numpy()[fits])]


def _write(table: "pa.Table", target: Path | BinaryIO, *, group_rows: int) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415

    pq.write_table(
        table,
        target,
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        row_group_size=group_rows,
        use_dictionary=_repetitive(table),  # type: ignore[arg-type]
        write_statistics=True,
        coerce_timestamps="us",
        version="2.6",
        data_page_version="1.0",
    )


def _repetitive(table: "pa.Table") -> list[str]:
    # A dictionary of mostly different values costs time and makes the file larger before the writer gives it up.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    sample = table.slice(0, _SAMPLE_ROWS)
    names = []
    for field in table.schema:
        if pa.types.is_nested(field.type):
            names.append("errors.list.element.rule")
            names.append("errors.list.element.column")
            names.append("errors.list.element.message")
        elif pc.count_distinct(sample[field.name]).as_py() <= sample.num_rows // 2:
            names.append(field.name)
    return names
