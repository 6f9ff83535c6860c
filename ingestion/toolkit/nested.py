"""Nested values of Arrow as plain ones that orjson can write: no moment wraps, no key of a map or digit vanishes."""

import base64
import json
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.types as kinds

from ingestion.toolkit.moments import moments_as_text

_PLACES = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def plain_value(item: "pa.Scalar[Any]") -> Any:  # noqa: PLR0911 - one return per kind
    """Return the value as Python objects; a map is an object, or a list of pairs where a key stands twice in it."""
    kind = item.type
    if not item.is_valid:
        return None
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.UuidType):
        return plain_value(item.value)  # type: ignore[attr-defined]
    if kinds.is_struct(kind):
        return {kind.field(at).name: plain_value(item[at]) for at in range(kind.num_fields)}  # type: ignore[index]
    if kinds.is_map(kind):
        pairs = [(plain_value(pair[0]), plain_value(pair[1])) for pair in item.values]  # type: ignore[attr-defined]
        found = {_key(key): value for key, value in pairs}
        return found if len(found) == len(pairs) else [list(pair) for pair in pairs]
    if kinds.is_nested(kind):
        return [plain_value(value) for value in item.values]  # type: ignore[attr-defined]
    if kinds.is_dictionary(kind):
        return item.as_py()
    return _leaf(item)


def values_as_text(column: "pa.ChunkedArray[Any]") -> "pa.Array[Any]":
    """Return each value as the text it is, or as JSON."""
    values = (plain_value(item) for item in column)
    return pa.array(
        [value if value is None or isinstance(value, str) else orjson.dumps(value).decode() for value in values],
        pa.string(),
    )


def is_json(text: str, kind: type = object) -> bool:
    """Return whether the text is JSON for a value of that Python type; its numbers may be of any size."""
    try:
        return isinstance(orjson.loads(text), kind)
    except orjson.JSONDecodeError as error:
        if "infinity" not in str(error):  # what orjson says of 1e400
            return False
    try:
        return isinstance(json.loads(text, parse_float=str, parse_int=str, parse_constant=_refuse), kind)
    except (ValueError, RecursionError):
        return False


def decoded(value: bytes) -> str:
    """Return bytes as the text they are, or else as Base64."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _key(key: Any) -> str:
    if isinstance(key, orjson.Fragment):
        return orjson.dumps(key).decode()
    return str(key).lower() if isinstance(key, bool) else str(key)


def duration_as_text(ticks: int, *, unit: str) -> str:
    """Return a count of a unit as an ISO 8601 duration in seconds, with every digit."""
    seconds = format(Decimal(ticks).scaleb(-_PLACES[unit]), "f")
    return f"PT{seconds.rstrip('0').rstrip('.') if '.' in seconds else seconds}S"


def _leaf(item: "pa.Scalar[Any]") -> Any:  # noqa: PLR0911 - one return per kind
    kind = item.type
    if kinds.is_timestamp(kind):
        return _moment(item)
    if kinds.is_date(kind):
        unit = "D" if kinds.is_date32(kind) else "ms"
        return moments_as_text(np.array([item.value]), unit=unit)[0].split("T")[0]  # type: ignore[attr-defined]
    if kinds.is_time(kind):
        if kind.unit != "ns" or not item.value % 1000:  # type: ignore[attr-defined]
            return item.as_py().isoformat()
        return moments_as_text(np.array([item.value]), unit="ns")[0].split("T")[1]  # type: ignore[attr-defined]
    if kinds.is_duration(kind):
        return duration_as_text(item.value, unit=kind.unit)  # type: ignore[attr-defined]
    value = item.as_py()
    if isinstance(value, bytes):
        value = decoded(value)
    if isinstance(value, Decimal):
        value = orjson.Fragment(format(value, "f"))
    return value if isinstance(value, str | int | float | bool | orjson.Fragment) else str(value)


def _moment(item: "pa.Scalar[Any]") -> str:
    kind, ticks = item.type, item.value  # type: ignore[attr-defined]
    if kind.unit != "ns" or not ticks % 1000:
        exact = item.cast(pa.timestamp("us", kind.tz)) if kind.unit == "ns" else item
        try:
            return str(exact.as_py().isoformat()).replace("+00:00", "Z")
        except (OverflowError, ValueError):
            pass
    return moments_as_text(np.array([ticks]), unit=kind.unit)[0] + ("Z" if kind.tz else "")
