"""The sampler: the first rows of an input, and the types Druid would give them."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from tests.fakes.druid.inputs import Reader, Unreadable
from tests.fakes.druid.rows import Dimension, RowRules, columns
from tests.fakes.druid.times import iso
from tests.fakes.druid.validation import RefusedError
from tests.fakes.druid.values import java_text

_LOGICAL = {"BIGINT": "long", "DOUBLE": "double", "VARCHAR": "string", "FLOAT": "float"}
_SEGMENT_TYPES = {"BIGINT": "LONG", "DOUBLE": "DOUBLE", "VARCHAR": "STRING", "FLOAT": "FLOAT"}
_DEFAULT_ROWS = 500


def sample(body: Mapping[str, Any], *, s3: Any = None) -> dict[str, Any]:
    """Return the sampler's answer; raises UnreachableError where the input does not answer."""
    spec = body["spec"]
    rules = RowRules.of(spec["dataSchema"], chunks=None)
    limit = (body.get("samplerConfig") or {}).get("numRows", _DEFAULT_ROWS)
    reader = Reader(spec["ioConfig"]["inputSource"], spec["ioConfig"]["inputFormat"], s3=s3)
    data: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    indexed = 0
    for number, record in enumerate(islice(reader.records(), limit), start=1):
        ms = rules.time_of(record)
        if isinstance(record, Unreadable):
            data.append({"unparseable": True, "error": f"{record.reason} into JSON (Line: {number})"})
        elif isinstance(ms, Unreadable):
            data.append({"input": dict(record), "unparseable": True, "error": f"{ms.reason} (Line: {number})"})
        elif ms < 0:
            shown = f"SamplerInputRow{{row={{timestamp={iso(ms)}, event={java_text(dict(record))}}}}}"
            msg = f"Failed to sample data: Cannot add row[{shown}] because it is below the minTimestamp[{iso(0)}]."
            raise RefusedError(msg)  # measured
        else:
            row, problems = rules.row(ms, record)
            rows.append(row)
            indexed += not problems
            shown: dict[str, Any] = {"input": dict(record), "parsed": row}
            if problems:
                reason = f"Found unparseable columns in row: [{row}], exceptions: [{', '.join(problems)}]"
                shown |= {"unparseable": True, "error": reason}
            data.append(shown)
    dimensions = rules.all_dimensions(rows)
    types = columns(rows, dimensions)
    for row in rows:
        row |= {each.name: row.get(each.name) for each in dimensions}
    return {
        "numRowsRead": len(data),
        "numRowsIndexed": indexed,
        "logicalDimensions": [_dimension(_LOGICAL.get(types[each.name], "auto"), each.name) for each in dimensions],
        "physicalDimensions": [_dimension(each.kind, each.name) for each in dimensions],
        "logicalSegmentSchema": [{"name": "__time", "type": "LONG"}, *_schema(dimensions, types, rows)],
        "data": data,
    }


def _dimension(kind: str, name: str) -> dict[str, Any]:
    is_indexed = kind in ("string", "auto", "json")
    return {"type": kind, "name": name, "multiValueHandling": "SORTED_ARRAY", "createBitmapIndex": is_indexed}


def _schema(
    dimensions: Sequence[Dimension], types: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    found = []
    for each in dimensions:
        kind = _SEGMENT_TYPES.get(types[each.name], types[each.name])
        if kind == "ARRAY":
            elements = [one for row in rows for one in row.get(each.name) or ()]
            inner = columns([{"v": one} for one in elements], [Dimension("v", "auto")])["v"]
            kind = f"ARRAY<{_SEGMENT_TYPES[inner]}>"
        found.append({"name": each.name, "type": kind})
    return found
