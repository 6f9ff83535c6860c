"""The table of a file: its column names as the rest of the system may use them, its readable and unreadable records."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ingestion.ports.batch import ERROR, ERROR_CODE, RAW, ROW
from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.spans import MAX_COLUMNS, BadRow, raw_json

MAX_NAME_LENGTH = 200
TIME_NAME = "__time"


@dataclass(frozen=True, slots=True)
class Header:
    """Cleaned column names in file order; `renamed` maps a changed name to the one in the file."""

    columns: tuple[str, ...]
    renamed: dict[str, str] = field(default_factory=dict)


def clean_header(found: Sequence[str], *, name: str) -> Header:
    """Return the column names to use for those found in file `name`.

    A name that begins with "_" (ours do, and Druid's __time) moves its underscores to the end, an empty one becomes
    `column_<position from 1>`, a very long one is cut; whatever then collides gets more underscores.
    ConfigError file.duplicate_column where the file itself names a column twice, file.too_many_columns beyond 5,000.
    """
    if len(found) > MAX_COLUMNS:
        raise ConfigError("file.too_many_columns", name=name, columns=len(found), limit=MAX_COLUMNS)
    seen: set[str] = set()
    for column in found:
        if column and column in seen:
            raise ConfigError("file.duplicate_column", name=name, column=column[:MAX_NAME_LENGTH])
        seen.add(column)
    taken = {column for column in found if _wanted(column, position=0) == column}
    columns, renamed = [], {}
    for position, column in enumerate(found, start=1):
        wanted = _wanted(column, position=position)
        if wanted != column:
            while wanted in taken:
                wanted = (
                    f"{wanted[: MAX_NAME_LENGTH - 1]}_" if len(wanted) < MAX_NAME_LENGTH else _shorten(wanted, taken)
                )
            taken.add(wanted)
            renamed[wanted] = column
        columns.append(wanted)
    return Header(tuple(columns), renamed)


def _wanted(column: str, *, position: int) -> str:
    bare = column.lstrip("_")
    if not bare:
        return f"column_{position}"
    if bare != column:
        return f"{bare[: MAX_NAME_LENGTH - 1]}_"
    return column[:MAX_NAME_LENGTH]


def _shorten(wanted: str, taken: set[str]) -> str:
    count = 2
    while f"{wanted[: MAX_NAME_LENGTH - 8]}_{count}" in taken:
        count += 1
    return f"{wanted[: MAX_NAME_LENGTH - 8]}_{count}"


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
    for index, each in enumerate(data.schema):
        if each.metadata:
            column = whole.column(index)
            whole = whole.set_column(index, pa.field(each.name, column.type, metadata=each.metadata), column)
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
    row = pl.Series(ROW, numbers, dtype=pl.Int64)
    good = pl.DataFrame(data).with_columns(row) if data.num_columns else pl.DataFrame([row])
    merged = pl.concat([good, faults], how="diagonal").sort(ROW)
    return merged.select([*data.schema.names, ROW, ERROR_CODE, ERROR, RAW]).to_arrow(
        compat_level=pl.CompatLevel.newest()
    )
