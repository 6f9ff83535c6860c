"""Tables of Arrow as frames of polars and back, whatever their columns are called.

Between the two a column's name is a text of C, which ends at its first NUL: a column would lose a part of its name, meet
another one of the same name, or end the whole process on the way back. So names are left out of it.
"""

from typing import Any

import polars as pl
import pyarrow as pa


def frame_of(rows: pa.RecordBatch | pa.Table) -> pl.DataFrame:
    """Return the rows as a frame with the same columns."""
    frame = pl.DataFrame(rows.rename_columns([str(index) for index in range(rows.num_columns)]))
    frame.columns = rows.schema.names
    return frame


def array_of(series: pl.Series) -> "pa.Array[Any]":
    """Return the values as an Arrow array."""
    return series.alias("").to_arrow()
