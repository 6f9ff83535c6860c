"""Turns OPTIMADE entries into Arrow columns: the standard ones always, the provider's own as they come."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from ingestion.ports.batch import ERROR, ERROR_CODE, FILTERED, PAGE, RAW, ROW
from ingestion.ports.messages import sentence
from ingestion.ports.schema import Column, ColumnType, ContractBody

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 2_000
INT64_MAX = 2**63 - 1
FLOAT_EXACT_MAX = 2**53


class Kind(StrEnum):
    """How the values of a standard column are written."""

    TEXT = "text"
    TIME = "time"
    INT = "int"
    JSON = "json"


PARTIAL_FIELDS = "partial_data_fields"
"""Names of the fields that are null only because they were too large to be sent inline (JSON text)."""

STRUCTURES: dict[str, Kind] = {
    "id": Kind.TEXT,
    "type": Kind.TEXT,
    "immutable_id": Kind.TEXT,
    "last_modified": Kind.TIME,
    "elements": Kind.JSON,
    "nelements": Kind.INT,
    "elements_ratios": Kind.JSON,
    "chemical_formula_descriptive": Kind.TEXT,
    "chemical_formula_reduced": Kind.TEXT,
    "chemical_formula_hill": Kind.TEXT,
    "chemical_formula_anonymous": Kind.TEXT,
    "dimension_types": Kind.JSON,
    "nperiodic_dimensions": Kind.INT,
    "lattice_vectors": Kind.JSON,
    "cartesian_site_positions": Kind.JSON,
    "fractional_site_positions": Kind.JSON,
    "nsites": Kind.INT,
    "species": Kind.JSON,
    "species_at_sites": Kind.JSON,
    "assemblies": Kind.JSON,
    "structure_features": Kind.JSON,
    "space_group_it_number": Kind.INT,
    "space_group_symbol_hall": Kind.TEXT,
    "space_group_symbol_hermann_mauguin": Kind.TEXT,
    "space_group_symbol_hermann_mauguin_extended": Kind.TEXT,
    "space_group_symmetry_operations_xyz": Kind.JSON,
    PARTIAL_FIELDS: Kind.JSON,
}
"""Standard columns of structures; lengths in Å, matrices as rows."""

REFERENCES: dict[str, Kind] = {
    "id": Kind.TEXT,
    "type": Kind.TEXT,
    "immutable_id": Kind.TEXT,
    "last_modified": Kind.TIME,
    "authors": Kind.JSON,
    "editors": Kind.JSON,
    "title": Kind.TEXT,
    "journal": Kind.TEXT,
    "publisher": Kind.TEXT,
    "volume": Kind.TEXT,
    "pages": Kind.TEXT,
    "year": Kind.TEXT,
    "doi": Kind.TEXT,
    "url": Kind.TEXT,
    "bib_type": Kind.TEXT,
    PARTIAL_FIELDS: Kind.JSON,
}
"""Standard columns of references."""

_COLUMN_TYPES = {
    Kind.TEXT: ColumnType.STRING,
    Kind.TIME: ColumnType.DATETIME,
    Kind.INT: ColumnType.INTEGER,
    Kind.JSON: ColumnType.ARRAY,
}
_UNITS = {"lattice_vectors": "Å", "cartesian_site_positions": "Å"}

_LONE_SURROGATE = re.compile(
    r"\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f][0-9a-f]{2})|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2}", re.IGNORECASE
)


def read_json(body: bytes) -> Any:
    """Return the JSON value of a body; ValueError where it is none.

    NaN and Infinity, which some hand-written providers send, are read as null (unknown), and half a surrogate pair
    as the replacement character: one odd value must not cost the whole page.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            text = _LONE_SURROGATE.sub(r"\\ufffd", body.decode("utf-8-sig"))
            return json.loads(text, parse_constant=lambda _: None)
        except RecursionError:
            msg = "the JSON is nested too deeply"
            raise ValueError(msg) from error


