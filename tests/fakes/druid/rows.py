"""From records to rows: time, transforms, dimensions, and the counts of a task's report."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.fakes.druid.inputs import Reader, Record, Unreadable
from tests.fakes.druid.times import Interval, now_ms, parse_iso, parse_time
from tests.fakes.druid.values import Unconvertible, cast, column_type, convert, java_text

_JSON_CALL = re.compile(r'(try_)?parse_json\(\s*("(?:[^"\\]|\\.)*"|[A-Za-z_]\w*)\s*\)$')
_TEXT = re.compile(r"'((?:[^'\\]|\\.)*)'$")


class TaskFailedError(Exception):
    """The task ends FAILED; the message is its errorMsg's first line."""


@dataclass
class Counts:
    """The row counts of a report."""

    processed: int = 0
    processedBytes: int = 0  # noqa: N815 - the report's own name
    processedWithError: int = 0  # noqa: N815
    thrownAway: int = 0  # noqa: N815
    unparseable: int = 0

    def as_json(self) -> dict[str, int]:
        """Return them under the report's names."""
        return asdict(self)


@dataclass
class Tally:
    """Counts of both phases, and the bad rows that are kept, the newest first."""

    max_errors: int
    max_saved: int
    determine: Counts = field(default_factory=Counts)
    build: Counts = field(default_factory=Counts)
    saved: list[dict[str, Any]] = field(default_factory=list)

    def note(self, counts: Counts, kind: str, *, record: str, reasons: Sequence[str]) -> None:
        """Count a bad row; too many of them fail the task."""
        setattr(counts, kind, getattr(counts, kind) + 1)
        if counts is self.build:
            event = {
                "input": record,
                "errorType": kind,
                "details": list(reasons),
                "timeOfExceptionMillis": now_ms(),
            }
            self.saved = [event, *self.saved][: self.max_saved]
        if counts.unparseable + counts.processedWithError > self.max_errors:
            msg = f"org.apache.druid.java.util.common.RE: Max parse exceptions[{self.max_errors}] exceeded"
            raise TaskFailedError(msg)


@dataclass(frozen=True)
class Dimension:
    """One column to store."""

    name: str
    kind: str
    cast_to: str | None = None


Transform = tuple[str, Callable[[Mapping[str, Any]], Any]]


