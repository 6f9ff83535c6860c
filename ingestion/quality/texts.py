"""Values of any type as text: for published extra columns, for quarantine, for people."""

from typing import Any

import orjson
import polars as pl

from ingestion.toolkit.clean.kinds import EXACT_INTEGER
from ingestion.toolkit.frames import array_of
from ingestion.toolkit.moments import day_of, inside_years, with_far
from ingestion.toolkit.nested import decoded, plain_value

TIMESTAMP = pl.Datetime("us", "UTC")


def as_text(source: pl.Series) -> pl.Series:
    """Return the values as text: timestamps as ISO 8601 UTC, whole floats without ".0", nested values as JSON."""
    dtype = source.dtype
    if dtype == pl.String:
        return source
    frame, value = source.alias("value").to_frame(), pl.col("value")
    if dtype.is_nested() or dtype == pl.Map:
        return _nested_as_json(source)
    if dtype.is_temporal():
        return _temporal_as_text(source)
    if dtype.is_float():
        whole = value.is_finite() & (value == value.floor()) & (value.abs() <= EXACT_INTEGER)
        text = pl.when(whole).then(value.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(value.cast(pl.String))
    elif dtype == pl.Binary:
        return pl.Series(source.name, [None if item is None else decoded(item) for item in source], dtype=pl.String)
    elif dtype == pl.Object:
        return pl.Series(source.name, [None if item is None else str(item) for item in source], dtype=pl.String)
    else:
        text = value.cast(pl.String)
    return frame.select(text.alias(source.name)).to_series()


def _temporal_as_text(source: pl.Series) -> pl.Series:
    dtype = source.dtype
    frame, value = source.alias("value").to_frame(), pl.col("value")
    if isinstance(dtype, pl.Datetime):
        inside = frame.select(inside_years(value, dtype).alias(source.name)).to_series()
        if dtype.time_zone is not None:
            inside = inside.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return with_far(inside.dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ"), source, unit=dtype.time_unit, ending="Z")
    if dtype == pl.Date:
        near = frame.select(day_of(value).cast(pl.String).alias(source.name)).to_series()
        return with_far(near, source, unit="D")
    text = value.dt.to_string("%H:%M:%S%.f" if dtype == pl.Time else "iso")
    return frame.select(text.alias(source.name)).to_series()


def records_as_json(frame: pl.DataFrame) -> pl.Series:
    """Return each row as one JSON object of its columns, in their order; values JSON does not have become text."""
    columns = [series if _writes_as_json(series.dtype) else as_text(series) for series in frame.get_columns()]
    return pl.DataFrame(columns).to_struct("record").struct.json_encode()


def timestamp_of(value: pl.Expr, dtype: pl.Datetime) -> pl.Expr:
    """Return a typed timestamp as microseconds UTC; without a zone it is UTC, outside the years 1 to 9999 it is null."""
    inside = inside_years(value, dtype)
    if dtype.time_zone is None:
        return inside.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return inside.cast(pl.Datetime("us", dtype.time_zone)).dt.convert_time_zone("UTC")


def _nested_as_json(source: pl.Series) -> pl.Series:
    if not _writes_as_json(source.dtype):
        texts = [_dumped(item) if item.is_valid else None for item in array_of(source)]
        return pl.Series(source.name, texts, dtype=pl.String)
    wrapped = source.alias("v").to_frame().to_struct("w").struct.json_encode()
    inner = wrapped.str.slice(len('{"v":')).str.strip_suffix("}")
    return inner.set(source.is_null(), None).alias(source.name)


def _writes_as_json(dtype: pl.DataType | Any) -> bool:
    # The JSON writer of polars panics, which no except clause for errors catches, at types it does not know and at
    # dates beyond its range; so only values that cannot do that reach it.
    if isinstance(dtype, pl.Struct):
        return bool(dtype.fields) and all(_writes_as_json(item.dtype) for item in dtype.fields)
    if isinstance(dtype, pl.List | pl.Array):
        return _writes_as_json(dtype.inner)
    return bool(dtype in (pl.String, pl.Boolean, pl.Null) or dtype.is_integer() or dtype.is_float())


def _dumped(item: Any) -> str:
    return orjson.dumps(plain_value(item)).decode()