def utc_text(value: Any) -> str | None:
    """Return a time as "2019-06-08T05:13:37.331000Z", so that text order is time order; naive times are UTC.

    What is no time is returned as it stands: the contract rejects that row by column and value.
    """
    if value is None:
        return None
    moment = read_time(value)
    return _as_text(value) if moment is None else moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def read_time(value: Any) -> datetime | None:
    """Return the UTC time of an RFC 3339 text (zone missing: UTC; a blank for the T is accepted), or None."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def schema_of(name: str, layout: Mapping[str, Kind]) -> ContractBody:
    """Return the contract that the standard columns keep: the key is `id`, everything else may be unknown."""
    columns = tuple(
        Column(name=column, type=_COLUMN_TYPES[kind], nullable=column != "id", unit=_UNITS.get(column))
        for column, kind in layout.items()
    )
    return ContractBody(name=name, key=("id",), columns=columns)


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of a page; `problem` is the code of the reason why it cannot be read, `value` the record itself."""

    page: int
    value: Any
    problem: str = ""
    detail: str = ""

    @property
    def raw(self) -> str:
        """Return the record as JSON text, or the text of what stood in its place."""
        return self.value if isinstance(self.value, str) and self.problem == "row.malformed" else _as_json(self.value)


def read_entries(page: int, body: bytes) -> Iterator[Entry]:
    """Yield the records of one response body in order, unreadable ones with their problem."""
    try:
        document = read_json(body)
    except ValueError as error:
        yield Entry(page, body[:10_000].decode("utf-8", "replace"), "row.malformed", str(error))
        return
    data = document.get("data") if isinstance(document, dict) else document
    for value in data if isinstance(data, list) else [] if data is None else [data]:
        yield _entry(page, value)


def _entry(page: int, value: Any) -> Entry:
    if not isinstance(value, dict):
        return Entry(page, value, "row.not_an_object")
    identifier = value.get("id")
    if identifier is None or identifier == "" or isinstance(identifier, dict | list | bool):
        return Entry(page, value, "row.missing_id")
    if not isinstance(value.get("attributes", {}), dict):
        return Entry(page, value, "row.no_attributes")
    return Entry(page, value)


def tabulate(entries: Iterable[Entry], layout: Mapping[str, Kind], *, limit: int | None = None) -> "pa.Table":
    """Return the entries as one table, in order: standard columns, provider columns by name, reader columns.

    Rows from `limit` on are marked `_filtered`. An unreadable entry is a row with an error and no values. Parsed
    entries are let go batch by batch, so that the memory is that of the columns.
    """
    import pyarrow as pa  # noqa: PLC0415 - heavy

    columns = _Columns(layout)
    waiting = iter(entries)
    while batch := list(islice(waiting, BATCH_ROWS)):
        columns.add(batch)
    rows = columns.row_count
    table: dict[str, Any] = {}
    for name, kind in layout.items():
        table[name] = _integers(columns.integers[name]) if kind is Kind.INT else _chunked(columns.texts[name])
    for name in sorted(columns.own):
        table[_free_name(name, taken=table)] = _inferred(columns.own[name])
    table[ROW] = pa.array(range(rows), pa.int64())
    table[PAGE] = pa.array(columns.pages, pa.int64())
    for name in (RAW, ERROR_CODE, ERROR):
        table[name] = _chunked(columns.texts[name])
    table[FILTERED] = pa.array([limit is not None and row >= limit for row in range(rows)], pa.bool_())
    return pa.table(table)


