"""JSON records to Arrow columns, exactly: no number loses a digit unseen, no key overwrites another.

A column keeps a type where all its values share it (true/false, integer, number, text). Otherwise it is text:
strings as they are, other scalars and nested values as JSON text; so is one with a number that 64 bits would round. A column that holds nested values carries the
field metadata `JSON_TEXT`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf
from typing import Any, TypeAlias

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.toolkit.tabular.assembly import assemble, clean_header
from ingestion.toolkit.tabular.spans import MAX_JSON_DEPTH, BadRow, bad_row

Values: TypeAlias = "pa.Array[Any]"

JSON_TEXT = {b"headgate": b"json"}
BATCH_ROWS = 1_000  # small enough to stay in the processor's cache
_DIGITS = bytes.maketrans(b"123456789.", b"0" * 10)
_LONG_NUMBER = b"0" * 16
_LONG_NUMBERS = re.compile(rb"-?[0-9][0-9.]{15,}(?:[eE][+-]?[0-9]+)?")
_TINY_NUMBERS = re.compile(rb"[0-9][eE]-[0-9]{3}")
_KEY_ENDS = re.compile(rb'"[ \t\r\n]*:')
_SPACED_KEY_END = re.compile(rb'"[ \t\r\n]+:')
_ESCAPED_KEY_ENDS = re.compile(rb"\\u00(?:22|3[aA]|20|09|0[aAdD])")
"""Escapes of what ends a key: written out again they would look like one, or no longer like one."""
_INT64 = range(-(2**63), 2**63)
_EXACT_IN_DOUBLE = 2**53


class _DoubledKeyError(ValueError):
    """A key stands twice in one object."""


@dataclass
class RecordColumns:
    """Collects records in order and becomes one table; with `as_text` every cell is text."""

    name: str
    as_text: bool = False
    bad: list[BadRow] = field(default_factory=list)
    _rows: list[int] = field(default_factory=list)
    _chunks: dict[str, list[tuple[int, Values]]] = field(default_factory=dict)
    _nested: set[str] = field(default_factory=set)
    _pending: list[tuple[int, bytes]] = field(default_factory=list)

    def add(self, row: int, raw: bytes) -> None:
        """Take the next record as it stands in the file."""
        self._pending.append((row, raw))
        if len(self._pending) >= BATCH_ROWS:
            self._flush()

    def table(self) -> pa.Table:
        """Return what was added, with the reader columns, in row order."""
        self._flush()
        header = clean_header(list(self._chunks), name=self.name)
        arrays, fields = [], []
        for column, clean in zip(self._chunks, header.columns, strict=True):
            array = self._join(self._chunks[column])
            arrays.append(array)
            fields.append(pa.field(clean, array.type, metadata=JSON_TEXT if column in self._nested else None))
        return assemble(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), self._rows, self.bad)

    def renamed(self) -> dict[str, str]:
        """Return the changed column names and what they are in the file."""
        return clean_header(list(self._chunks), name=self.name).renamed

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        begin = len(self._rows)
        records = self._parse(pending)
        for column, values in _columns(records):
            if not {dict, list}.isdisjoint(map(type, values)):
                self._nested.add(column)
            self._chunks.setdefault(column, []).append((begin, _to_array(values, as_text=self.as_text)))

    def _parse(self, pending: Sequence[tuple[int, bytes]]) -> list[dict[str, Any]]:
        good: list[tuple[int, bytes, dict[str, Any]]] = []
        text = b"\n".join(raw for _, raw in pending)
        may_be_deep = text.count(b"[") + text.count(b"{") > MAX_JSON_DEPTH + len(pending)
        for row, raw in pending:
            try:
                record = _loads(raw)
            except ValueError as error:
                self._refuse(row, raw, detail=str(error))
                continue
            if type(record) is not dict:
                self.bad.append(bad_row(row, "row.not_an_object", raw=_text(raw)))
            elif may_be_deep and raw.count(b"[") + raw.count(b"{") > MAX_JSON_DEPTH and _depth(record) > MAX_JSON_DEPTH:
                self._refuse(row, raw, detail=f"it is nested deeper than {MAX_JSON_DEPTH} levels")
            else:
                good.append((row, raw, record))
        if not _suspects(good):
            self._rows.extend(row for row, _, _ in good)
            return [record for _, _, record in good]
        records = []
        for row, raw, record in good:
            exact: dict[str, Any] = record
            if _suspects([(row, raw, record)]):
                try:
                    exact = _loads_exactly(raw)
                except ValueError as error:
                    self._refuse(row, raw, detail=str(error))
                    continue
            records.append(exact)
            self._rows.append(row)
        return records

    def _refuse(self, row: int, raw: bytes, *, detail: str) -> None:
        self.bad.append(bad_row(row, "row.malformed", raw=_text(raw), detail=detail))

    def _join(self, chunks: list[tuple[int, Values]]) -> Values:
        """Return one column over all rows: batches that lack it are null, types are brought to a common one."""
        kinds = {chunk.type for _, chunk in chunks} - {pa.null()}
        if kinds == {pa.int64(), pa.float64()} and all(_fits_double(chunk) for _, chunk in chunks):
            common: Any = pa.float64()
        else:
            common = kinds.pop() if len(kinds) == 1 else pa.string()
        parts: list[Values] = []
        at = 0
        for begin, chunk in chunks:
            if begin > at:
                parts.append(pa.nulls(begin - at, common))
            parts.append(_cast(chunk, common))
            at = begin + len(chunk)
        if at < len(self._rows):
            parts.append(pa.nulls(len(self._rows) - at, common))
        return pa.concat_arrays(parts)


def _columns(records: list[dict[str, Any]]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield each column's values over all records, in the order in which the columns first appear."""
    names: dict[str, None] = {}
    shapes = set(map(tuple, records))
    if len(shapes) == 1:  # as good as always: all records have the same keys in the same order
        yield from zip(shapes.pop(), zip(*map(dict.values, records), strict=True), strict=True)
        return
    for record in records:
        names.update(dict.fromkeys(record))
    for name in names:
        yield name, [record.get(name) for record in records]


