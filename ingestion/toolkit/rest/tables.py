"""JSON records as Arrow columns: the declared ones always, all others as they come, and the reader columns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from ingestion.ports.batch import ERROR, ERROR_CODE, FILTERED, PAGE, RAW, ROW, Records
from ingestion.ports.connector import Stream
from ingestion.ports.messages import sentence
from ingestion.ports.schema import ColumnType, ContractBody
from ingestion.toolkit.rest.records import Entry, ReadValues, read_object, read_page, records_before
from ingestion.toolkit.rest.values import as_json, as_json_or_null, as_text, utc_text

BATCH_ROWS = 2_000
INT64_MAX = 2**63 - 1
FLOAT_EXACT_MAX = 2**53

_WRITERS: dict[ColumnType, Callable[[Any], str | None]] = {
    ColumnType.STRING: as_text,
    ColumnType.DATE: as_text,
    ColumnType.DATETIME: utc_text,
    ColumnType.ARRAY: as_json_or_null,
    ColumnType.OBJECT: as_json_or_null,
}
"""Declared types whose columns are text; all others are typed once every value is known."""


def standardize(
    records: Records, stream: Stream, *, path: Sequence[str] = (), read: ReadValues = read_object
) -> pa.Table:
    """Return the records of stored pages as one table by the stream's schema, with the reader columns.

    On each page they stand as a list under the names `path`, one inside the other.
    """
    entries = (entry for page in records.pages for entry in read_page(page.seq, page.read(), path=path, read=read))
    limit = records.query.limit
    if limit is not None and records.pages:
        limit -= records_before(records.pages[0].url)
    if stream.schema is None:
        msg = f"the stream {stream.name} declares no schema"
        raise TypeError(msg)
    return tabulate(entries, stream.schema, limit=limit)


def tabulate(entries: Iterable[Entry], schema: ContractBody, *, limit: int | None = None) -> pa.Table:
    """Return the entries as one table, in order: declared columns, the source's others by name, reader columns.

    Rows from `limit` on are marked `_filtered`. An unreadable entry is a row with an error and no values. Parsed
    entries are let go batch by batch, so that the memory is that of the columns.
    """
    declared = {column.name: column.type for column in schema.columns}
    columns = _Columns(declared)
    waiting = iter(entries)
    while batch := list(islice(waiting, BATCH_ROWS)):
        columns.add(batch)
    table: dict[str, Any] = {}
    for name, column_type in declared.items():
        is_text = column_type in _WRITERS
        table[name] = columns.text(name) if is_text else _narrowed(columns.plain[name], declared=column_type)
    for name in sorted(columns.plain.keys() - declared.keys()):
        table[_free_name(name, taken=table)] = _narrowed(columns.plain[name])
    rows = columns.row_count
    table[ROW] = pa.array(range(rows), pa.int64())
    table[PAGE] = pa.array(columns.pages, pa.int64())
    for name in (RAW, ERROR_CODE, ERROR):
        table[name] = columns.text(name)
    table[FILTERED] = pa.array([limit is not None and row >= limit for row in range(rows)], pa.bool_())
    return pa.table(table)


class _Columns:
    """Columns in the making: texts as Arrow chunks, what has its type still to be found as plain values."""

    def __init__(self, declared: Mapping[str, ColumnType]) -> None:
        self.row_count = 0
        self.pages: list[int] = []
        self.plain: dict[str, list[Any]] = {name: [] for name, kind in declared.items() if kind not in _WRITERS}
        self._written = {name: _WRITERS[kind] for name, kind in declared.items() if kind in _WRITERS}
        self._texts: dict[str, list[pa.Array[Any]]] = {name: [] for name in (*self._written, RAW, ERROR_CODE, ERROR)}

    def add(self, batch: Sequence[Entry]) -> None:
        """Append the entries."""
        for name, write in self._written.items():
            self._add_texts(name, [write(entry.values.get(name)) for entry in batch])
        for name in {name for entry in batch for name in entry.values} - self._written.keys():
            values = self.plain.setdefault(name, [None] * self.row_count)
            values.extend(_light(entry.values.get(name)) for entry in batch)
        self.pages.extend(entry.page for entry in batch)
        self._add_texts(RAW, [entry.raw for entry in batch])
        self._add_texts(ERROR_CODE, [entry.problem or None for entry in batch])
        self._add_texts(ERROR, [_explain(entry) for entry in batch])
        self.row_count += len(batch)
        for values in self.plain.values():
            values.extend([None] * (self.row_count - len(values)))

    def text(self, name: str) -> "pa.ChunkedArray[Any]":
        """Return a text column as far as it goes."""
        return pa.chunked_array(self._texts[name], pa.string())

    def _add_texts(self, name: str, values: list[str | None]) -> None:
        self._texts[name].append(pa.array(values, pa.string()))


class _Json(str):
    """JSON text that stands for a list or an object, lighter than the value itself."""

    __slots__ = ()


def _light(value: Any) -> Any:
    return _Json(as_json(value)) if isinstance(value, list | dict) else value


def _explain(entry: Entry) -> str | None:
    return sentence(entry.problem, {"detail": entry.detail}) if entry.problem else None


def _free_name(name: str, *, taken: Mapping[str, Any]) -> str:
    """Return a column name that does not begin with "_" (those are ours) and is not taken."""
    free = name.lstrip("_") or "field"
    while free in taken:
        free = f"provider_{free}"
    return free


def _narrowed(values: Sequence[Any], *, declared: ColumnType = ColumnType.ANY) -> "pa.Array[Any]":
    """Return the narrowest column that holds every value unchanged: boolean, integer, number, else text.

    A declared type is the only one beside text: what does not fit it is for the contract to reject.
    """
    found = [value for value in values if value is not None]
    for kind, (arrow, fits) in _NARROW.items():
        if (kind is declared or (declared is ColumnType.ANY and found)) and all(map(fits, found)):
            return pa.array(values, arrow)
    return pa.array([as_text(value) for value in values], pa.string())


def _is_int64(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -INT64_MAX - 1 <= value <= INT64_MAX


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (_is_int64(value) and abs(value) <= FLOAT_EXACT_MAX)


_NARROW: dict[ColumnType, tuple["pa.DataType", Callable[[Any], bool]]] = {
    ColumnType.BOOLEAN: (pa.bool_(), lambda value: isinstance(value, bool)),
    ColumnType.INTEGER: (pa.int64(), _is_int64),
    ColumnType.NUMBER: (pa.float64(), _is_number),
}