class _Columns:
    """Columns in the making: texts as Arrow chunks, what has its type still to be found as plain values."""

    def __init__(self, layout: Mapping[str, Kind]) -> None:
        self.row_count = 0
        self.pages: list[int] = []
        self.integers: dict[str, list[Any]] = {name: [] for name, kind in layout.items() if kind is Kind.INT}
        self.own: dict[str, list[Any]] = {}
        self._layout = layout
        self.texts: dict[str, list[pa.Array[Any]]] = {
            name: [] for name in (*(layout.keys() - self.integers.keys()), RAW, ERROR_CODE, ERROR)
        }

    def add(self, batch: Sequence[Entry]) -> None:
        """Append the entries."""
        attributes = [_attributes(entry) for entry in batch]
        for name, kind in self._layout.items():
            values = [attribute.get(name) for attribute in attributes]
            if kind is Kind.INT:
                self.integers[name].extend(_light(value) for value in values)
            else:
                write = _WRITERS[kind]
                self._add_texts(name, [write(value) for value in values])
        for name in {name for attribute in attributes for name in attribute} - self._layout.keys():
            values = self.own.setdefault(name, [None] * self.row_count)
            values.extend(_light(attribute.get(name)) for attribute in attributes)
        self.pages.extend(entry.page for entry in batch)
        self._add_texts(RAW, [entry.raw for entry in batch])
        self._add_texts(ERROR_CODE, [entry.problem or None for entry in batch])
        self._add_texts(ERROR, [_explain(entry) for entry in batch])
        self.row_count += len(batch)
        for values in self.own.values():
            values.extend([None] * (self.row_count - len(values)))

    def _add_texts(self, name: str, values: list[str | None]) -> None:
        import pyarrow as pa  # noqa: PLC0415 - heavy

        self.texts[name].append(pa.array(values, pa.string()))


class _Json(str):
    """JSON text that stands for a list or an object, lighter than the value itself."""

    __slots__ = ()


def _light(value: Any) -> Any:
    return _Json(_as_json(value)) if isinstance(value, list | dict) else value


def _chunked(chunks: "list[pa.Array[Any]]") -> "pa.ChunkedArray[Any]":
    import pyarrow as pa  # noqa: PLC0415 - heavy

    return pa.chunked_array(chunks, pa.string())


def _attributes(entry: Entry) -> Mapping[str, Any]:
    if entry.problem:
        return {}
    value = entry.value
    attributes = {**value.get("attributes", {}), "id": value["id"], "type": value.get("type")}
    meta = value.get("meta")
    partial = meta.get("partial_data_links") if isinstance(meta, dict) else None
    attributes[PARTIAL_FIELDS] = sorted(partial) if isinstance(partial, dict) and partial else None
    return attributes


def _explain(entry: Entry) -> str | None:
    return sentence(entry.problem, {"detail": entry.detail}) if entry.problem else None


def _free_name(name: str, *, taken: Mapping[str, Any]) -> str:
    """Return a column name that does not begin with "_" (those are ours) and is not taken."""
    free = name.lstrip("_") or "field"
    while free in taken:
        free = f"provider_{free}"
    return free


def _integers(values: Sequence[Any]) -> "pa.Array[Any]":
    """Return an integer column; text where a value is none, for the contract to reject."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    if all(value is None or _is_int64(value) for value in values):
        return pa.array(values, pa.int64())
    return pa.array([_as_text(value) for value in values], pa.string())


def _inferred(values: Sequence[Any]) -> "pa.Array[Any]":
    """Return the narrowest column that holds every value unchanged: boolean, integer, number, else text."""
    import pyarrow as pa  # noqa: PLC0415 - heavy

    found = [value for value in values if value is not None]
    if found and all(isinstance(value, bool) for value in found):
        return pa.array(values, pa.bool_())
    if found and all(_is_int64(value) for value in found):
        return pa.array(values, pa.int64())
    if found and all(_is_number(value) for value in found):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([_as_text(value) for value in values], pa.string())


def _is_int64(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -INT64_MAX - 1 <= value <= INT64_MAX


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (_is_int64(value) and abs(value) <= FLOAT_EXACT_MAX)


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else _as_json(value)


def _as_json_or_null(value: Any) -> str | None:
    return None if value is None else _as_json(value)


def _as_json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # integers beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_WRITERS: dict[Kind, Callable[[Any], str | None]] = {
    Kind.TEXT: _as_text,
    Kind.TIME: utc_text,
    Kind.JSON: _as_json_or_null,
}
