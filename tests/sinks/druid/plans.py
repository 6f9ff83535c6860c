"""One load of each kind, and the specs that are known to be right for them.

`python -m tests.sinks.druid.plans` writes tests/data/druid/specs anew; what changes is then read before it is committed.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sinks.druid.columns import DruidColumn, DruidType, druid_columns, types_of_part
from sinks.druid.config import Granularity
from sinks.druid.intervals import FIRST_MS, milliseconds
from sinks.druid.sampling import sampler_spec
from sinks.druid.spec import JSON, PARQUET, LoadPlan, native_spec
from tests.sinks.druid.support import CONTRACT, LOGICAL_TIME

FOLDER = Path(__file__).parents[2] / "data" / "druid" / "specs"
DAY_MS = 86_400_000
JANUARY = milliseconds("2026-01-01")
_KINDS = {
    "id": "int64",
    "name": "string",
    "at": "timestamp[us, tz=UTC]",
    "energy": "double",
    "flag": "bool",
    'hos"tile, name': "string",
    "structure": "string",
}
_OBJECTS = [{"bucket": "lake", "path": "clean/samples/7/0-0/000000-0123456789abcdef.parquet"}]


def _columns() -> tuple[DruidColumn, ...]:
    found = druid_columns(CONTRACT, [types_of_part(CONTRACT, _KINDS)])
    return tuple(replace(item, type=DruidType.JSON) if item.source == "structure" else item for item in found)


BASE = LoadPlan(
    datasource="samples",
    task_id="hg.samples.7.107.a1",
    columns=_columns(),
    time_column="at",
    logical_time=LOGICAL_TIME,
    granularity=Granularity.DAY,
    intervals=((JANUARY, JANUARY + 2 * DAY_MS), (JANUARY + 9 * DAY_MS, JANUARY + 10 * DAY_MS)),
    format=JSON,
    run_id=7,
    is_append=False,
    input_names=("0" * 64,),
    source={"type": "inline", "data": '{"id":1}\n'},
)
PLANS: dict[str, LoadPlan] = {
    "inline_json_replace": BASE,
    "inline_json_append": replace(BASE, is_append=True, intervals=((JANUARY, JANUARY + 2 * DAY_MS),)),
    "presigned_json_replace": replace(
        BASE, source={"type": "http", "uris": ["http://127.0.0.1:9000/lake/staged/rows.json.gz?X-Amz-Signature=signed"]}
    ),
    "local_json_append": replace(
        BASE, is_append=True, source={"type": "local", "files": ["/srv/lake/staged/rows.json.gz"]}
    ),
    "local_parquet_replace": replace(
        BASE, format=PARQUET, source={"type": "local", "files": ["/srv/lake/clean/part.parquet"]}
    ),
    "s3_parquet_replace": replace(BASE, format=PARQUET, source={"type": "s3", "objects": _OBJECTS}),
    "s3_parquet_append_with_variables": replace(
        BASE,
        is_append=True,
        format=PARQUET,
        source={
            "type": "s3",
            "objects": _OBJECTS,
            "properties": {
                "accessKeyId": {"type": "environment", "variable": "LAKE_KEY"},
                "secretAccessKey": {"type": "environment", "variable": "LAKE_SECRET"},
            },
            "endpointConfig": {"url": "http://store:9000", "signingRegion": "us-east-1"},
            "clientConfig": {"enablePathStyleAccess": True, "disableChunkedEncoding": True, "protocol": "http"},
        },
    ),
    "merge_of_several_runs": replace(BASE, run_id=None, time_column="__headgate_time"),
    "without_a_time_column": replace(BASE, time_column=None, granularity=Granularity.YEAR, intervals=((FIRST_MS, 0),)),
    "discovering_undeclared_columns": replace(BASE, discovers=True),
    "emptying_chunks": replace(
        BASE,
        run_id=None,
        time_column="__headgate_time",
        is_emptying=True,
        source={"type": "inline", "data": '{"__headgate_time":1769000000000}\n'},
    ),
}


def documents() -> dict[str, Any]:
    """Return by file name what the builders make of the plans."""
    found: dict[str, Any] = {f"{name}.json": native_spec(plan) for name, plan in PLANS.items()}
    found["sampler.json"] = sampler_spec(BASE, rows=500, timeout_ms=15_000)
    return found


def text_of(document: Any) -> str:
    """Return a document as its file has it."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for file_name, document in documents().items():
        (FOLDER / file_name).write_text(text_of(document))
