"""The Broker: queries over what has been published, in SQLite, and over the system tables."""

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes.druid import functions
from tests.fakes.druid.segments import Segment, SegmentStore, schema, visible_rows
from tests.fakes.druid.sql import Query, SqlError, bound, decoded, encoded, tokens_of
from tests.fakes.druid.times import iso
from tests.fakes.druid.values import compact, presented

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]
_TYPES = {int: ("LONG", "BIGINT"), float: ("DOUBLE", "DOUBLE"), str: ("STRING", "VARCHAR")}
_NATIVE = {"BIGINT": "LONG", "TIMESTAMP": "LONG", "VARCHAR": "STRING", "ARRAY": "ARRAY<STRING>"}


@dataclass
class Result:
    """The rows of a query, with their names and SQL types."""

    names: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]


class Broker:
    """Answers queries. `system` gives the system tables by their full names."""

    def __init__(self, store: SegmentStore, system: Mapping[str, Callable[[], Table]]) -> None:
        self._store = store
        self._system = system
        self._presented: dict[str, tuple[tuple[Segment, ...], dict[str, str], list[tuple[Any, ...]]]] = {}
        self._lock = threading.Lock()

    def query(self, body: Mapping[str, Any]) -> Result:
        """Return a query's result; raises SqlError."""
        query = Query(tokens_of(body["query"]))
        parameters = [bound(each) for each in body.get("parameters") or ()]
        connection = sqlite3.connect(":memory:")
        try:
            functions.register(connection)
            types = self._load(connection, query)
            query.check_aggregates(types)
            query.check_order()
            if query.parameter_count() > len(parameters):
                raise SqlError(f"No value bound for parameter (position [{len(parameters) + 1}])")
            result = _run(connection, query, parameters[: query.parameter_count()], types)
            if set(query.tables) <= set(self._system) and query.is_of_nothing(result.rows):
                # measured: to count the nothing of a system table gives no row at all
                result.rows.clear()
            return result
        finally:
            connection.close()

    def _load(self, connection: sqlite3.Connection, query: Query) -> dict[str, str]:
        types: dict[str, str] = {}
        for name, token in query.tables.items():
            if name in self._system:
                columns, rows = self._system[name]()
            else:
                segments = self._store.seen(name)
                if not segments:
                    raise SqlError(f"Object '{name}' not found", at=token)
                found, rows = self._rows(name, segments)
                types |= found
                columns = list(found)
            fill(connection, name, columns, rows)
        return types

    def _rows(self, name: str, segments: list[Segment]) -> tuple[dict[str, str], Sequence[Sequence[Any]]]:
        key = tuple(segments)
        with self._lock:
            if name not in self._presented or self._presented[name][0] != key:
                types = schema(segments)
                rows = [
                    (
                        iso(row["__time"]),
                        *(presented(row.get(each), sql_type=types[each]) for each in types if each != "__time"),
                    )
                    for _, inside in visible_rows(segments)
                    for row in inside
                ]
                self._presented[name] = key, types, rows
            return self._presented[name][1:]


def fill(connection: sqlite3.Connection, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Create a table of these rows."""
    named = ", ".join(map(encoded, columns))
    connection.execute(f"CREATE TABLE {encoded(name)} ({named})")
    if rows:
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO {encoded(name)} VALUES ({marks})", rows)  # noqa: S608 - names are hex


def _run(connection: sqlite3.Connection, query: Query, parameters: Sequence[Any], types: Mapping[str, str]) -> Result:
    try:
        cursor = connection.execute(query.translated(), parameters)
        rows = cursor.fetchall()
    except sqlite3.Error as error:
        raise _explained(error, query) from error
    names = [decoded(each[0]) for each in cursor.description]
    return Result(
        names=[f"EXPR${n}" if name is None else name for n, name in enumerate(names)],
        types=[_type(name, [row[n] for row in rows], types) for n, name in enumerate(names)],
        rows=rows,
    )


def _type(name: str | None, values: Sequence[Any], types: Mapping[str, str]) -> str:
    if name is not None and name in types:
        return types[name]
    first = next((value for value in values if value is not None), "")
    return _TYPES[type(first)][1]


def _explained(error: sqlite3.Error, query: Query) -> SqlError:
    text = str(error)
    if text.startswith("no such column: "):
        name = decoded(text.removeprefix("no such column: ").rpartition(".")[2]) or text
        return SqlError(f"Column '{name}' not found in any table", at=query.name_token(name))
    if text.startswith("no such function: "):
        name = text.removeprefix("no such function: ")
        return SqlError(f"No match found for function signature {name}(<NUMERIC>)", at=query.call_token(name))
    if text == "user-defined function raised exception":
        # measured: a time after the year 9999
        return SqlError("10000-01-01 00:00:00", code="general", status=500)
    return SqlError(f"Received an unexpected token: {text}")


def rendered(result: Result, body: Mapping[str, Any]) -> str:
    """Return a result in the format that was asked for."""
    form = body.get("resultFormat", "object")
    lists: list[Any] = [list(row) for row in result.rows]
    if form in ("object", "objectLines"):
        lists = [dict(zip(result.names, row, strict=True)) for row in result.rows]
    elif body.get("header"):
        head: list[list[str]] = [result.names]
        if body.get("typesHeader"):
            head.append([_NATIVE.get(each, each) for each in result.types])
        if body.get("sqlTypesHeader"):
            head.append(result.types)
        lists = [*head, *lists]
    if form in ("object", "array"):
        return compact(lists) + "\n"
    if form == "csv":
        return "".join(",".join(map(_cell, row)) + "\n" for row in lists) + "\n"
    return "".join(compact(row) + "\n" for row in lists) + "\n"


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if any(each in text for each in ',"\n') else text
