"""Values of one kind read as another, as functions that SQLite calls."""

import json
import math
import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from ingestion.toolkit.clean.kinds import EXACT_INTEGER, Kind


def text_of(value: Any) -> str | None:
    """Return a value as text; floats without loss, whole ones without a point."""
    if isinstance(value, float):
        is_whole = value == int(value) if abs(value) <= EXACT_INTEGER else False
        return str(int(value)) if is_whole else repr(value)
    return None if value is None else str(value)


def parse(text: str | None, kind: str) -> Any:
    """Return a text read as a value of the kind, as it is stored; None where it is none."""
    if text is None:
        return None
    try:
        return _PARSERS[Kind(kind)](text.strip())
    except (ValueError, OverflowError):
        return None


def _whole(text: str) -> int:
    value = int(re.sub(r"\.0+$", "", text))
    if not -(2**63) <= value < 2**63:
        raise ValueError(text)
    return value


def _number(text: str) -> float:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        raise ValueError(text)
    value = float(text)
    if not math.isfinite(value):
        raise OverflowError(text)
    return value


def _day(text: str) -> str:
    found = re.fullmatch(r"(\d{4}-\d{2}-\d{2})([T ]00:00(:00(\.0+)?)?(Z|\+00(:?00)?)?)?", text)
    return date.fromisoformat(found.group(1) if found else "").isoformat()


def _timestamp(text: str) -> str:
    timestamp = datetime.fromisoformat(text)
    if timestamp.utcoffset():
        raise ValueError(text)
    return timestamp.replace(tzinfo=None).strftime("%Y-%m-%d %H:%M:%S.%f")


def _json(text: str) -> str:
    json.loads(text)
    return text


def _truth(text: str) -> int:
    return {"true": 1, "false": 0}[text] if text in ("true", "false") else int("")


_PARSERS: dict[Kind, Callable[[str], Any]] = {
    Kind.INTEGER: _whole,
    Kind.UNSIGNED: lambda text: str(int(re.sub(r"\.0+$", "", text))),
    Kind.NUMBER: _number,
    Kind.BOOLEAN: _truth,
    Kind.DATE: _day,
    Kind.TIMESTAMP: _timestamp,
    Kind.TEXT: str,
    Kind.JSON: _json,
}
