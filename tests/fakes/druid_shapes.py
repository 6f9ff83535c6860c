"""Compares answers of two Druids: a recorded or a real one, and the one that was found.

`shape_differences` compares keys and types, whatever the values and however many elements lists have;
`differences` also the values, but for what differs from run to run (times, addresses, sizes, places of errors).
Both return sentences, none where there is no difference.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.fakes.druid_performance import Answer

VOLATILE = frozenset(
    {
        # sizes and durations
        *("duration", "processedBytes", "size", "curr_size", "max_size", "replicatedSize", "memory", "segmentCount"),
        # how many segments are still in use depends on when the Coordinator last cleaned up
        *("count", "num_replicas", "replication_factor", "shard_spec"),
        # addresses and processes
        *("port", "plaintext_port", "tls_port", "plaintextPort"),
        "timeOfExceptionMillis",
        # a task that was just ended says either
        "runnerStatusCode",
    }
)
"""Keys whose values are not compared, only their types."""

_TIME = re.compile(r"(?<!\d)(?!2001-|1970-)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_ADDRESS = re.compile(r"(?:https?://)?127\.0\.0\.1:\d+")
_PLACE = re.compile(r" \((?:Path: [^,]*, )?(?:Record: \d+, )?Line: \d+\)")
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)


def answer_differences(recorded: Answer, found: Answer) -> list[str]:
    """Return how two answers to the same call differ: status, content type, JSON or not, and the body."""
    heads = [
        {"status": each.status, "content type": each.content_type, "JSON": each.is_json} for each in (recorded, found)
    ]
    return [*differences(*heads, at="answer"), *differences(recorded.body, found.body)]


def same_shape(recorded: Any, found: Any) -> bool:
    """Return whether two bodies have the same keys and types."""
    return not shape_differences(recorded, found)


def shape_differences(recorded: Any, found: Any, *, at: str = "body") -> list[str]:
    """Return where keys or types differ; elements of lists are compared with the first recorded one."""
    return list(_shape(recorded, found, at))


def differences(recorded: Any, found: Any, *, at: str = "body") -> list[str]:
    """Return where keys, types or lasting values differ."""
    return list(_values(recorded, found, at, key=""))


def neutral(text: str) -> str:
    """Return a text without what differs from run to run; of an error only its first line, of a page its title."""
    if text.startswith("<html>"):
        title = _TITLE.search(text)
        return f"page: {title[1]}" if title else text
    first = text.partition("\n\tat ")[0].partition(", exceptions: ")[0]
    first = re.sub(r"Found unparseable columns in row: \[.*", "Found unparseable columns in row", first)
    first = re.sub(r"(acceptable options|Was expecting one of): ?.*", r"\1", first, flags=re.DOTALL)
    for pattern, name in ((_TIME, "<time>"), (_ADDRESS, "<address>"), (_PLACE, "")):
        first = pattern.sub(name, first)
    return first


def _shape(recorded: Any, found: Any, at: str) -> Iterator[str]:
    if _kind(recorded) != _kind(found):
        yield f"{at}: {_kind(recorded)} was recorded, {_kind(found)} found"
    elif isinstance(recorded, Mapping):
        yield from _keys(recorded, found, at)
        for name in recorded.keys() & found.keys():
            yield from _shape(recorded[name], found[name], f"{at}.{name}")
    elif isinstance(recorded, list) and recorded and found:
        for place, each in enumerate(found):
            yield from _shape(recorded[min(place, len(recorded) - 1)], each, f"{at}[{place}]")


def _values(recorded: Any, found: Any, at: str, *, key: str) -> Iterator[str]:
    if _kind(recorded) != _kind(found):
        yield f"{at}: {recorded!r} was recorded, {found!r} found"
    elif isinstance(recorded, Mapping):
        yield from _keys(recorded, found, at)
        for name in recorded.keys() & found.keys():
            yield from _values(recorded[name], found[name], f"{at}.{name}", key=key if key in VOLATILE else name)
    elif isinstance(recorded, list):
        if len(recorded) != len(found):
            yield f"{at}: {len(recorded)} elements were recorded, {len(found)} found"
        for place, (one, other) in enumerate(zip(recorded, found, strict=False)):
            yield from _values(one, other, f"{at}[{place}]", key=key)
    elif key not in VOLATILE and _neutral(recorded) != _neutral(found):
        yield f"{at}: {_neutral(recorded)!r} was recorded, {_neutral(found)!r} found"


def _keys(recorded: Mapping[str, Any], found: Mapping[str, Any], at: str) -> Iterator[str]:
    for name in sorted(recorded.keys() - found.keys()):
        yield f"{at}: {name!r} was recorded and is missing"
    for name in sorted(found.keys() - recorded.keys()):
        yield f"{at}: {name!r} was not recorded"


def _neutral(value: Any) -> Any:
    return neutral(value) if isinstance(value, str) else value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "text"
    return "object" if isinstance(value, Mapping) else "list" if isinstance(value, list) else "number"
