"""A history of twelve runs after each of which every destination and every reader shows the same rows, cell by cell.

What they should show is computed here, by plain Python over what each run was told, and knows nothing of parts or hashes.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion import registry
from ingestion.catalog import query_records
from ingestion.models import OPEN_DELIVERY_STATES, Delivery, Destination, Pipeline, Run, RunState
from ingestion.ports.batch import Cursor, Page, PartitionSpec, Query, Records
from ingestion.ports.connector import Stream
from ingestion.ports.context import Context
from ingestion.runs.deliver import loading
from ingestion.runs.operate import retry
from ingestion.runs.read.exports import page, rows_of_pipeline
from ingestion.runs.read.queries import query_published
from ingestion.runs.start import contracts
from ingestion.runs.start.creation import create_run
from tests.fakes.druid import FakeDruid
from tests.fakes.plugins import PagesConnector
from tests.runs.driver import Driver

pytestmark = pytest.mark.slow

Row = dict[str, Any]
COLUMNS = ("id", "kind", "name", "qty", "at")
DAYS = [f"2026-{month:02d}-01" for month in range(1, 13)]


class ToldConnector(PagesConnector):
    """Serves the records that a test tells it, in two partitions."""

    kind: ClassVar[str] = "told"
    records: ClassVar[list[Row]] = []

    def plan(self, query: Query, since: Cursor | None, ctx: Context) -> Iterator[PartitionSpec]:
        """Yield two lanes."""
        yield from (PartitionSpec(lane, {"lane": lane}) for lane in (0, 1))

    def fetch(self, spec: PartitionSpec, cursor: Cursor | None, ctx: Context) -> Iterator[Page]:
        """Yield every second record."""
        found = self.records[spec.lane :: 2]
        yield Page(json.dumps(found).encode(), None, url="told://", record_count=len(found))

    def standardize(self, records: Records, stream: Stream) -> pa.Table:
        """Return the records as columns of text, which the contract casts."""
        rows = [record for told in records.pages for record in json.loads(told.read())]
        columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in COLUMNS}
        numbers = {"_row": pa.array(range(len(rows)), pa.int64()), "_page": pa.array([0] * len(rows), pa.int32())}
        return pa.table(columns | numbers)


@dataclass
class History:
    """A pipeline, what its runs were told, and what plain Python makes of that."""

    pipeline: Pipeline
    driver: Driver
    druid: FakeDruid
    types: dict[str, str] = field(default_factory=lambda: {"id": "integer", "qty": "integer"})
    key: tuple[str, ...] = ("id",)
    states: dict[int, dict[Any, Row]] = field(default_factory=dict)
    refreshed: Any = None
    state: dict[Any, Row] = field(default_factory=dict)

    def change(self, *, key: Sequence[str] = (), **types: str) -> None:
        """Write the next version of the contract."""
        self.key = tuple(key) or self.key
        self.types |= types
        columns = [
            {"name": name, "type": self.types.get(name, "datetime" if name == "at" else "string")} for name in COLUMNS
        ]
        contract = contracts.save_contract({"name": "told", "key": list(self.key), "columns": columns, "time": "at"})
        self.pipeline.contract = contract
        self.pipeline.save(update_fields=["contract"])

    def run(self, *rows: Row) -> Run:
        """Return the run that was told these rows, after its end."""
        ToldConnector.records = [{"at": f"{DAYS[len(self.states)]}T00:00:00Z", **row} for row in rows]
        run, _ = create_run(self.pipeline, trigger=Run.Trigger.API)
        self.end(run)
        keyed = (self.key, tuple(self.types.get(name, "string") for name in self.key))
        if self.refreshed != keyed:
            self.refreshed, self.state = keyed, {}
        told = {tuple(cell(self.cast(name, row)) for name in self.key): row for row in ToldConnector.records}
        self.state = self.state | {key: {name: self.cast(name, row) for name in COLUMNS} for key, row in told.items()}
        self.states[run.pk] = dict(self.state)
        return run

    def roll_back(self, run: Run) -> None:
        """Publish a full refresh again."""
        again = self.end(retry.roll_back(run.pk))
        self.state = self.states[again.pk] = dict(self.states[run.pk])

    def cast(self, name: str, row: Row) -> Any:
        """Return a value as the contract has it."""
        value, kind = row.get(name), self.types.get(name)
        if value is None or kind in (None, "string"):
            return value
        return {"integer": int, "number": float, "date": date.fromisoformat}[kind](value)

    def end(self, run: Run) -> Run:
        """Carry everything out, with the time of every next look come."""
        for _ in range(400):
            run.refresh_from_db()
            if run.is_terminal:
                break
            if self.driver.waiting:
                self.driver.step()
                continue
            for delivery in Delivery.objects.filter(run=run, state__in=OPEN_DELIVERY_STATES):
                task = str(delivery.refs.get("task") or "")
                if task and self.druid.can_end(task):
                    self.druid.await_task(task)
                self.driver.publish(loading.load_message(delivery.pk))
            Delivery.objects.filter(run=run).update(not_before=None)
        assert run.state == RunState.SUCCEEDED, (run.state, run.message)
        return run


@pytest.fixture
def history(settings: Any, driver: Driver, make_pipeline: Callable[..., Pipeline], tmp_path: Path) -> Iterator[History]:
    settings.HEADGATE_CONNECTORS = {**settings.HEADGATE_CONNECTORS, "told": "tests.runs.test_same_rows:ToldConnector"}
    settings.HEADGATE_EGRESS_ALLOW = ["127.0.0.0/8"]
    settings.HEADGATE_EGRESS_PORTS = list(range(1, 65536))
    registry._table.cache_clear()
    with FakeDruid() as druid:
        pipeline = make_pipeline("told", mode=Pipeline.Mode.INCREMENTAL)
        pipeline.source.kind = "told"
        pipeline.source.save()
        config = {"objects": {"url": str(tmp_path / "published")}, "sqlite": {"path": str(tmp_path / "rows.sqlite3")}}
        kinds = {**config, "catalog": {}, "druid": {"url": druid.url}}
        pipeline.destinations.set(
            [
                Destination.objects.create(name=f"told-{kind}", kind=kind, config=config)
                for kind, config in kinds.items()
            ]
        )
        yield History(pipeline, driver, druid)


def test_every_destination_and_every_reader_shows_the_same_rows(history: History, tmp_path: Path) -> None:
    def check() -> None:
        expected = told(history.state.values())
        for name, rows in shown(history, tmp_path):
            assert told(rows) == expected, name

    def row(number: Any, name: str, qty: Any = None, **values: Any) -> Row:
        return {"id": str(number), "kind": "a", "name": name, "qty": None if qty is None else str(qty), **values}

    history.change()
    history.run(*(row(number, "first", number) for number in range(1, 7)))
    check()
    history.run(row(2, "second", 20), row(7, "second"), row(3, "second", None))
    check()
    history.run(row(2, "second", 20), row(8, "third", 8))
    check()
    history.change(id="number")
    history.run(row(1, "fourth", 1), row(2.5, "fourth", 2), row(8, "fourth"))
    check()
    history.run(row(2.5, "fifth", 5), row(1, "fourth", 1))
    check()
    history.change(id="string")
    sixth = history.run(row("1", "sixth", 1), row("01", "sixth", 1), row("x", "sixth"))
    check()
    history.run(row("01", "seventh", 7), row("y", "seventh", 7))
    check()
    history.roll_back(sixth)
    check()
    history.change(key=("id", "kind"), qty="number")
    ninth = history.run(row("1", "ninth", 0.5), row("1", "ninth", 1, kind="b"), row("a", "ninth"))
    check()
    history.run(row("1", "tenth", 2, kind="b"), row("1", "tenth", kind="c"))
    check()
    history.change(key=("id",), id="date")
    history.run(row("2026-01-02", "eleventh", 1), row("2026-01-03", "eleventh"))
    check()
    history.run(row("2026-01-03", "twelfth", 3), row("2026-01-04", "twelfth"))
    check()
    history.roll_back(ninth)
    history.key, history.types["id"] = ("id", "kind"), "string"
    check()


def shown(history: History, folder: Path) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Yield what each reader and each destination shows."""
    pipeline = history.pipeline
    yield "export", page(rows_of_pipeline(pipeline), after=0, limit=1000)
    answer = query_published(pipeline, "SELECT * FROM rows")
    yield "query", [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
    yield "catalog", [row["record"] for row in query_records(pipeline_id=pipeline.pk, limit=1000)]
    yield "objects", pointed(folder / "published", history.key)
    with closing(sqlite3.connect(folder / "rows.sqlite3")) as table:
        table.row_factory = sqlite3.Row
        yield "sqlite", [dict(row) for row in table.execute("SELECT * FROM told")]
    yield "druid", history.druid.rows("told")


def pointed(folder: Path, key: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the rows as a reader of the folder finds them: of each key the last in the order of the manifests."""
    rows: dict[Any, Row] = {}
    for manifest in json.loads((folder / "told/latest.json").read_text())["manifests"]:
        for part in json.loads((folder / manifest).read_text())["parts"]:
            for row in pq.read_table(folder / part["path"]).to_pylist():
                rows[tuple(row[name] for name in key)] = row
    return list(rows.values())


def told(rows: Any) -> list[tuple[str, ...]]:
    """Return the cells of the rows in one form, sorted."""
    return sorted(tuple(repr(cell(row.get(name))) for name in COLUMNS) for row in rows)


def cell(value: Any) -> Any:
    """Return a value without what differs between destinations: how they write moments, and whole numbers."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and value > 10**11:
        return datetime.fromtimestamp(value / 1000, UTC)
    if isinstance(value, str) and value.startswith("2026-"):
        return cell(datetime.fromisoformat(value.replace(" UTC", "+00:00")))
    return value
