"""Ingestion specs, made of a plan alone. Pure; the same plan gives the same spec.

Facts: https://druid.apache.org/docs/latest/ingestion/native-batch and what a real 33.0.0 did. Rollup is off (it is on
by default and would merge equal rows), intervals are always given (without them the input is read twice, and rows
outside of them would be thrown away in silence), and no parse error is tolerated.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingestion.ports.batch import RUN
from ingestion.ports.errors import SinkRejected
from sinks.druid.columns import RESERVED, DruidColumn, DruidType
from sinks.druid.config import Granularity
from sinks.druid.intervals import Interval, as_text, covers, merge_intervals, widen

JSON, PARQUET = "json", "parquet"
NO_COLUMN = f"{RESERVED}_no_time"
_ROWS_PER_SEGMENT = 3_000_000
_ROWS_IN_MEMORY = 150_000
_SAVED_ERRORS = 5
MARKER = "headgate"


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """One load of a datasource: which rows go where, and what of the rows that are there makes way.

    `intervals` are whole chunks. What an append may write into, or what is given up: those can only be made by
    `plan_replacement`, which knows whose rows lie in there.
    """

    datasource: str
    task_id: str
    columns: tuple[DruidColumn, ...]
    time_column: str | None
    """Name in Druid; None where every row has the logical time."""
    logical_time: str
    granularity: Granularity
    intervals: tuple[Interval, ...]
    format: str
    run_id: int | None
    """Written into every row's `_run`; None where the rows carry the run that each belongs to."""
    is_append: bool
    discovers: bool = False
    is_emptying: bool = False
    """No row is written into the intervals; what is read lies outside of them."""
    input_names: tuple[str, ...] = ()
    """Names of the inputs, without addresses or signatures; part of the plan's identity."""
    source: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """Druid's inputSource; holds signed addresses, so it is kept nowhere."""


def plan_replacement(
    wanted: Sequence[Interval],
    *,
    granularity: Granularity,
    held_runs: Mapping[Interval, frozenset[int]],
    reread_runs: frozenset[int],
    given_up_runs: frozenset[int],
    datasource: str,
) -> tuple[Interval, ...]:
    """Return the intervals that a load may replace, in whole chunks.

    `held_runs` says, for each interval that was asked about, whose rows lie there now. SinkRejected where they were
    not asked about for all of it, or where rows of a run lie there that the load neither brings again nor is meant to
    remove: a replacement would lose them.
    """
    chunks = merge_intervals(widen(interval, granularity) for interval in wanted)
    known = merge_intervals(held_runs)
    if not all(covers(known, chunk) for chunk in chunks):
        raise SinkRejected("sink.replaces_unknown", datasource=datasource, runs="it was not asked about")
    lost = frozenset[int]().union(*held_runs.values()) - reread_runs - given_up_runs
    if lost:
        raise SinkRejected(
            "sink.replaces_unknown", datasource=datasource, runs=f"of runs {', '.join(map(str, sorted(lost)))}"
        )
    return tuple(chunks)


def native_spec(plan: LoadPlan) -> dict[str, Any]:
    """Return the index_parallel task of a plan."""
    return {
        "type": "index_parallel",
        "id": plan.task_id,
        "context": {"forceTimeChunkLock": True, MARKER: plan_hash(plan)},
        "spec": {
            "dataSchema": data_schema(plan),
            "ioConfig": {
                "type": "index_parallel",
                "appendToExisting": plan.is_append,
                "dropExisting": not plan.is_append,
                "inputSource": plan.source,
                "inputFormat": {"type": plan.format},
            },
            "tuningConfig": {
                "type": "index_parallel",
                "maxNumConcurrentSubTasks": 1,
                "maxRetry": 1,
                "maxParseExceptions": 0,
                "maxSavedParseExceptions": _SAVED_ERRORS,
                "logParseExceptions": True,
                "maxRowsInMemory": _ROWS_IN_MEMORY,
                "partitionsSpec": {"type": "dynamic", "maxRowsPerSegment": _ROWS_PER_SEGMENT},
            },
        },
    }


def data_schema(plan: LoadPlan) -> dict[str, Any]:
    """Return columns, time and chunks of a plan."""
    listed = [column for column in plan.columns if column.is_declared or not plan.discovers]
    return {
        "dataSource": plan.datasource,
        "timestampSpec": {
            "column": plan.time_column or NO_COLUMN,
            "format": "millis",
            "missingValue": plan.logical_time,
        },
        "dimensionsSpec": {
            "dimensions": [_dimension(column) for column in listed],
            "useSchemaDiscovery": plan.discovers,
        },
        "transformSpec": {"transforms": list(_transforms(plan, listed))},
        "metricsSpec": [],
        "granularitySpec": {
            "type": "uniform",
            "segmentGranularity": plan.granularity.upper(),
            "queryGranularity": "NONE",
            "rollup": False,
            "intervals": [as_text(interval) for interval in plan.intervals],
        },
    }


def plan_hash(plan: LoadPlan) -> str:
    """Return what tells this plan from others: 64 hex digits over all of it but the addresses and their signatures."""
    told = {**data_schema(plan), "inputs": plan.input_names, "append": plan.is_append, "format": plan.format}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def marker_of(task: Mapping[str, Any]) -> str | None:
    """Return the hash that a task of ours carries, from the payload that Druid keeps."""
    payload = task.get("payload")
    about = payload if isinstance(payload, Mapping) else task
    context = about.get("context")
    found = context.get(MARKER) if isinstance(context, Mapping) else None
    return found if isinstance(found, str) else None


def _dimension(column: DruidColumn) -> dict[str, Any]:
    return {"type": column.type.value, "name": column.name}


def _transforms(plan: LoadPlan, columns: Sequence[DruidColumn]) -> Any:
    for column in columns:
        if column.source == RUN and plan.run_id is not None:
            yield {"type": "expression", "name": column.name, "expression": str(plan.run_id)}
        elif column.type is DruidType.JSON:
            # parse_json would fail the whole task at one bad text; what this one makes null is counted afterwards.
            expression = f"try_parse_json({quote_in_expression(column.name)})"
            yield {"type": "expression", "name": column.name, "expression": expression}


def quote_in_expression(name: str) -> str:
    """Return a column's name as Druid's expressions quote it: backslashes, not doubling (measured)."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
