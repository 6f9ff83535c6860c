"""The same load as a statement of the multi-stage query engine. Pure; every name and text is quoted.

Facts: https://druid.apache.org/docs/latest/multi-stage-query/reference. Columns go by name; every column of the input
and its type is listed; keys never stand in the text, since it can be read in Druid.
"""

import json
from dataclasses import dataclass
from typing import Any

from ingestion.ports.batch import RUN
from ingestion.ports.errors import ConfigError
from sinks.druid.columns import DruidColumn, DruidType
from sinks.druid.intervals import LAST_MS, Interval, as_text, milliseconds
from sinks.druid.questions import quoted
from sinks.druid.spec import MARKER, LoadPlan, plan_hash

_TYPES = {
    DruidType.STRING: "VARCHAR",
    DruidType.LONG: "BIGINT",
    DruidType.DOUBLE: "DOUBLE",
    DruidType.JSON: "VARCHAR",
}
_ROWS_PER_SEGMENT = 3_000_000


@dataclass(frozen=True, slots=True)
class Statement:
    """One INSERT or REPLACE, and the context it runs in."""

    query: str
    context: dict[str, Any]


def sql_statement(plan: LoadPlan) -> Statement:
    """Return the statement of a plan: INSERT for an append, else REPLACE of just the plan's intervals."""
    into = f"INSERT INTO {quoted(plan.datasource)}" if plan.is_append else _replace(plan)
    selected = ",\n  ".join([f"{_time(plan)} AS __time", *(_selected(plan, column) for column in plan.columns)])
    read = {column.name: _TYPES[column.type] for column in plan.columns}
    if plan.time_column is not None:
        read.setdefault(plan.time_column, "BIGINT")
    listed = ", ".join(f"{quoted(name)} {kind}" for name, kind in read.items())
    query = (
        f"{into}\nSELECT\n  {selected}\n"  # noqa: S608 (names are quoted, texts escaped)
        f"FROM TABLE(EXTERN({_text(json.dumps(plan.source))}, {_text(json.dumps({'type': plan.format}))}))\n"
        f"EXTEND ({listed})\n{'WHERE 1 = 0' + chr(10) if plan.is_emptying else ''}"
        f"PARTITIONED BY {plan.granularity.upper()}"
    )
    context = {
        "maxNumTasks": 2,
        "maxParseExceptions": 0,
        "arrayIngestMode": "array",
        "rowsPerSegment": _ROWS_PER_SEGMENT,
        "finalizeAggregations": False,
        MARKER: plan_hash(plan),
    }
    return Statement(query, context)


def _replace(plan: LoadPlan) -> str:
    ranges = " OR ".join(_range(interval) for interval in plan.intervals)
    return f"REPLACE INTO {quoted(plan.datasource)} OVERWRITE WHERE {ranges}"


def _range(interval: Interval) -> str:
    if interval[1] == LAST_MS:
        detail = "its statements cannot name the end of the year 9999, where some of the rows lie; set engine to native"
        raise ConfigError("sink.no_way", wanted="the multi-stage engine", detail=detail)
    start, end = (text.rstrip("Z").replace("T", " ") for text in as_text(interval).split("/"))
    return f"(__time >= TIMESTAMP '{start}' AND __time < TIMESTAMP '{end}')"


def _time(plan: LoadPlan) -> str:
    logical = milliseconds(plan.logical_time)
    if plan.time_column is None:
        return f"MILLIS_TO_TIMESTAMP({logical})"
    return f"MILLIS_TO_TIMESTAMP(COALESCE({quoted(plan.time_column)}, {logical}))"


def _selected(plan: LoadPlan, column: DruidColumn) -> str:
    name = quoted(column.name)
    if column.source == RUN and plan.run_id is not None:
        return f"CAST({plan.run_id} AS BIGINT) AS {name}"
    if column.type is DruidType.JSON:
        return f"TRY_PARSE_JSON({name}) AS {name}"
    return name


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
