"""Dates and moments of any year: which are within the years 1 to 9999, and the others as text, exactly."""

import datetime as dt
from typing import Any

import numpy as np
import polars as pl

_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799
"""The first and the last second of the years 1 to 9999, since 1970."""
_TICKS_PER_SECOND = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def inside_years(value: pl.Expr, dtype: pl.Datetime) -> pl.Expr:
    """Return a typed timestamp in its own unit, null outside the years 1 to 9999."""
    # Compared before any change of unit: beyond its range that change wraps around silently.
    per_second = _TICKS_PER_SECOND[dtype.time_unit]
    ticks = value.to_physical()
    first, end = max(_FIRST_S * per_second, -(2**63)), min((_LAST_S + 1) * per_second, 2**63 - 1)
    return pl.when((ticks >= first) & (ticks < end)).then(value)


def day_of(value: pl.Expr) -> pl.Expr:
    """Return a date of the years 1 to 9999; another one is null."""
    return pl.when(value.is_between(dt.date.min, dt.date.max)).then(value)


def with_far(near: pl.Series, source: pl.Series, *, unit: str, ending: str = "") -> pl.Series:
    """Return the texts, with those of values outside the years 1 to 9999 filled in."""
    far = (near.is_null() & source.is_not_null()).arg_true()
    if not len(far):
        return near
    written = moments_as_text(source.gather(far).to_physical().to_numpy(), unit=unit)
    return near.scatter(far, pl.Series([text + ending for text in written], dtype=pl.String))


def moments_as_text(ticks: "np.ndarray[Any, Any]", *, unit: str) -> list[str]:
    """Return counts of a unit since 1970 as ISO 8601 without a zone, in any year, with every digit of the fraction."""
    written = np.datetime_as_string(ticks.astype(f"datetime64[{unit}]"))
    return [text.rstrip("0").rstrip(".") if "." in text else text for text in map(str, written)]
