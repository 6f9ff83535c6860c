"""Druid's SQL functions, for SQLite; times are ISO text."""

import json
import re
import sqlite3
from collections.abc import Callable
from typing import Any

from tests.fakes.druid.times import AFTER_9999, Interval, floor, following, iso, parse_iso, parse_time
from tests.fakes.druid.values import java_text, json_text

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\['([^']+)'\]")


def register(connection: sqlite3.Connection) -> None:
    """Teach a connection the functions."""
    for name, function in _FUNCTIONS.items():
        connection.create_function(name, -1, _strict(function), deterministic=True)
    connection.execute("PRAGMA case_sensitive_like = ON")


def _strict(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return None if arguments and arguments[0] is None else function(*arguments)

    return call


def _from_milliseconds(ms: int) -> str:
    if ms >= AFTER_9999:
        raise OverflowError(ms)  # measured: 500
    return iso(ms)


def _time_floor(time: str, period: str, *_: Any) -> str:
    return iso(floor(parse_iso(time), period))


def _time_shift(time: str, period: str, steps: int, *_: Any) -> str:
    ms = parse_iso(time)
    for _step in range(abs(steps)):
        ms = following(ms, period) if steps > 0 else 2 * ms - following(ms, period)
    return iso(ms)


def _time_in_interval(time: str, interval: str) -> int:
    return int(Interval.parse(interval).holds(parse_iso(time)))


def _to_bigint(value: Any) -> Any:
    if isinstance(value, str):
        if "T" in value and value.endswith("Z"):
            return parse_iso(value)
        return int(value) if re.fullmatch(r"-?\d+", value) else None
    return int(value)


def _to_double(value: Any) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _to_timestamp(value: Any) -> str | None:
    ms = value if isinstance(value, int) else parse_time(value, form="auto")
    return None if ms is None else iso(ms)


def _json_value(value: Any, path: str, returning: str = "VARCHAR") -> Any:
    found = _found(value, path)
    if found is None or isinstance(found, (dict, list)):
        return None
    if returning in ("BIGINT", "INTEGER"):
        return _to_bigint(int(found) if isinstance(found, bool) else found)
    return _to_double(found) if returning in ("DOUBLE", "FLOAT") else java_text(found)


def _json_query(value: Any, path: str) -> str | None:
    found = _found(value, path)
    return None if found is None else json_text(found)


def _found(value: Any, path: str) -> Any:
    try:
        found = json.loads(value) if isinstance(value, str) else value
        for key, index, quoted in _STEP.findall(path.removeprefix("$")):
            found = found[int(index)] if index else found[key or quoted]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return found


def _parse_json(value: Any) -> str | None:
    try:
        return json_text(json.loads(value))
    except (ValueError, TypeError):
        return None


def _concat(*values: Any) -> str | None:
    return None if any(value is None for value in values) else "".join(map(java_text, values))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "time_floor": _time_floor,
    "time_shift": _time_shift,
    "time_in_interval": _time_in_interval,
    "time_parse": _to_timestamp,
    "time_format": lambda time, *_: time.replace("Z", "+00:00"),
    "millis_to_timestamp": _from_milliseconds,
    "timestamp_to_millis": parse_iso,
    "to_bigint": _to_bigint,
    "to_double": _to_double,
    "to_varchar": java_text,
    "to_timestamp": _to_timestamp,
    "json_value": _json_value,
    "json_query": _json_query,
    "parse_json": _parse_json,
    "try_parse_json": _parse_json,
    "to_json_string": lambda value: value,
    "concat": _concat,
    "nvl": lambda first, *_: first,
    "greatest": lambda *values: max(value for value in values if value is not None),
    "least": lambda *values: min(value for value in values if value is not None),
    "mod": lambda value, by: value % by,
}
