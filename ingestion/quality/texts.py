"""Values of any type as text: for published extra columns, for quarantine, for people."""

import base64
from typing import Any

import orjson
import polars as pl

EXACT_FLOAT = 2**53


def as_text(source: pl.Series) -> pl.Series:
    """Return the values as text: moments as ISO 8601 UTC, whole floats without ".0", nested values as JSON."""
    dtype = source.dtype
    if dtype == pl.String:
        return source
    frame, value = source.alias("value").to_frame(), pl.col("value")
    if dtype.is_nested() or dtype == pl.Map:
        return _nested_as_json(source)
    if isinstance(dtype, pl.Datetime):
        naive = value if dtype.time_zone is None else value.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        text = naive.cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ")
    elif dtype.is_float():
        whole = value.is_finite() & (value == value.floor()) & (value.abs() <= EXACT_FLOAT)
        text = pl.when(whole).then(value.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(value.cast(pl.String))
    elif dtype == pl.Duration:
        text = value.dt.to_string("iso")
    elif dtype == pl.Binary:
        return pl.Series(source.name, [_decoded(item) for item in source], dtype=pl.String)
    elif dtype == pl.Object:
        return pl.Series(source.name, [None if item is None else str(item) for item in source], dtype=pl.String)
    else:
        text = value.cast(pl.String)
    return frame.select(text.alias(source.name)).to_series()


def records_as_json(frame: pl.DataFrame) -> pl.Series:
    """Return each row as one JSON object of its columns, in their order; values JSON does not have become text."""
    columns = [series if _writes_as_json(series.dtype) else as_text(series) for series in frame.get_columns()]
    return pl.DataFrame(columns).to_struct("record").struct.json_encode()


def is_json(text: str, kind: type) -> bool:
    """Return whether the text is JSON for a value of that Python type (dict or list)."""
    try:
        return isinstance(orjson.loads(text), kind)
    except orjson.JSONDecodeError:
        return False


def _nested_as_json(source: pl.Series) -> pl.Series:
    if not _writes_as_json(source.dtype):
        return pl.Series(source.name, [None if item is None else _dumped(item) for item in source], dtype=pl.String)
    wrapped = source.alias("v").to_frame().to_struct("w").struct.json_encode()
    inner = wrapped.str.slice(len('{"v":')).str.strip_suffix("}")
    return inner.set(source.is_null(), None).alias(source.name)


def _writes_as_json(dtype: pl.DataType | Any) -> bool:
    # The JSON writer of polars stops the process at types it does not know, so only known ones reach it.
    if isinstance(dtype, pl.Struct):
        return bool(dtype.fields) and all(_writes_as_json(item.dtype) for item in dtype.fields)
    if isinstance(dtype, pl.List | pl.Array):
        return _writes_as_json(dtype.inner)
    return bool(dtype in (pl.String, pl.Boolean, pl.Null, pl.Date) or dtype.is_integer() or dtype.is_float())


def _dumped(item: Any) -> str:
    value = item.to_list() if isinstance(item, pl.Series) else item
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z).decode()


def _plain(value: Any) -> Any:
    return (
        _decoded(value) if isinstance(value, bytes) else value.to_list() if isinstance(value, pl.Series) else str(value)
    )


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value or b"").decode()
