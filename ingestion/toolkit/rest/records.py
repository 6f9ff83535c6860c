"""Records as they come out of stored pages, and as Arrow columns with the reader columns of `ports.batch`."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import orjson

from ingestion.ports.batch import ERROR, ERROR_CODE, FILTERED, PAGE, RAW, ROW, Records
from ingestion.ports.connector import Stream
from ingestion.ports.messages import sentence
from ingestion.ports.schema import ColumnType, ContractBody

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 2_000
INT64_MAX = 2**63 - 1
FLOAT_EXACT_MAX = 2**53
FIRST_RECORD = "record="
"""The beginning of the fragment of a page's address; the number of records that came ahead of it follows."""

ReadValues: TypeAlias = Callable[[Any], Mapping[str, Any]]
"""Turns one record into its columns' values, or raises UnreadableError."""

_LONE_SURROGATE = re.compile(
    r"\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f][0-9a-f]{2})|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2}", re.IGNORECASE
)

_LONG_INTEGER = re.compile(rb"[1-9][0-9]{18}")
"""Such a body may hold an integer beyond 64 bits, of which orjson makes a float."""
MAX_DIGITS = 1_000


def read_json(body: bytes) -> Any:
    """Return the JSON value of a body; ValueError where it is none.

    NaN and Infinity, which some hand-written servers send, are read as null (unknown), and half a surrogate pair
    as the replacement character: one odd value must not cost the whole page. Integers of any size keep their digits.
    """
    if not _LONG_INTEGER.search(body):
        with suppress(orjson.JSONDecodeError):
            return orjson.loads(body)
    try:
        text = _LONE_SURROGATE.sub(r"\\ufffd", body.decode("utf-8-sig"))
        return json.loads(text, parse_constant=lambda _: None, parse_int=_read_integer)
    except RecursionError:
        msg = "the JSON is nested too deeply"
        raise ValueError(msg) from None


def _read_integer(digits: str) -> int | str:
    # Python reads no integer of more than 4,300 digits; it stays text, which the contract judges.
    return int(digits) if len(digits) <= MAX_DIGITS else digits


def value_at(document: Any, path: Sequence[str]) -> Any:
    """Return what stands in the document under these names, one inside the other; None where nothing does."""
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def read_time(value: Any) -> datetime | None:
    """Return the UTC time of an RFC 3339 text (zone missing: UTC; a blank for the T is accepted), or None."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value.strip())
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def time_text(value: datetime) -> str:
    """Return a UTC time as "2019-06-08T05:13:37.331000Z", so that text order is time order."""
    return value.isoformat(timespec="microseconds").replace("+00:00", "Z")


def utc_text(value: Any) -> str | None:
    """Return a time as `time_text` writes it; naive times are UTC.

    Anything else is returned as it stands: the contract rejects that row by column and value.
    """
    found = read_time(value)
    return as_text(value) if found is None else time_text(found)


def as_text(value: Any) -> str | None:
    """Return text as it is, and any other value but null as its JSON."""
    return value if value is None or isinstance(value, str) else as_json(value)


def as_json_or_null(value: Any) -> str | None:
    """Return the value's JSON; null stays null."""
    return None if value is None else as_json(value)


def as_json(value: Any) -> str:
    """Return the value's JSON, integers of any size included."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # integers beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class UnreadableError(Exception):
    """A record that cannot be read; `code` is one of the messages' row codes."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of a page: itself, and its columns' values or the code of the reason why it has none."""

    page: int
    record: Any
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    detail: str = ""

    @property
    def raw(self) -> str:
        """Return the record as JSON text, or the text of what stood in its place."""
        is_text = isinstance(self.record, str) and self.problem == "row.malformed"
        return self.record if is_text else as_json(self.record)


def read_object(record: Any, *, key: str = "id") -> Mapping[str, Any]:
    """Return the fields of a record that is a JSON object with a key."""
    if not isinstance(record, dict):
        raise UnreadableError("row.not_an_object")
    if record.get(key) in (None, "") or isinstance(record[key], dict | list | bool):
        raise UnreadableError("row.missing_id")
    return record


def records_before(url: str) -> int:
    """Return how many records came ahead of a page, as its address says."""
    number = urlsplit(url).fragment.removeprefix(FIRST_RECORD)
    return int(number) if number.isdecimal() else 0


def read_page(page: int, body: bytes, *, path: Sequence[str], read: ReadValues) -> Iterator[Entry]:
    """Yield the records of one response body in order."""
    try:
        found = value_at(read_json(body), path)
    except ValueError as error:
        yield Entry(page, body[:10_000].decode("utf-8", "replace"), problem="row.malformed", detail=str(error))
        return
    for record in found if isinstance(found, list) else []:
        try:
            entry = Entry(page, record, read(record))
        except UnreadableError as error:
            entry = Entry(page, record, problem=error.code)
        yield entry


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
) -> "pa.Table":
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


def tabulate(entries: Iterable[Entry], schema: ContractBody, *, limit: int | None = None) -> "pa.Table":
    """Return the entries as one table, in order: declared columns, the source's others by name, reader columns.

    Rows from `limit` on are marked `_filtered`. An unreadable entry is a row with an error and no values. Parsed
    entries are let go batch by batch, so that the memory is that of the columns.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy

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
        import pyarrow as pa  # noqa: PLC0415 - heavy

        return pa.chunked_array(self._texts[name], pa.string())

    def _add_texts(self, name: str, values: list[str | None]) -> None:
        import pyarrow as pa  # noqa: PLC0415 - heavy

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
    import pyarrow as pa  # noqa: PLC0415 - heavy

    found = [value for value in values if value is not None]
    for kind, (arrow, fits) in _NARROW.items():
        if (kind is declared or (declared is ColumnType.ANY and found)) and all(map(fits, found)):
            fitting: pa.Array[Any] = pa.array(values, pa.type_for_alias(arrow))
            return fitting
    return pa.array([as_text(value) for value in values], pa.string())


def _is_int64(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -INT64_MAX - 1 <= value <= INT64_MAX


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (_is_int64(value) and abs(value) <= FLOAT_EXACT_MAX)


_NARROW: dict[ColumnType, tuple[Any, Callable[[Any], bool]]] = {
    ColumnType.BOOLEAN: ("bool", lambda value: isinstance(value, bool)),
    ColumnType.INTEGER: ("int64", _is_int64),
    ColumnType.NUMBER: ("float64", _is_number),
}
