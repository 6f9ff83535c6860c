"""Loading by SQL: INSERT and REPLACE that read files through EXTERN.

By the documents and the sources of 33 to 37, not measured: the engine could not be had where the rest was recorded.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.druid import functions
from tests.fakes.druid.broker import fill
from tests.fakes.druid.inputs import Reader, Unreadable
from tests.fakes.druid.native import Interference
from tests.fakes.druid.rows import Tally, TaskFailedError
from tests.fakes.druid.segments import NoAllocationError, Row, Segment, SegmentStore
from tests.fakes.druid.sql import Query, SqlError, Token, decoded, tokens_of
from tests.fakes.druid.times import ETERNITY, GRANULARITIES, Interval, chunk_of, chunks, iso, now_ms, parse_iso
from tests.fakes.druid.values import Unconvertible, column_type, convert, json_text

_KINDS = {"VARCHAR": "string", "BIGINT": "long", "DOUBLE": "double", "FLOAT": "float"}
_NATIVE_TYPES = {"string": "VARCHAR", "long": "BIGINT", "double": "DOUBLE", "float": "FLOAT"}
_EXTERN = "\0extern"


@dataclass(frozen=True)
class Statement:
    """A loading statement, taken apart. `intervals` are what is overwritten, None for INSERT."""

    datasource: str
    intervals: Sequence[Interval] | None
    granularity: str
    select: Sequence[Token]
    source: Mapping[str, Any] | None
    form: Mapping[str, Any]
    columns: Mapping[str, str]


def statement_of(text: str) -> Statement:
    """Return a loading statement's parts; raises SqlError for what is none."""
    tokens = tokens_of(text)
    words = [each.upper for each in tokens]
    if not words or words[0] not in ("INSERT", "REPLACE") or words[1] != "INTO":
        raise SqlError("SELECT statements are not supported by this fake's SQL task resource")
    if "PARTITIONED" not in words:
        raise SqlError(
            f"Operation [{words[0]}] requires a PARTITIONED BY to be explicitly defined, but none was found."
        )
    begin = next(n for n, word in enumerate(words) if word in ("SELECT", "WITH"))
    end = len(words) - 1 - words[::-1].index("PARTITIONED")
    granularity = _granularity(tokens[end + 2 :])
    intervals = _overwritten(tokens[3:begin], granularity) if words[0] == "REPLACE" else None
    select, source, form, columns = _without_extern(tokens[begin:end])
    return Statement(tokens[2].value, intervals, granularity, select, source, form, columns)


def _granularity(tokens: Sequence[Token]) -> str:
    if tokens[0].kind == "text":  # PARTITIONED BY 'P1D'
        return next(name for name, period in GRANULARITIES.items() if period == tokens[0].value)
    return tokens[0].upper


def _overwritten(tokens: Sequence[Token], granularity: str) -> list[Interval]:
    words = [each.upper for each in tokens]
    if "ALL" in words:
        return [ETERNITY]
    times = [parse_iso(each.value.strip().replace(" ", "T")) for each in tokens if each.kind == "text"]
    # The ranges stand one after the other, joined by OR.
    return [_aligned(Interval(*sorted(times[n : n + 2])), granularity) for n in range(0, len(times), 2)]


def _aligned(interval: Interval, granularity: str) -> Interval:
    aligned = chunks([interval], granularity)
    if granularity == "ALL" or aligned[0].start != interval.start or aligned[-1].end != interval.end:
        raise SqlError(
            f"OVERWRITE WHERE clause identified interval [{interval}] which is not aligned with PARTITIONED BY"
            f" granularity [{granularity}]"
        )
    return interval


def _without_extern(
    tokens: Sequence[Token],
) -> tuple[list[Token], Mapping[str, Any] | None, Mapping[str, Any], dict[str, str]]:
    words = [each.upper for each in tokens]
    if "EXTERN" not in words:
        return list(tokens), None, {}, {}
    place = words.index("EXTERN")
    begin = place - 2  # TABLE ( EXTERN
    end = _closing(tokens, begin + 1)
    texts = [each.value for each in tokens[place:end] if each.kind == "text"]
    columns: dict[str, str] = {}
    if len(texts) > 2:
        for each in json.loads(texts[2]):
            columns[each["name"]] = _NATIVE_TYPES.get(each["type"].lower(), _other_type(each["type"]))
    if words[end + 1 : end + 2] == ["EXTEND"]:
        closing = _closing(tokens, end + 2)
        columns |= _extended(tokens[end + 3 : closing])
        end = closing
    name = Token("name", f'"{_EXTERN}"', tokens[place].line, tokens[place].column)
    return [*tokens[:begin], name, *tokens[end + 1 :]], json.loads(texts[0]), json.loads(texts[1]), columns


