"""Samples of an input, taken by Druid before it may load it: whether it sees it, and which types it finds there.

The sampler runs in the Overlord. Where that is another machine than the workers', what it sees of a shared disk says
nothing certain about them; it is all that can be asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ingestion.ports.errors import ConfigError, SinkRejected
from sinks.druid.client import DruidClient
from sinks.druid.columns import DruidColumn, DruidType
from sinks.druid.config import Granularity, InputKind
from sinks.druid.spec import JSON, NO_COLUMN, LoadPlan
from sinks.druid.staging import StagedObject, Staging

SAMPLED_ROWS = 500
TIMEOUT_MS = 15_000
MOST_FILES = 20
"""Files of a shared disk that are sampled, spread over all of them."""
_FITS = {
    DruidType.LONG: {"LONG"},
    DruidType.DOUBLE: {"DOUBLE", "FLOAT", "LONG"},
    DruidType.STRING: {"STRING"},
    DruidType.JSON: {"COMPLEX<json>", "STRING"},
}
"""Types that discovery may find for a column of each type; whole numbers in a column of doubles look like longs."""
_NUMBERS_AS_TEXT = frozenset({"NaN", "Infinity", "-Infinity"})
_PROBE_ROWS = b'{"probe":1}\n'
_DAY_MS = 86_400_000


def sampler_spec(plan: LoadPlan, *, rows: int, timeout_ms: int) -> dict[str, Any]:
    """Return the request for a sample of the first rows; it takes the type `index` only (measured).

    No column is named in it: of one that is, it would only say again what it was told. Nor is the time: it takes no
    row from before 1970, which a task loads like any other (measured).
    """
    return {
        "type": "index",
        "spec": {
            "dataSchema": {
                "dataSource": plan.datasource,
                "timestampSpec": {"column": NO_COLUMN, "format": "millis", "missingValue": "2000-01-01T00:00:00Z"},
                "dimensionsSpec": {"dimensions": [], "useSchemaDiscovery": True},
                "granularitySpec": {"type": "uniform", "segmentGranularity": "DAY", "rollup": False},
            },
            "ioConfig": {"type": "index", "inputSource": plan.source, "inputFormat": {"type": plan.format}},
            "tuningConfig": {"type": "index"},
        },
        "samplerConfig": {"numRows": rows, "timeoutMs": timeout_ms},
    }


def check_visibility(plan: LoadPlan, client: DruidClient) -> None:
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
    mismatches = schema_mismatches(plan.columns, found)
    if mismatches:
        raise SinkRejected("sink.schema_differs", destination=destination, detail="; ".join(mismatches[:5]))


def write_probe(staging: Staging) -> StagedObject:
    """Write a file of one row the way a run's rows are written, and find it again."""
    from sinks.druid.rows import gzipped  # noqa: PLC0415 (polars)

    found = staging.staged_blocks("probe", gzipped([_PROBE_ROWS]), rows=1)
    staging.look_up([found], is_clean=False)
    return found


def read_probe(
    client: DruidClient, staging: Staging, probe: Sequence[StagedObject], *, logical_time: str, timeout_ms: int
) -> None:
    """Let Druid read one row the way it would read a run's: that of the probe, else one inside the request."""
    source: dict[str, Any] = {"type": "inline", "data": _PROBE_ROWS.decode()}
    if probe:
        source = staging.input_source(probe, is_clean=False)
    plan = LoadPlan(
        datasource="headgate_probe",
        task_id="",
        columns=(DruidColumn("probe", "probe", DruidType.LONG),),
        time_column=None,
        logical_time=logical_time,
        granularity=Granularity.DAY,
        intervals=((0, _DAY_MS),),
        format=JSON,
        run_id=None,
        is_append=True,
        source=source,
    )
    answer = client.sample(sampler_spec(plan, rows=1, timeout_ms=timeout_ms))
    if not answer.get("numRowsRead"):
        if staging.input.kind is InputKind.LOCAL:
            raise ConfigError("sink.disk_not_shared", path=source["files"][0])
        detail = "it read the row of a probe and found none in it"
        raise SinkRejected("sink.rejected", destination=client.destination, detail=detail)


def schema_mismatches(columns: tuple[DruidColumn, ...], found: Mapping[str, Any]) -> list[str]:
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
