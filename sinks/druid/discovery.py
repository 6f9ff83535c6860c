"""What Druid itself makes of the first rows, compared with what the contract says of them."""

from collections.abc import Mapping
from typing import Any

from ingestion.ports.errors import SinkRejected
from sinks.druid.client import DruidClient
from sinks.druid.columns import DruidColumn, DruidType
from sinks.druid.spec import LoadPlan, sampler_spec

SAMPLED_ROWS = 500
TIMEOUT_MS = 15_000
_FITS = {
    DruidType.LONG: {"LONG"},
    DruidType.DOUBLE: {"DOUBLE", "FLOAT", "LONG"},
    DruidType.STRING: {"STRING"},
    DruidType.JSON: {"COMPLEX<json>", "STRING"},
}
"""What discovery may call a column of each type; whole numbers in a column of doubles look like longs."""
_ALWAYS_POSSIBLE = {"STRING"}
"""A column without a value in the sample is called text."""


def check_discovery(plan: LoadPlan, client: DruidClient, *, destination: str) -> None:
    """Return where Druid finds in the first rows what the contract declares; else SinkRejected, before any load."""
    found = client.sample(sampler_spec(plan, rows=SAMPLED_ROWS, timeout_ms=TIMEOUT_MS))
    mismatches = compare(plan.columns, found)
    if mismatches:
        raise SinkRejected("sink.schema_differs", destination=destination, detail="; ".join(mismatches[:5]))


def compare(columns: tuple[DruidColumn, ...], found: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each column that the sample shows otherwise than it is typed. Pure."""
    types = {column["name"]: str(column["type"]) for column in found.get("logicalSegmentSchema") or ()}
    unread = [row for row in found.get("data") or () if row.get("unparseable")]
    sentences = [f"a row cannot be read: {str(unread[0].get('error'))[:200]}"] if unread else []
    for column in columns:
        seen = types.get(column.name)
        if seen is not None and seen not in _FITS[column.type] | _ALWAYS_POSSIBLE:
            sentences.append(f"column {column.name} is {column.type.upper()} here and {seen} for Druid")
    return sentences