def _extended(tokens: Sequence[Token]) -> dict[str, str]:
    found: dict[str, str] = {}
    words = list(tokens)
    while words:
        name = words.pop(0).value
        kind: list[Token] = []
        depth = 0
        while words and (depth or words[0].text != ","):
            depth += {"(": 1, ")": -1}.get(words[0].text, 0)
            kind.append(words.pop(0))
        found[name] = _other_type(" ".join(each.value for each in kind))
        words[:1] = []
    return found


def _other_type(text: str) -> str:
    upper = text.upper()
    if "ARRAY" in upper:
        return "ARRAY"
    return "COMPLEX<json>" if "JSON" in upper else upper.partition("(")[0].strip()


def _closing(tokens: Sequence[Token], place: int) -> int:
    depth = 0
    for n in range(place, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[n].text, 0) if tokens[n].kind == "mark" else 0
        if depth == 0:
            return n
    raise SqlError('Received an unexpected token [<EOF>], acceptable options: [")"]')


@dataclass
class MsqWork:
    """One run of a loading statement."""

    statement: Statement
    store: SegmentStore
    s3: Any = None
    context: Mapping[str, Any] = field(default_factory=dict)
    interference: Interference = field(default_factory=Interference)
    check_running: Callable[[], None] = lambda: None
    lock: Callable[[Sequence[Interval]], None] = lambda intervals: None

    def __post_init__(self) -> None:
        allowed = self.context.get("maxParseExceptions", 0)
        self.tally = Tally(max_errors=2**31 - 1 if allowed == -1 else allowed, max_saved=0)
        self.started = now_ms()
        self.pushed = 0
        self.published_count = 0
        self.error_code: str | None = None

    def intervals(self) -> list[Interval] | None:
        """Return what is locked beforehand."""
        return None if self.statement.intervals is None else list(self.statement.intervals)

    def run(self) -> None:
        """Read, compute and publish."""
        if self.interference.error is not None and not self.interference.is_after_publishing:
            raise self._failure("UnknownError", self.interference.error)
        rows, kinds = self._selected()
        if self.interference.reads_nothing:
            rows = []
        elif self.interference.dropped_rows:
            rows = rows[: -self.interference.dropped_rows]
        if not rows and self.context.get("failOnEmptyInsert"):
            raise self._failure(
                "InsertCannotBeEmpty", f"No rows to insert for dataSource [{self.statement.datasource}]."
            )
        segments = self._segments(rows, kinds)
        self.check_running()
        self.pushed, self.published_count = len(rows), len(segments)
        if segments:
            self.store.publish(self.statement.datasource, segments)
        if self.interference.error is not None:
            raise self._failure("UnknownError", self.interference.error)

    def _failure(self, code: str, message: str) -> TaskFailedError:
        self.error_code = code
        return TaskFailedError(f"{code}: {message}")

    def _selected(self) -> tuple[list[dict[str, Any]], dict[str, str]]:
        connection = sqlite3.connect(":memory:")
        try:
            functions.register(connection)
            fill(connection, _EXTERN, list(self.statement.columns), self._external())
            cursor = connection.execute(Query(list(self.statement.select)).translated())
            names = [decoded(each[0]) or "" for each in cursor.description]
            found = [dict(zip(names, row, strict=True)) for row in cursor]
        except sqlite3.Error as error:
            raise self._failure("UnknownError", str(error)) from error
        finally:
            connection.close()
        return [self._timed(row) for row in found], self._types(names, found)

    def _external(self) -> list[tuple[Any, ...]]:
        reader = Reader(self.statement.source or {}, self.statement.form, s3=self.s3)
        counts, rows = self.tally.build, []
        for record in reader.records() if self.statement.source else ():
            if isinstance(record, Unreadable):
                try:
                    self.tally.note(counts, "unparseable", record=record.text, reasons=[record.reason])
                except TaskFailedError as error:
                    raise self._failure("CannotParseExternalData", record.reason) from error
                continue
            counts.processed += 1
            rows.append(tuple(self._cell(record.get(name), kind) for name, kind in self.statement.columns.items()))
        return rows

    def _cell(self, value: Any, kind: str) -> Any:
        if value is None:
            return None
        if kind in ("ARRAY", "COMPLEX<json>"):
            return json_text(value)
        try:
            found = convert(value, kind=_KINDS.get(kind, "string"), name="")
        except Unconvertible:
            return None
        return json_text(found) if isinstance(found, list) else found

    def _timed(self, row: dict[str, Any]) -> dict[str, Any]:
        if "__time" not in row:
            return {"__time": 0, **row}
        if row["__time"] is None:
            raise self._failure(
                "InsertTimeNull", "Encountered a null timestamp in the __time field during INSERT or REPLACE."
            )
        ms = row["__time"] if isinstance(row["__time"], int) else parse_iso(row["__time"])
        intervals = self.statement.intervals
        if intervals is not None and not any(interval.holds(ms) for interval in intervals):
            raise self._failure(
                "InsertTimeOutOfBounds", f"Inserted data contains time chunks outside of target time range. [{iso(ms)}]"
            )
        return {**row, "__time": ms}

    def _types(self, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        text = " ".join(each.text for each in self.statement.select)
        parsed = set(re.findall(r'PARSE_JSON \( [^)]* \) AS "?(\w+)"?', text, re.IGNORECASE))
        found = {}
        for name in names:
            if name == "__time":
                continue
            kind = "COMPLEX<json>" if name in parsed else self.statement.columns.get(name)
            found[name] = kind or column_type([row[name] for row in rows], kind="auto")
        return found

    def _segments(self, rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> list[Segment]:
        statement = self.statement
        places: dict[Interval, tuple[str | None, int]] = {}
        grouped: dict[Interval, list[Row]] = {}
        for row in rows:
            interval = next((each for each in places if each.holds(row["__time"])), None)
            if interval is None and statement.intervals is not None:
                interval = chunk_of(row["__time"], statement.granularity)
                places[interval] = None, 0
            elif interval is None:
                try:
                    interval, version, number = self.store.allocate(
                        statement.datasource, row["__time"], statement.granularity
                    )
                except NoAllocationError as error:
                    raise self._failure(
                        "InsertCannotAllocateSegment",
                        f"Cannot allocate segment for dataSource [{statement.datasource}]",
                    ) from error
                places[interval] = version, number
            decoded_row = {name: _opened(row[name], kinds[name]) for name in kinds}
            grouped.setdefault(interval, []).append({"__time": row["__time"], **decoded_row})
        fresh = self.store.next_version()
        segments = [
            Segment(
                statement.datasource,
                interval,
                version or fresh,
                number,
                kinds,
                tuple(sorted(grouped[interval], key=lambda row: row["__time"])),
            )
            for interval, (version, number) in places.items()
        ]
        for whole in statement.intervals or ():
            segments += self._tombstones(fresh, whole, [each.interval for each in segments])
        return segments

    def _tombstones(self, version: str, whole: Interval, written: Sequence[Interval]) -> list[Segment]:
        found: dict[Interval, Segment] = {}
        for used in self.store.used(self.statement.datasource):
            if not used.interval.overlaps(whole) or any(each.contains(used.interval) for each in written):
                continue
            cut = Interval(max(used.interval.start, whole.start), min(used.interval.end, whole.end))
            found[cut] = Segment(self.statement.datasource, cut, version, 0, {}, ())
        return list(found.values())

    def live_report(self, task_id: str) -> dict[str, Any]:
        """Return the report of the statement at work."""
        return self._report(task_id, state="RUNNING", error=None)

    def final_report(self, task_id: str, *, state: str, error: str | None) -> dict[str, Any]:
        """Return the report at the end."""
        return self._report(task_id, state=state, error=error)

    def _report(self, task_id: str, *, state: str, error: str | None) -> dict[str, Any]:
        return _msq_report(self, task_id, state=state, error=error)


def _opened(value: Any, kind: str) -> Any:
    return json.loads(value) if value is not None and kind in ("ARRAY", "COMPLEX<json>") else value


def _msq_report(work: MsqWork, task_id: str, *, state: str, error: str | None) -> dict[str, Any]:
    rows, started = work.pushed, iso(work.started)
    count = work.published_count
    waiter = {
        **{"state": "SUCCESS", "dataSource": work.statement.datasource, "startTime": started, "duration": 1},
        **{"totalSegments": count, "usedSegments": count, "precachedSegments": 0, "onDemandSegments": 0},
        **{"pendingSegments": 0, "unknownSegments": 0},
    }
    status: dict[str, Any] = {
        **{"status": state, "startTime": started, "durationMs": now_ms() - work.started, "workers": {}},
        **{"pendingTasks": 0, "runningTasks": 2, "segmentLoadWaiterStatus": waiter if state == "SUCCESS" else None},
        "segmentReport": {"shardSpec": "NumberedShardSpec", "details": ""} if state == "SUCCESS" else None,
    }
    if error is not None:
        fault = {"errorCode": work.error_code or "UnknownError", "errorMessage": error.partition(": ")[2] or error}
        status["errorReport"] = {"taskId": task_id, "host": "127.0.0.1:8091", "stageNumber": 0, "error": fault}
    channel = {"type": "channel", "rows": [work.tally.build.processed], "totalFiles": [1]}
    progress = dict.fromkeys(("rowsProcessed", "rowsPersisted", "rowsMerged", "rowsPushed"), rows)
    payload = {
        "status": status,
        "stages": [{"stageNumber": n, "phase": "FINISHED", "workerCount": 1, "partitionCount": 1} for n in (0, 1)],
        "counters": {
            "0": {"0": {"input0": channel, "output": {"type": "channel", "rows": [rows]}}},
            "1": {"0": {"segmentGenerationProgress": {"type": "segmentGenerationProgress", **progress}}},
        },
    }
    return {"multiStageQuery": {"type": "multiStageQuery", "taskId": task_id, "payload": payload}}