@dataclass(frozen=True)
class RowRules:
    """Rules by which records become rows."""

    time_column: str
    time_format: str
    missing_time: int | None
    transforms: Sequence[Transform]
    dimensions: Sequence[Dimension]
    discovery: str | None
    intervals: Sequence[Interval] | None

    @classmethod
    def of(cls, schema: Mapping[str, Any], *, chunks: Sequence[Interval] | None) -> "RowRules":
        """Return the rules of a dataSchema; rows outside `chunks` are thrown away."""
        time, dims = schema["timestampSpec"], schema.get("dimensionsSpec") or {}
        dimensions = [_dimension(each) for each in dims.get("dimensions") or ()]
        missing = time.get("missingValue")
        discovery = "auto" if dims.get("useSchemaDiscovery") else "string"
        transforms = (schema.get("transformSpec") or {}).get("transforms") or ()
        return cls(
            time_column=time.get("column") or "timestamp",
            time_format=time.get("format") or "auto",
            missing_time=None if missing is None else missing if isinstance(missing, int) else parse_iso(missing),
            transforms=[(each["name"], compiled(each["name"], each["expression"])) for each in transforms],
            dimensions=dimensions,
            # measured: beside listed dimensions the others are found, but only by types
            discovery=None if dimensions and discovery == "string" else discovery,
            intervals=chunks,
        )

    def timed(self, reader: Reader, tally: Tally, counts: Counts) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the records that have a time inside the intervals; count the others."""
        for number, record in enumerate(reader.records(), start=1):
            found = self.time_of(record)
            where = f" (Record: {number}, Line: {number})"
            if isinstance(found, Unreadable):
                tally.note(counts, "unparseable", record=found.text, reasons=[found.reason + where])
            elif self.intervals is not None and not any(each.holds(found) for each in self.intervals):
                counts.thrownAway += 1
            else:
                assert not isinstance(record, Unreadable)
                yield found, record

    def time_of(self, record: Record) -> int | Unreadable:
        """Return a record's time, or why it has none."""
        if isinstance(record, Unreadable):
            return record
        value = record.get(self.time_column)
        found = self.missing_time if value is None else parse_time(value, form=self.time_format)
        if found is None:
            text = printed(record)
            return Unreadable(text, f"Timestamp[{java_text(value)}] is unparseable! Event: {text}")
        return found

    def row(self, ms: int, record: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the row as it is stored, and what could not be converted."""
        source = dict(record)
        for name, compute in self.transforms:
            source[name] = compute(record)
        row: dict[str, Any] = {"__time": ms}
        problems = []
        for each in [*self.dimensions, *(self.found_in(source) if self.discovery else ())]:
            try:
                converted = convert(source.get(each.name), kind=each.kind, name=each.name)
                row[each.name] = cast(converted, each.cast_to)
            except Unconvertible as reason:
                row[each.name] = None
                problems.append(str(reason))
        return row, problems

    def found_in(self, record: Mapping[str, Any]) -> Iterator[Dimension]:
        """Yield the dimensions that discovery makes of one record."""
        for name, value in record.items():
            is_listed = self.discovery == "auto" or (value is not None and not isinstance(value, Mapping))
            is_new = name not in (self.time_column, "__time", *(each.name for each in self.dimensions))
            if is_new and is_listed:
                yield Dimension(name, self.discovery or "string")

    def all_dimensions(self, rows: Sequence[Mapping[str, Any]]) -> list[Dimension]:
        """Return the listed dimensions, or those that were discovered, in order of appearance."""
        if not self.discovery:
            return list(self.dimensions)
        known = {"__time", *(each.name for each in self.dimensions)}
        names = dict.fromkeys(name for row in rows for name in row if name not in known)
        return [*self.dimensions, *(Dimension(name, self.discovery) for name in names)]


def stored(rows: Sequence[Mapping[str, Any]], dimensions: Sequence[Dimension]) -> list[Mapping[str, Any]]:
    """Return rows in the order of a segment: by time, then by the dimensions, nothing before something."""

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        values = (row.get(each.name) for each in dimensions)
        return (row["__time"], *(_rank(value) for value in values))

    return sorted(rows, key=place)


def columns(rows: Sequence[Mapping[str, Any]], dimensions: Sequence[Dimension]) -> dict[str, str]:
    """Return a segment's columns and their SQL types."""
    return {
        each.name: _cast_type(each) or column_type((row.get(each.name) for row in rows), kind=each.kind)
        for each in dimensions
    }


def compiled(name: str, expression: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return a transform of the kinds this fake knows: a constant, a column, or JSON text into a value."""
    text = expression.strip()
    if found := _JSON_CALL.match(text):
        column, is_lenient = _unquoted(found[2]), bool(found[1])
        return lambda record: _parsed(record.get(column), name=name, is_lenient=is_lenient)
    if found := _TEXT.match(text):
        constant = re.sub(r"\\(.)", r"\1", found[1])
        return lambda record: constant
    if text == "null":
        return lambda record: None
    if re.fullmatch(r"-?\d+", text):
        return lambda record: int(text)
    if re.fullmatch(r"-?\d*\.\d+(?:[eE][+-]?\d+)?", text):
        return lambda record: float(text)
    if re.fullmatch(r'"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*', text):
        return lambda record: record.get(_unquoted(text))
    msg = f"org.apache.druid.java.util.common.RE: Failed to parse expression: {expression}"
    raise TaskFailedError(msg)


def printed(record: Mapping[str, Any]) -> str:
    """Return a record as messages show it: objects inside are left out."""
    return java_text({name: value for name, value in record.items() if not isinstance(value, Mapping)})


def _dimension(spec: Any) -> Dimension:
    if isinstance(spec, str):
        return Dimension(spec, "string")
    kind = spec.get("type", "string")
    known = ("string", "long", "double", "float", "json", "auto")
    return Dimension(spec["name"], kind if kind in known else "string", spec.get("castToType"))


def _cast_type(dimension: Dimension) -> str | None:
    if dimension.cast_to is None:
        return None
    return {"LONG": "BIGINT", "DOUBLE": "DOUBLE", "STRING": "VARCHAR"}.get(dimension.cast_to, "ARRAY")


def _unquoted(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name[1:-1]) if name.startswith('"') else name


def _parsed(value: Any, *, name: str, is_lenient: bool) -> Any:
    if value is None:
        return None
    try:
        return json.loads(value)
    except (ValueError, TypeError) as error:
        if is_lenient:
            return None
        msg = (
            f"org.apache.druid.java.util.common.ISE: Could not transform value for {name}"
            f" reason: Function[parse_json] bad string input [{java_text(value)}]"
        )
        raise TaskFailedError(msg) from error


def _rank(value: Any) -> tuple[int, Any]:
    if value is None:
        return 0, 0
    if isinstance(value, (bool, int, float)):
        return 1, value
    if isinstance(value, str):
        return 2, value
    return 3, json.dumps(value, sort_keys=True, default=str)