def _suspects(good: Iterable[tuple[int, bytes, dict[str, Any]]]) -> bool:
    """Return whether some record may have lost something: a key given twice, or digits of a number.

    orjson keeps the last of two equal keys, and makes a float of an integer beyond 64 bits. Written out again, the
    records then hold fewer keys than the text did.
    """
    text = b"\n".join(raw for _, raw, _ in good)
    written = orjson.dumps([record for _, _, record in good])
    if _SPACED_KEY_END.search(text) is None:
        has_lost_key = written.count(b'":') != text.count(b'":')
    else:
        has_lost_key = len(_KEY_ENDS.findall(written)) != len(_KEY_ENDS.findall(text))
    if has_lost_key:
        return True
    if text.translate(_DIGITS).find(_LONG_NUMBER) >= 0:
        others = set(_LONG_NUMBERS.findall(text)).difference(_LONG_NUMBERS.findall(written))
        if any(map(_is_rounded, others)):
            return True
    return _TINY_NUMBERS.search(text) is not None or _ESCAPED_KEY_ENDS.search(text) is not None


def _is_rounded(number: bytes) -> bool:
    try:
        if number.lstrip(b"-").isdigit():
            return not -(2**63) <= int(number) < 2**64
        written = repr(float(number))
        return Decimal(number.decode()) != Decimal(written)
    except (ValueError, ArithmeticError):
        return False  # digits of a text, such as a telephone number


def _loads(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "infinity" not in str(error):  # what orjson says of 1e400
            raise
    return _loads_exactly(raw)


def _loads_exactly(raw: bytes) -> Any:
    """Return the value with every number that 64 bits cannot hold as the text that stood there; ValueError."""
    try:
        value = json.loads(
            raw,
            object_pairs_hook=_refuse_doubled,
            parse_float=lambda text: _exact(text, float(text)),
            parse_int=lambda text: _exact(text, int(text)),
            parse_constant=_refuse_constant,
        )
        orjson.dumps(value)  # which refuses halves of surrogate pairs
    except RecursionError as error:
        msg = f"it is nested deeper than {MAX_JSON_DEPTH} levels"
        raise ValueError(msg) from error
    except TypeError as error:
        raise ValueError(str(error)) from error
    return value


def _exact(text: str, value: float) -> Any:
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else orjson.Fragment(text)
    is_same = value not in (inf, -inf) and (repr(value) == text or Decimal(text) == Decimal(repr(value)))
    return value if is_same else orjson.Fragment(text)


def _refuse_constant(text: str) -> Any:
    msg = f"{text} is no JSON"
    raise ValueError(msg)


def _refuse_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        msg = f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object"
        raise _DoubledKeyError(msg)
    return record


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0) if isinstance(value, dict | list) else 0


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").strip("\r\n")


def _to_array(values: Sequence[Any], *, as_text: bool) -> Values:
    kinds = set(map(type, values)) - {type(None)}
    if not as_text:
        if not kinds:
            return pa.nulls(len(values))
        if kinds == {bool}:
            return pa.array(values, pa.bool_())
        if kinds == {int} and _is_int64(values):
            return pa.array(values, pa.int64())
        if kinds == {float} or (kinds == {int, float} and _ints_fit_double(values)):
            return pa.array(values, pa.float64())
    if kinds <= {str}:
        return pa.array(values, pa.string())
    return pa.array(
        [value if value is None or type(value) is str else cell_text(value) for value in values], pa.string()
    )


def cell_text(value: Any) -> str:
    """Return a JSON value that is no string as JSON text; numbers in the shortest form that reads back the same."""
    return orjson.dumps(value).decode() if type(value) is not float else repr(value)


def _is_int64(values: Sequence[Any]) -> bool:
    numbers = [value for value in values if value is not None]
    return min(numbers) in _INT64 and max(numbers) in _INT64


def _ints_fit_double(values: Sequence[Any]) -> bool:
    return all(abs(value) <= _EXACT_IN_DOUBLE for value in values if type(value) is int)


def _fits_double(chunk: Values) -> bool:
    if chunk.type != pa.int64():
        return True
    least, greatest = (pc.min_max(chunk)[end].as_py() for end in ("min", "max"))
    return least is None or (least >= -_EXACT_IN_DOUBLE and greatest <= _EXACT_IN_DOUBLE)


def _cast(chunk: Values, common: pa.DataType) -> Values:
    if chunk.type == common:
        return chunk
    if common == pa.string() and chunk.type != pa.null():
        return pa.array([None if value is None else cell_text(value) for value in chunk.to_pylist()], pa.string())
    return chunk.cast(common)
