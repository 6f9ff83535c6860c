"""Histories of a pipeline whose contract changes, beside the rows that readers should see after each step.

What is expected is computed from the rows that each run was given, by a few lines that share nothing with the product.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ingestion.models import Delivery, Destination, Pipeline, Run
from ingestion.ports.batch import Cursor, Page, PartitionSpec, Query, Records
from ingestion.ports.connector import Stream
from ingestion.ports.context import Context
from ingestion.runs.deliver.redelivery import redeliver, redeliver_everything
from ingestion.runs.operate.retry import roll_back
from ingestion.runs.start import contracts
from ingestion.runs.start.creation import create_run
from tests.fakes.plugins import PagesConnector
from tests.runs.driver import Driver

Row = Mapping[str, Any]


class RowsConnector(PagesConnector):
    """Serves the rows that a test has put into `given`, values of any type as text."""

    kind: ClassVar[str] = "rows"
    given: ClassVar[list[Row]] = []

    def streams(self) -> Sequence[Stream]:
        return (Stream("items", key=("id",)),)

    def plan(self, query: Query, since: Cursor | None, ctx: Context) -> Iterable[PartitionSpec]:
        yield PartitionSpec(0)

    def fetch(self, spec: PartitionSpec, cursor: Cursor | None, ctx: Context) -> Iterator[Page]:
        yield Page(json.dumps(list(self.given)).encode(), None, url="rows://", record_count=len(self.given))

    def standardize(self, records: Records, stream: Stream) -> pa.Table:
        rows = [record for page in records.pages for record in json.loads(page.read())]
        names = dict.fromkeys(["id", *(name for row in rows for name in row)])
        columns = {
            name: pa.array([None if row.get(name) is None else str(row[name]) for row in rows], pa.string())
            for name in names
        }
        return pa.table({**columns, "_row": pa.array(range(len(rows)), pa.int64())})

    def checkpoint(self, spec: PartitionSpec, since: Cursor | None, high_water: str | None) -> Cursor | None:
        return None


_CASTS: dict[str, Callable[[str], Any]] = {"integer": int, "number": float, "string": str}


@dataclass
class Told:
    """A run as the test gave it."""

    types: Mapping[str, str]
    rows: Sequence[Row]
    replaces: bool


@dataclass
class History:
    """One pipeline into relational tables, step by step."""

    driver: Driver
    pipeline: Pipeline
    readers: dict[str, Callable[[str], list[tuple[Any, ...]]]] = field(default_factory=dict)
    told: dict[int, Told] = field(default_factory=dict)

    def add_sqlite(self, path: Path, *, name: str = "file") -> Destination:
        """Add a file as a destination."""

        def read(query: str) -> list[tuple[Any, ...]]:
            with closing(sqlite3.connect(path)) as opened:
                return opened.execute(query).fetchall()

        self.readers[name] = read
        return self.add(name, kind="sqlite", config={"path": str(path)})

    def add(self, name: str, *, kind: str, config: dict[str, Any]) -> Destination:
        """Add a destination."""
        made = Destination.objects.create(name=name, kind=kind, config=config)
        self.pipeline.destinations.add(made)
        return made

    def agree(self, *, key: Sequence[str] = ("id",), extra_columns: str = "discard", **types: str) -> None:
        """Let the next runs be checked against a contract with these columns beside the id."""
        columns = [{"name": "id", "type": "integer", "nullable": False}]
        columns += [{"name": name, "type": kind} for name, kind in types.items()]
        body = {"name": "items", "key": list(key), "columns": columns, "extra_columns": extra_columns}
        self.pipeline.contract = contracts.save_contract(body)
        self.pipeline.save(update_fields=["contract"])
        self.types = {"id": "integer", **types}

    def run(self, *rows: Row, replaces: bool = False) -> Run:
        """Return an ended run of these rows."""
        mode = Pipeline.Mode.FULL_REFRESH if replaces else Pipeline.Mode.INCREMENTAL
        Pipeline.objects.filter(pk=self.pipeline.pk).update(mode=mode)
        RowsConnector.given[:] = rows
        run, _ = create_run(Pipeline.objects.get(pk=self.pipeline.pk), trigger=Run.Trigger.API)
        self.told[run.pk] = Told(dict(self.types), rows, replaces=run.mode == Pipeline.Mode.FULL_REFRESH)
        return self.ended(run)

    def roll_back(self, run: Run) -> Run:
        """Return the ended run that publishes an earlier one again."""
        again = roll_back(run.pk)
        self.told[again.pk] = self.told[run.pk]
        return self.ended(again)

    def redeliver(self, run: Run, name: str = "file") -> Delivery:
        """Return the ended delivery of a run that is delivered again."""
        delivery = redeliver(run.pk, Destination.objects.get(name=name))
        self.driver.drain()
        delivery.refresh_from_db()
        return delivery

    def fill(self, name: str = "file") -> None:
        """Deliver all that a destination lacks."""
        redeliver_everything(self.pipeline, Destination.objects.get(name=name))
        self.driver.drain()

    def ended(self, run: Run) -> Run:
        """Return the run once all is carried out."""
        self.driver.drain()
        run.refresh_from_db()
        return run

    @contextmanager
    def broken(self, name: str = "file") -> Iterator[None]:
        """Have every delivery into a destination fail for good."""
        found = Destination.objects.filter(name=name)
        kept = found.get().config
        found.update(config={**kept, **({"path": "/nowhere/x.sqlite3"} if "path" in kept else {"database": "nowhere"})})
        yield
        found.update(config=kept)

    def expected(self) -> list[tuple[Any, ...]]:
        """Return what readers should see: of each id the newest row, through the newest contract."""
        current: dict[int, Row] = {}
        newest = self.told[max(self.told)]
        for run_id in sorted(self.told):
            told = self.told[run_id]
            current = {} if told.replaces else current
            current |= {
                row["id"]: {name: _cast(row.get(name), kind) for name, kind in told.types.items()} for row in told.rows
            }
        return [
            tuple(_cast(row.get(name), kind) for name, kind in newest.types.items())
            for _, row in sorted(current.items())
        ]

    def seen(self, name: str = "file") -> list[tuple[Any, ...]]:
        """Return what readers see."""
        columns = ", ".join(f'"{column}"' for column in self.told[max(self.told)].types)
        return self.readers[name](f"SELECT {columns} FROM items ORDER BY id")  # noqa: S608


def _cast(value: Any, kind: str) -> Any:
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    return None if value is None else _CASTS[kind](str(whole))
