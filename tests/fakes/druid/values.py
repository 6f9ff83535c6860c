"""Values of a record turned into those of a column as Druid does it, and the type that the column then has."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 2**63 - 1
SQL_TYPES = {"long": "BIGINT", "double": "DOUBLE", "float": "FLOAT", "string": "VARCHAR"}
_CASTS = {"LONG": "long", "DOUBLE": "double", "STRING": "string"}


class Unconvertible(Exception):  # noqa: N818 - a finding about one value, not an error of ours
    """A value that its column cannot hold: the row is stored without it and counted as processedWithError."""


def java_text(value: Any) -> str:
    """Return what Java prints of a value read from JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _java_double(value)
    if isinstance(value, list):
        return f"[{', '.join(map(java_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}={java_text(each)}' for name, each in value.items())}}}"
    return str(value)


def json_text(value: Any) -> str:
    """Return a value as Druid writes JSON: no blanks, numbers as Java prints them."""
    if isinstance(value, float):
        return f'"{_java_double(value)}"' if not math.isfinite(value) else _java_double(value)
    if isinstance(value, list):
        return f"[{','.join(map(json_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{json.dumps(name)}:{json_text(each)}' for name, each in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def compact(value: Any) -> str:
    """Return JSON as Druid writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def convert(value: Any, *, kind: str, name: str) -> Any:
    """Return a record's value as a dimension of this type holds it."""
    match kind:
        case "long":
            return _as_long(value, name)
        case "double" | "float":
            return _as_double(value, name, kind)
        case "auto" | "json":
            return _whole(value)
        case _:
            return _as_string(value)


def column_type(values: Iterable[Any], *, kind: str) -> str:
    """Return the SQL type of a segment's column, by the dimension's type or else by its values."""
    if kind in SQL_TYPES:
        return SQL_TYPES[kind]
    if kind not in ("auto", "json"):
        return "VARCHAR"
    found = {_type_of(value) for value in values if value is not None}
    return merged_type(found) if found else "VARCHAR"


def merged_type(types: Iterable[str]) -> str:
    """Return the type that bears the values of all these types."""
    found = set(types)
    if len(found) == 1:
        return found.pop()
    if "COMPLEX<json>" in found:
        return "COMPLEX<json>"
    if "ARRAY" in found:
        return "ARRAY"
    return "DOUBLE" if "VARCHAR" not in found else "VARCHAR"


def presented(value: Any, *, sql_type: str) -> Any:
    """Return a stored value as a query gives it, in a column of this type."""
    if value is None:
        return None
    if sql_type == "COMPLEX<json>" or isinstance(value, Mapping):
        return json_text(value)
    if isinstance(value, list) or sql_type == "ARRAY":
        elements = _of_one_kind(value if isinstance(value, list) else [value])
        return json_text([int(each) if isinstance(each, bool) else each for each in elements])
    if sql_type == "VARCHAR":
        return value if isinstance(value, str) else java_text(value)
    return float(value) if sql_type in ("DOUBLE", "FLOAT") else int(value)


def cast(value: Any, target: str | None) -> Any:
    """Return an `auto` value under its castToType."""
    if target is None or value is None:
        return value
    if target.startswith("ARRAY<"):
        inner = _CASTS[target[6:-1]]
        return [_cast_one(each, inner) for each in (value if isinstance(value, list) else [value])]
    return _cast_one(value, _CASTS[target])


def _cast_one(value: Any, kind: str) -> Any:
    try:
        return convert(value, kind=kind, name="")
    except Unconvertible:
        return None


def _as_long(value: Any, name: str) -> int | None:
    if isinstance(value, list):
        msg = (
            f"Could not ingest value [{java_text(value)}] as long for dimension [{name}]."
            " A long column cannot have multiple values in the same row."
        )
        raise Unconvertible(msg)
    if value is None or isinstance(value, bool):
        return None if value is None else int(value)
    if isinstance(value, (int, float)):
        if isinstance(value, float) and not math.isfinite(value):
            return 0 if math.isnan(value) else int(math.copysign(LONGEST, value))
        return max(-LONGEST - 1, min(LONGEST, int(value)))
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,19}", value) and abs(int(value)) <= LONGEST:
        return int(value)
    raise _inconvertible(value, "long", name)


def _as_double(value: Any, name: str, kind: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, list):
        msg = (
            f"Could not ingest value [{java_text(value)}] as {kind} for dimension [{name}]."
            f" A {kind} column cannot have multiple values in the same row."
        )
        raise Unconvertible(msg)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value.strip():
        try:
            return float(value)
        except ValueError:
            pass
    raise _inconvertible(value, kind, name)


def _inconvertible(value: Any, kind: str, name: str) -> Unconvertible:
    text = f"Could not convert value [{java_text(value)}] to {kind} for dimension [{name}]."
    if isinstance(value, bool):
        text += " Invalid type: [class java.lang.Boolean]"
    elif isinstance(value, Mapping):
        text += " Invalid type: [class java.util.LinkedHashMap]"
    return Unconvertible(text)


def _as_string(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = sorted(java_text(_whole(each)) for each in value if each is not None)
        return texts if len(texts) > 1 else texts[0] if texts else None
    return java_text(_whole(value))


def _whole(value: Any) -> Any:
    """Return a value with integers that do not fit a long as doubles."""
    if isinstance(value, int) and not isinstance(value, bool) and not -LONGEST <= value <= LONGEST:
        return float(value)
    return value


def _type_of(value: Any) -> str:
    if isinstance(value, (bool, int)):
        return "BIGINT"
    if isinstance(value, float):
        return "DOUBLE"
    if isinstance(value, str):
        return "VARCHAR"
    if isinstance(value, list) and not any(isinstance(each, (list, Mapping)) for each in value):
        return "ARRAY"
    return "COMPLEX<json>"


def _of_one_kind(values: list[Any]) -> list[Any]:
    """Return the elements of an array as one type: text beside text, doubles beside doubles."""
    present = [each for each in values if each is not None]
    if any(isinstance(each, str) for each in present):
        return [None if each is None else each if isinstance(each, str) else java_text(each) for each in values]
    if any(isinstance(each, float) for each in present):
        return [None if each is None else float(each) for each in values]
    return values


def _java_double(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        text = repr(value)
        return text if "e" not in text else f"{value:f}"
    mantissa, _, exponent = f"{value!r}".partition("e")
    digits = mantissa.replace(".", "").replace("-", "").lstrip("0").rstrip("0") or "0"
    power = math.floor(math.log10(abs(value))) if not exponent else int(exponent)
    return f"{'-' if value < 0 else ''}{digits[0]}.{digits[1:] or '0'}E{power}"
