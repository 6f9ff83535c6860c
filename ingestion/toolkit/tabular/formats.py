"""The formats by name: which module splits and reads what. Loads every heavy library: import it where it is used."""

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa

from ingestion.toolkit.tabular import csv, json_array, jsonl, parquet, xlsx
from ingestion.toolkit.tabular.detect import detect
from ingestion.toolkit.tabular.spans import DEFAULT_TARGET_BYTES, Opener, Span

FORMATS = (csv.FORMAT, jsonl.FORMAT, json_array.FORMAT, parquet.FORMAT, xlsx.FORMAT)
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


def split_file(
    open_file: Opener,
    size: int,
    *,
    name: str,
    wanted: str | None = None,
    options: Mapping[str, str] = NO_OPTIONS,
    target_bytes: int = DEFAULT_TARGET_BYTES,
) -> list[Span]:
    """Return the spans of a file of any supported format, at least one.

    `wanted` names the format where it shall not be detected; options are `delimiter` and `quote` (CSV) and `sheet`
    (XLSX). ConfigError with a `file.*` code where the file as a whole cannot be used.
    """
    found = detect(open_file, size, name=name, wanted=wanted)
    if found == csv.FORMAT:
        delimiter, quote = options.get("delimiter"), options.get("quote")
        return csv.split(open_file, size, name=name, target_bytes=target_bytes, delimiter=delimiter, quote=quote)
    if found == xlsx.FORMAT:
        return xlsx.split(open_file, size, name=name, target_bytes=target_bytes, sheet=options.get("sheet"))
    if found == jsonl.FORMAT:
        return jsonl.split(open_file, size, name=name, target_bytes=target_bytes)
    if found == json_array.FORMAT:
        return json_array.split(open_file, size, name=name, target_bytes=target_bytes)
    return parquet.split(open_file, size, name=name, target_bytes=target_bytes)


def read_span(open_file: Opener, span: Span, *, name: str) -> pa.Table:
    """Return the records of one span with the reader columns `_row`, `_error_code`, `_error` and `_raw`."""
    if span.format == csv.FORMAT:
        return csv.read(open_file, span, name=name)
    if span.format == jsonl.FORMAT:
        return jsonl.read(open_file, span, name=name)
    if span.format == json_array.FORMAT:
        return json_array.read(open_file, span, name=name)
    if span.format == parquet.FORMAT:
        return parquet.read(open_file, span, name=name)
    return xlsx.read(open_file, span, name=name)
