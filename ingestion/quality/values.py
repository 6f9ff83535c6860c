"""Single values of a contract (bounds, allowed values), read by the same grammar as data."""

import datetime as dt
import math
import re
from typing import Any

from ingestion.ports.schema import Column, ColumnType

ISO_DATETIME = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}:[0-9]{2})(?::([0-5][0-9])(?:[.,]([0-9]+))?)?"
    r" ?([Zz]|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)?)?$"
)
"""Groups: date, hours and minutes, seconds, fraction, zone. No leap seconds: microseconds UTC cannot hold them."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
FIRST_AT = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
LAST_AT = dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC)

Scalar = str | int | float | bool | dt.date | dt.datetime


def read_datetime(text: str) -> dt.datetime:
    """Return the ISO 8601 text as a time in UTC (without a zone it is UTC); ValueError where it is none."""
    found = re.match(ISO_DATETIME.removesuffix("$") + r"\Z", text.strip())
    if found is None:
        msg = f"{text!r} is not an ISO 8601 date and time"
        raise ValueError(msg)
    day, clock, seconds, fraction, zone = found.groups()
    zone = "+00:00" if zone is None or zone in "Zz" else zone
    whole = f"{day}T{clock or '00:00'}:{seconds or '00'}.{(fraction or '0')[:6]:0<6}{zone}"
    try:
        return dt.datetime.fromisoformat(whole).astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        msg = f"{text!r} is not a possible date and time"
        raise ValueError(msg) from error


def read_date(text: str) -> dt.date:
    """Return the ISO 8601 date; ValueError where it is none."""
    if re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", text.strip()) is None:
        msg = f"{text!r} is not a date of the form YYYY-MM-DD"
        raise ValueError(msg)
    return dt.date.fromisoformat(text.strip())


def read_value(column: Column, value: Any) -> Scalar:
    """Return a contract's value in the column's type; ValueError, with a sentence, where it does not fit."""
    reader = {
        ColumnType.INTEGER: _read_integer,
        ColumnType.NUMBER: _read_number,
        ColumnType.BOOLEAN: _read_boolean,
        ColumnType.DATE: lambda text: read_date(str(text)),
        ColumnType.DATETIME: lambda text: read_datetime(str(text)),
    }.get(column.type, _read_text)
    read: Scalar = reader(value)
    return read


def read_bound(column: Column, value: Any) -> Scalar:
    """Return a bound in the column's type; an integer column may have a bound with a fraction."""
    return _read_number(value) if column.type is ColumnType.INTEGER else read_value(column, value)


def _read_integer(value: Any) -> int:
    if isinstance(value, str) and re.match(r"\s*[+-]?[0-9]+\s*\Z", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not INT64_MIN <= value <= INT64_MAX:
        msg = f"{value!r} is not an integer of 64 bits"
        raise ValueError(msg)
    return value


def _read_number(value: Any) -> int | float:
    if isinstance(value, str):
        try:
            value = int(value) if re.match(r"\s*[+-]?[0-9]+\s*\Z", value) else float(value)
        except ValueError:
            value = math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        msg = f"{value!r} is not a finite number"
        raise ValueError(msg)
    return value


def _read_boolean(value: Any) -> bool:
    read = {"true": True, "1": True, "false": False, "0": False}.get(str(value).strip().lower())
    if read is None:
        msg = f"{value!r} is not true or false"
        raise ValueError(msg)
    return read


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        msg = f"{value!r} is not text; put it in quotes"
        raise ValueError(msg)  # noqa: TRY004 - the one error for a value that does not fit
    return value
