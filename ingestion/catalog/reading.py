"""Pages of visible records, each page from one statement and so from one state of a pipeline."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.db import connection

from ingestion.catalog.batches import read_by_index
from ingestion.models import CatalogRecord, CatalogState, Pipeline
from ingestion.ports.errors import Refused

PIPELINES_PER_STATEMENT = 100
"""SQLite takes at most 500 parts of a UNION."""


def query_records(  # noqa: PLR0913 (filters of one question)
    *,
    limit: int,
    pipeline_id: int | None = None,
    source: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: str | int | None = None,
) -> list[dict[str, Any]]:
    """Return at most `limit` visible records that follow the row whose `cursor` is `after`.

    In order of id; with `since` or `until` those with an event time in [since, until), in order of event time. Each
    row has id, cursor, pipeline_id, pipeline, source (names), run_id, event_time and record (a dict). Each pipeline
    is read in one statement through an index that has the order, so a page costs the same wherever it lies, and a
    publication is seen as a whole or not at all.
    """
    pipelines = _pipelines(pipeline_id=pipeline_id, source=source)
    window = _TimeWindow(since, until, after) if since or until else _IdWindow(after)
    names = list(pipelines)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(names), PIPELINES_PER_STATEMENT):
        rows += window.read(names[start : start + PIPELINES_PER_STATEMENT], limit=limit)
    rows.sort(key=window.position)
    return [
        {
            "id": row["id"],
            "cursor": window.cursor(row),
            "pipeline_id": row["pipeline_id"],
            "pipeline": pipelines[row["pipeline_id"]][0],
            "source": pipelines[row["pipeline_id"]][1],
            "run_id": row["run_id"],
            "event_time": row["event_time"],
            "record": json.loads(row["record"]),
        }
        for row in islice(rows, limit)
    ]


def _pipelines(*, pipeline_id: int | None, source: str | None) -> dict[int, tuple[str, str]]:
    """Return name and source of the pipelines that are asked for and have published."""
    wanted = Pipeline.objects.filter(catalog_state__current__gt=0)
    if pipeline_id is not None:
        wanted = wanted.filter(pk=pipeline_id)
    if source is not None:
        wanted = wanted.filter(source__name=source)
    return {pk: (name, source_name) for pk, name, source_name in wanted.values_list("pk", "name", "source__name")}


class _Window:
    """An order of reading, and the place in it where a page begins."""

    order: str
    after_id: int
    conditions: list[str]
    values: list[Any]

    def read(self, pipeline_ids: Sequence[int], *, limit: int) -> list[dict[str, Any]]:
        """Return the first `limit` rows of the pipelines together, each pipeline's read by its index."""
        part, values = self._select()
        parts = " UNION ALL ".join([f"SELECT * FROM ({part}) p"] * len(pipeline_ids))  # noqa: S608
        query = f"SELECT * FROM ({parts}) page ORDER BY {self.order} LIMIT %s"  # noqa: S608 (no text from outside)
        bound = [value for pk in pipeline_ids for value in (pk, self.after_id, *[pk] * 4, *values, limit)]
        with read_by_index(), connection.cursor() as cursor:
            cursor.execute(query, [*bound, limit])
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        for row in rows:
            row["event_time"] = _aware(row["event_time"])
        return rows

    def position(self, row: dict[str, Any]) -> Any:
        """Return the values by which rows are ordered."""
        raise NotImplementedError

    def cursor(self, row: dict[str, Any]) -> str:
        """Return the text that names the row's place."""
        raise NotImplementedError

    def _select(self) -> tuple[str, list[Any]]:
        # The state is read by scalar subqueries: joined to it, PostgreSQL would sort the whole pipeline instead
        # of reading the first rows by index.
        state = f"(SELECT {{}} FROM {_table(CatalogState)} WHERE pipeline_id = %s)"  # noqa: S608
        # One lower bound of the id and not two, of which SQLite would search by one and filter by the other.
        larger = "GREATEST" if connection.vendor == "postgresql" else "MAX"
        visible = (
            f"id > {larger}(%s, {state.format('floor_id')})"
            f" AND publication BETWEEN {state.format('floor')} AND {state.format('current')}"
            f" AND (retired_by IS NULL OR retired_by > {state.format('current')})"
        )
        where = " AND ".join(["pipeline_id = %s", visible, *self.conditions])
        columns = "id, pipeline_id, run_id, event_time, record"
        query = f"SELECT {columns} FROM {_table(CatalogRecord)} WHERE {where} ORDER BY {self.order} LIMIT %s"  # noqa: S608
        return query, self.values


class _IdWindow(_Window):
    order = "id"

    def __init__(self, after: str | int | None) -> None:
        self.conditions, self.values = [], []
        try:
            self.after_id = int(after or 0)
        except ValueError as error:
            raise _bad_cursor(after) from error

    def position(self, row: dict[str, Any]) -> Any:
        return row["id"]

    def cursor(self, row: dict[str, Any]) -> str:
        return str(row["id"])


class _TimeWindow(_Window):
    order = "event_time, id"

    def __init__(self, since: datetime | None, until: datetime | None, after: str | int | None) -> None:
        self.after_id, self.conditions, self.values = 0, ["event_time IS NOT NULL"], []
        if since is not None:
            self._add("event_time >= %s", _bound_time(since))
        if until is not None:
            self._add("event_time < %s", _bound_time(until))
        if after is not None:
            try:
                timestamp, _, row_id = str(after).rpartition("~")
                self._add("(event_time, id) > (%s, %s)", _bound_time(datetime.fromisoformat(timestamp)), int(row_id))
            except ValueError as error:
                raise _bad_cursor(after) from error

    def _add(self, condition: str, *values: Any) -> None:
        self.conditions.append(condition)
        self.values += values

    def position(self, row: dict[str, Any]) -> Any:
        return row["event_time"], row["id"]

    def cursor(self, row: dict[str, Any]) -> str:
        return f"{row['event_time'].isoformat()}~{row['id']}"


def _table(model: type[CatalogRecord] | type[CatalogState]) -> str:
    return str(connection.ops.quote_name(model._meta.db_table))


def _bound_time(timestamp: datetime) -> Any:
    aware = timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)
    return connection.ops.adapt_datetimefield_value(aware)


def _aware(value: Any) -> datetime | None:
    timestamp = datetime.fromisoformat(value) if isinstance(value, str) else value
    return timestamp.replace(tzinfo=UTC) if timestamp is not None and timestamp.tzinfo is None else timestamp


def _bad_cursor(after: str | int | None) -> Refused:
    return Refused("request.invalid", detail=f"{after!r} is not the cursor of a record in this order")
