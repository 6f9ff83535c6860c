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


def write_clean(table: "pa.Table", target: Path | BinaryIO) -> None:
    """Write a clean part; its row groups have at least 500,000 rows where there are that many."""
    groups = max(1, table.num_rows // CLEAN_GROUP_ROWS)
    _write(table, target, group_rows=max(1, -(-table.num_rows // groups)))


def write_rejected(table: "pa.Table", target: Path | BinaryIO) -> None:
    """Write a part of rejected and duplicate rows, for `read_rejected`."""
    _write(table, target, group_rows=REJECTED_GROUP_ROWS)


def read_rejected(
    source: BinaryIO, *, rule: str | None = None, column: str | None = None, after: int | None = None, limit: int
) -> list[dict[str, Any]]:
    """Return up to `limit` rejected rows in their order, each with its `position` in the part.

    `after` is the position of the last row seen. `rule` and `column` choose rows with an error of that rule in that
    column. Holds one batch of rows in memory; row groups before `after` are not read.
    """
    import polars as pl  # noqa: PLC0415

    rows: list[dict[str, Any]] = []
    for start, batch in _batches(source, first=0 if after is None else after + 1):
        positions = _matching(batch, rule=rule, column=column)[: limit - len(rows)]
        rows += [
            {"position": start + position, **row}
            for position, row in zip(
                positions, batch.take(pl.Series(positions, dtype=pl.Int64).to_arrow()).to_pylist(), strict=True
            )
        ]
        if len(rows) >= limit:
            break
    return rows


def iterate_rejected(source: BinaryIO) -> Iterator["pa.RecordBatch"]:
    """Yield all rows of a rejected part in batches, for downloads of any size."""
    for _, batch in _batches(source, first=0):
        yield batch


def _batches(source: BinaryIO, *, first: int) -> Iterator[tuple[int, "pa.RecordBatch"]]:
    import pyarrow.parquet as pq  # noqa: PLC0415

    file = pq.ParquetFile(source)
    start, groups = 0, range(file.num_row_groups)
    sizes = [file.metadata.row_group(group).num_rows for group in groups]
    while groups and start + sizes[groups[0]] <= first:
        start, groups = start + sizes[groups[0]], groups[1:]
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=list(groups)) if groups else ():
        skipped = min(max(first - start, 0), batch.num_rows)
        if skipped < batch.num_rows:
            yield start + skipped, batch.slice(skipped)
        start += batch.num_rows


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
