"""Typed cells as text that reads back as the same value."""

from collections.abc import Collection
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.types as kinds

from ingestion.toolkit.moments import day_of, inside_years, with_far
from ingestion.toolkit.nested import values_as_text

_DATETIME = "%Y-%m-%dT%H:%M:%S%.f"


def cells_as_text(table: pa.Table, *, keep: Collection[str], whole_floats: bool = False) -> pa.Table:
    """Return the table with every column but `keep` as text, null staying null.

    Floats are written as Python does; with `whole_floats` without a final ".0", for formats that know no integers.
    """
    for index, field in enumerate(table.schema):
        if field.name not in keep and not _is_text(field.type):
            column = _column_as_text(table.column(index), whole_floats=whole_floats)
            table = table.set_column(index, field.name, column)
    return table


def _is_text(kind: pa.DataType) -> bool:
    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)


def _column_as_text(column: "pa.ChunkedArray[Any]", *, whole_floats: bool) -> Any:
    kind = column.type
    if kinds.is_dictionary(kind):
        return _column_as_text(column.cast(kind.value_type), whole_floats=whole_floats)
    if _is_text(kind) or kinds.is_null(kind):
        return column.cast(pa.string())
    if kinds.is_boolean(kind) or kinds.is_integer(kind) or kinds.is_decimal(kind):
        return column.cast(pa.string())
    if kinds.is_floating(kind):
        return _floats(pl.Series(column), whole_floats=whole_floats).to_arrow(compat_level=pl.CompatLevel.newest())
    if kinds.is_timestamp(kind) or kinds.is_date(kind):
        return _moments(pl.Series(column)).to_arrow(compat_level=pl.CompatLevel.newest())
    return values_as_text(column)


def _moments(series: pl.Series) -> pl.Series:
    value, dtype = pl.col("value"), series.dtype
    frame = series.alias("value").to_frame()
    if not isinstance(dtype, pl.Datetime):
        return with_far(frame.select(day_of(value).dt.strftime("%Y-%m-%d")).to_series(), series, unit="D")
    text = inside_years(value, dtype).dt.strftime(_DATETIME if dtype.time_zone is None else f"{_DATETIME}%:z")
    near = frame.select(text.str.replace(r"\+00:00$", "Z")).to_series()
    return with_far(near, series, unit=dtype.time_unit, ending="" if dtype.time_zone is None else "Z")


def _floats(series: pl.Series, *, whole_floats: bool) -> pl.Series:
    text = series.cast(pl.String)
    has_exponent = text.str.contains("e", literal=True)
    if has_exponent.any() and series.dtype == pl.Float64:
        written = series.map_elements(repr, return_dtype=pl.String)
        text = text.zip_with(~has_exponent.fill_null(False), written)
    return text.str.replace(r"\.0$", "") if whole_floats else text
