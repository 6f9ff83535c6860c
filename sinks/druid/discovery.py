"""What Druid itself makes of an input before it may load it: whether it sees it, and which types it finds there.

The sampler runs in the Overlord. Where that is another machine than the workers', what it sees of a shared disk says
nothing certain about them; it is all that can be asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ingestion.ports.errors import ConfigError, SinkRejected
from sinks.druid.client import DruidClient
from sinks.druid.columns import DruidColumn, DruidType
from sinks.druid.spec import LoadPlan, sampler_spec

SAMPLED_ROWS = 500
TIMEOUT_MS = 15_000
MOST_FILES = 20
"""So many files of a shared disk are looked at, spread over all of them."""
_FITS = {
    DruidType.LONG: {"LONG"},
    DruidType.DOUBLE: {"DOUBLE", "FLOAT", "LONG"},
    DruidType.STRING: {"STRING"},
    DruidType.JSON: {"COMPLEX<json>", "STRING"},
}
"""What discovery may call a column of each type; whole numbers in a column of doubles look like longs."""
_NUMBERS_AS_TEXT = frozenset({"NaN", "Infinity", "-Infinity"})


def check_sight(plan: LoadPlan, client: DruidClient) -> None:
    """Return where Druid finds a row in each file of this machine's disk; else ConfigError, before any load.

    A file that a worker does not see is an empty one to it: the task succeeds, and a replacement leaves nothing
    (measured).
    """
    if plan.source.get("type") != "local":
        return
    for path in _spread(plan.source["files"]):
        one = replace(plan, source={"type": "local", "files": [path]})
        if not client.sample(sampler_spec(one, rows=1, timeout_ms=TIMEOUT_MS)).get("numRowsRead"):
            raise ConfigError("sink.disk_not_shared", path=path)


def check_discovery(plan: LoadPlan, client: DruidClient, *, destination: str) -> None:
    """Return where Druid finds in the first rows what the contract declares; else SinkRejected, before any load."""
    found = client.sample(sampler_spec(plan, rows=SAMPLED_ROWS, timeout_ms=TIMEOUT_MS))
    mismatches = compare(plan.columns, found)
    if mismatches:
        raise SinkRejected("sink.schema_differs", destination=destination, detail="; ".join(mismatches[:5]))


def compare(columns: tuple[DruidColumn, ...], found: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each column that the sample shows otherwise than it is typed. Pure."""
    types = {column["name"]: str(column["type"]) for column in found.get("logicalSegmentSchema") or ()}
    rows = found.get("data") or ()
    unread = [row for row in rows if row.get("unparseable")]
    sentences = [f"a row cannot be read: {str(unread[0].get('error'))[:200]}"] if unread else []
    for column in columns:
        seen = types.get(column.name)
        # A column without a value in the sample is called text, too.
        is_vacant = seen == "STRING" and not any(_is_text((row.get("parsed") or {}).get(column.name)) for row in rows)
        if seen is not None and seen not in _FITS[column.type] and not is_vacant:
            sentences.append(f"column {column.name} is {column.type.upper()} here and {seen} for Druid")
    return sentences


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value not in _NUMBERS_AS_TEXT


def _spread(paths: Sequence[str]) -> Sequence[str]:
    if len(paths) <= MOST_FILES:
        return paths
    return [paths[place * (len(paths) - 1) // (MOST_FILES - 1)] for place in range(MOST_FILES)]
