"""Shapes of parts as their footers tell them, and batches in the types that all parts agreed on.

Imports pyarrow; so it is imported by functions that read parts, never at start.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.toolkit.clean.kinds import ColumnShape, Kind, PartShape, as_text

ARROW_TYPES: dict[Kind, Any] = {
    Kind.TEXT: pa.string(),
    Kind.INTEGER: pa.int64(),
    Kind.UNSIGNED: pa.uint64(),
    Kind.NUMBER: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.DATE: pa.date32(),
    Kind.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    Kind.JSON: pa.string(),
    Kind.NOTHING: pa.string(),
}
_ORDERED = frozenset({Kind.INTEGER, Kind.UNSIGNED, Kind.DATE, Kind.TIMESTAMP})


def shape_of(file: pq.ParquetFile) -> PartShape:
    """Return what the file's footer tells."""
    groups = range(file.metadata.num_row_groups)
    return PartShape(
        columns=tuple(_column_shape(file, position) for position in range(len(file.schema_arrow))),
        group_rows=tuple(file.metadata.row_group(group).num_rows for group in groups),
    )


def _column_shape(file: pq.ParquetFile, position: int) -> ColumnShape:
    column = file.schema_arrow.field(position)
    shape = ColumnShape(column.name, str(column.type))
    if len(file.schema) != len(file.schema_arrow):
        return shape  # nested columns: their leaves stand at other positions
    groups: list[Any] = [
        file.metadata.row_group(group).column(position).statistics for group in range(file.metadata.num_row_groups)
    ]
    if any(found is None or found.null_count is None for found in groups):
        return shape
    nulls = sum(found.null_count for found in groups)
    held = [found for found in groups if found.num_values]
    if shape.kind not in _ORDERED or not held or not all(found.has_min_max for found in held):
        return replace(shape, null_count=nulls)
    low, high = min(_comparable(found.min) for found in held), max(_comparable(found.max) for found in held)
    return replace(shape, null_count=nulls, low=low, high=high)


def _comparable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value


def conform(batch: pa.RecordBatch, kinds: Mapping[str, Kind]) -> pa.RecordBatch:
    """Return the batch with exactly these columns in this order, each in its agreed type; absent ones are null."""
    arrays = []
    for name, kind in kinds.items():
        position = batch.schema.get_field_index(name)
        wanted = ARROW_TYPES[kind]
        if position < 0:
            arrays.append(pa.nulls(batch.num_rows, wanted))
        else:
            arrays.append(_conformed(batch.column(position), kind))
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(kinds))


def arrow_schema(kinds: Mapping[str, Kind]) -> pa.Schema:
    """Return the columns as an Arrow schema."""
    return pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])


def _conformed(array: Any, kind: Kind) -> Any:
    wanted = ARROW_TYPES[kind]
    if array.type == wanted:
        return array
    if kind is Kind.TEXT and not _is_text(array.type):
        return pa.array([as_text(value) for value in array.to_pylist()], wanted)
    if kind is Kind.TIMESTAMP and getattr(array.type, "tz", None) is None:
        return array.cast(pa.timestamp("us")).cast(wanted)
    return array.cast(wanted)


def _is_text(dtype: Any) -> bool:
    types = pa.types
    return bool(
        types.is_null(dtype)
        or types.is_string(dtype)
        or types.is_large_string(dtype)
        or types.is_string_view(dtype)
        or (types.is_dictionary(dtype) and _is_text(dtype.value_type))
    )
