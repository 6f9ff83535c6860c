"""Task specs and rows for exercising a Druid: plain functions that return what would be sent."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DIMENSIONS: tuple[Any, ...] = ("name", {"type": "double", "name": "e"}, {"type": "long", "name": "n"})


def lines(*rows: Mapping[str, Any] | str) -> str:
    """Return rows as JSON Lines without an end of line at the end; text is taken as it is."""
    return "\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)


def day_rows(*days: int, count: int = 10, name: str = "a", month: int = 1) -> list[dict[str, Any]]:
    """Return `count` rows a day of 2001, an hour apart."""
    return [
        {"t": f"2001-{month:02d}-{day:02d}T{hour:02d}:00:00Z", "name": name, "e": hour * 1.5, "n": hour}
        for day in days
        for hour in range(count)
    ]


def inline(rows: Iterable[Mapping[str, Any] | str] | str) -> dict[str, Any]:
    """Return the input source of rows that stand in the spec itself."""
    return {"type": "inline", "data": rows if isinstance(rows, str) else lines(*rows)}


def http(*uris: str) -> dict[str, Any]:
    """Return the input source of files behind addresses."""
    return {"type": "http", "uris": list(uris)}


def constant(name: str, expression: str) -> dict[str, Any]:
    """Return a transform that sets a column by an expression."""
    return {"type": "expression", "name": name, "expression": expression}


def json_column(name: str) -> dict[str, Any]:
    """Return the transform of a column of JSON text into a value."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return constant(name, f'try_parse_json("{quoted}")')


def task(
    datasource: str,
    task_id: str,
    source: Mapping[str, Any],
    *,
    dimensions: Sequence[Any] = DIMENSIONS,
    timestamp: Mapping[str, Any] | None = None,
    granularity: str = "DAY",
    intervals: Sequence[str] | None = None,
    append: bool = False,
    drop: bool = False,
    input_format: Mapping[str, Any] | None = None,
    tuning: Mapping[str, Any] | None = None,
    transforms: Sequence[Mapping[str, Any]] = (),
    discovery: bool | None = None,
    kind: str = "index_parallel",
) -> dict[str, Any]:
    """Return a native batch task; by default it replaces the chunks that receive rows."""
    granularity_spec: dict[str, Any] = {
        "segmentGranularity": granularity,
        "queryGranularity": "NONE",
        "rollup": False,
    }
    if intervals is not None:
        granularity_spec["intervals"] = list(intervals)
    schema: dict[str, Any] = {
        "dataSource": datasource,
        "timestampSpec": dict(timestamp or {"column": "t", "format": "iso"}),
        "dimensionsSpec": {"dimensions": list(dimensions)},
        "granularitySpec": granularity_spec,
    }
    if discovery is not None:
        schema["dimensionsSpec"]["useSchemaDiscovery"] = discovery
    if transforms:
        schema["transformSpec"] = {"transforms": [dict(each) for each in transforms]}
    return {
        "type": kind,
        "id": task_id,
        "context": {},
        "spec": {
            "dataSchema": schema,
            "ioConfig": {
                "type": kind,
                "appendToExisting": append,
                "dropExisting": drop,
                "inputSource": dict(source),
                "inputFormat": dict(input_format or {"type": "json"}),
            },
            "tuningConfig": {"type": kind, **(tuning or {})},
        },
    }


def without(spec: dict[str, Any], *path: str) -> dict[str, Any]:
    """Return the spec with one value taken out."""
    copy: dict[str, Any] = json.loads(json.dumps(spec))
    place = copy
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return copy
