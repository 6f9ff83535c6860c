"""Readable and unreadable records put together into one table."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ingestion.ports.batch import ERROR, ERROR_CODE, RAW, ROW
from ingestion.toolkit.tabular.spans import BadRow, raw_json


def assemble(data: "pa.Table", rows: "npt.ArrayLike", bad: Sequence[BadRow]) -> "pa.Table":
    """Return the readable and the unreadable records as one table in row order, reader columns last.

    `rows` are the row numbers of `data`, ascending; a bad row has null in every data column.
    """
    numbers = np.asarray(rows, dtype=np.int64)
    if not bad:
        nulls = pa.nulls(len(numbers), pa.string())
        names = [*data.schema.names, ROW, ERROR_CODE, ERROR, RAW]
        # Not pa.array: that loads pandas, which costs a worker more than reading a small file.
        at = pl.Series(numbers, dtype=pl.Int64).to_arrow()
        whole = pa.Table.from_arrays([*data.columns, at, nulls, nulls, nulls], names=names)
    else:
        whole = _merge(data, numbers, bad)
    # A table built from arrays, or by polars, has lost what the fields say of their columns.
    for index, field in enumerate(data.schema):
        if field.metadata:
            column = whole.column(index)
            whole = whole.set_column(index, pa.field(field.name, column.type, metadata=field.metadata), column)
    return whole


def _merge(data: "pa.Table", numbers: "npt.NDArray[np.int64]", bad: Sequence[BadRow]) -> "pa.Table":
    faults = pl.DataFrame(
        {
            ROW: [fault.row for fault in bad],
            ERROR_CODE: [fault.code for fault in bad],
            ERROR: [fault.message for fault in bad],
            RAW: [raw_json(fault.raw) for fault in bad],
        },
        schema={ROW: pl.Int64, ERROR_CODE: pl.String, ERROR: pl.String, RAW: pl.String},
    )
    good = pl.DataFrame(data).with_columns(pl.Series(ROW, numbers, dtype=pl.Int64))
    merged = pl.concat([good, faults], how="diagonal").sort(ROW)
    return merged.select([*data.schema.names, ROW, ERROR_CODE, ERROR, RAW]).to_arrow(
        compat_level=pl.CompatLevel.newest()
    )
