"""Reads bytes through the public functions, as the tests of all formats need it."""

import io
from collections.abc import Callable
from typing import Any, BinaryIO

import pyarrow as pa

from ingestion.ports.batch import ERROR_CODE, READER_COLUMNS, ROW
from ingestion.toolkit.tabular.formats import read_span, split_file
from ingestion.toolkit.tabular.spans import Span


def opener(data: bytes) -> Callable[[], BinaryIO]:
    """Return what opens these bytes as a file."""
    return lambda: io.BytesIO(data)


def spans_of(data: bytes, *, name: str, target_bytes: int = 1_000_000, **options: str) -> list[Span]:
    """Return the spans of a file with this content."""
    return split_file(opener(data), len(data), name=name, target_bytes=target_bytes, options=options)


def tables_of(data: bytes, *, name: str, target_bytes: int = 1_000_000, **options: str) -> list[pa.Table]:
    """Return one table per span."""
    spans = spans_of(data, name=name, target_bytes=target_bytes, **options)
    return [read_span(opener(data), Span.from_data(span.to_data()), name=name) for span in spans]


def rows_of(data: bytes, *, name: str, target_bytes: int = 1_000_000, **options: str) -> list[dict[str, Any]]:
    """Return all records in order, with the reader columns."""
    return [
        row for table in tables_of(data, name=name, target_bytes=target_bytes, **options) for row in table.to_pylist()
    ]


def cells_of(data: bytes, *, name: str, target_bytes: int = 1_000_000, **options: str) -> list[list[Any]]:
    """Return the data cells of the readable records in order."""
    return [
        [value for column, value in row.items() if column not in READER_COLUMNS]
        for row in rows_of(data, name=name, target_bytes=target_bytes, **options)
        if row[ERROR_CODE] is None
    ]


def errors_of(data: bytes, *, name: str, target_bytes: int = 1_000_000, **options: str) -> list[tuple[int, str]]:
    """Return row number and code of the unreadable records."""
    rows = rows_of(data, name=name, target_bytes=target_bytes, **options)
    return [(row[ROW], row[ERROR_CODE]) for row in rows if row[ERROR_CODE] is not None]
