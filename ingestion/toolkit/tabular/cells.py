"""Typed cells as text that reads back as the same value."""

import base64
import json
from collections.abc import Collection
from datetime import date, datetime, time
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.types as kinds

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
    if kinds.is_timestamp(kind) or kinds.is_date(kind) or kinds.is_floating(kind):
        series = pl.Series(column)
        if kinds.is_floating(kind):
            text = _floats(series, whole_floats=whole_floats)
        elif kinds.is_date(kind):
            text = series.dt.strftime("%Y-%m-%d")
        else:
            text = series.dt.strftime(_DATETIME if kind.tz is None else f"{_DATETIME}%:z")
            text = text.str.replace(r"\+00:00$", "Z")
        return text.to_arrow(compat_level=pl.CompatLevel.newest())
    return pa.array([None if value is None else _json(value) for value in column.to_pylist()], pa.string())


def _floats(series: pl.Series, *, whole_floats: bool) -> pl.Series:
    text = series.cast(pl.String)
    has_exponent = text.str.contains("e", literal=True)
    if has_exponent.any() and series.dtype == pl.Float64:
        written = series.map_elements(repr, return_dtype=pl.String)
        text = text.zip_with(~has_exponent.fill_null(False), written)
    return text.str.replace(r"\.0$", "") if whole_floats else text


def _json(value: Any) -> str:
    """Return a value without a text form of its own: bytes as text or Base64, times ISO, the rest as JSON."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_json)
    return str(value)
