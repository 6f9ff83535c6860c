"""State of one delivery: the load that is planned, how far it is, and which step may follow which.

It is kept in `Delivery.refs` under the names that commit 77ec71b gave its notes: deliveries that were on their way then
go on, and both codes understand each other's notes while an installation is upgraded. Read and written here alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter

from ingestion.ports.publication import Receipt
from sinks.druid.columns import DruidColumn, as_notes, from_notes
from sinks.druid.config import Granularity
from sinks.druid.intervals import Interval
from sinks.druid.spec import JSON, LoadPlan
from sinks.druid.staging import StagedObject


class Step(StrEnum):
    """Steps of a delivery."""

    NEW = "new"
    PLANNED = "planned"
    """The load is noted; its task is not handed over, or nobody knows."""
    SUBMITTED = "submitted"
    """Druid has the task."""
    FAILED = "failed"
    """The task is over or lost; what it has left behind is being found out."""
    PUBLISHED = "published"
    """All rows are published, or none was to be: readers are waited for. The delivery ends from here."""
    SHORT = "short"
    """Fewer rows were stored than handed over; once readers see those, the rows are brought anew."""


MOVES: Mapping[Step, frozenset[Step]] = {
    Step.NEW: frozenset({Step.NEW, Step.PLANNED, Step.PUBLISHED}),
    # planned anew where settings have changed or the rows of a merge are gone; failed where the id is another task's
    Step.PLANNED: frozenset({Step.PLANNED, Step.SUBMITTED, Step.FAILED, Step.PUBLISHED}),
    Step.SUBMITTED: frozenset({Step.SUBMITTED, Step.FAILED, Step.PUBLISHED, Step.SHORT}),
    # back to submitted where the task goes on after all
    Step.FAILED: frozenset({Step.FAILED, Step.SUBMITTED, Step.PUBLISHED, Step.PLANNED}),
    # planned anew where a person has rows that are missing brought again
    Step.PUBLISHED: frozenset({Step.PUBLISHED, Step.PLANNED}),
    Step.SHORT: frozenset({Step.SHORT, Step.PLANNED, Step.PUBLISHED}),
}


def _counts(receipt: Receipt) -> dict[str, int]:
    return {name: getattr(receipt, name) for name in ("inserted", "updated", "unchanged")}


def _columns(found: Any) -> tuple[DruidColumn, ...]:
    return from_notes(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One attempt at bringing the rows: what its task is to do, and what readers must find then.

    `task` is empty where nothing has to be loaded; then all but the first fields are as they are here.
    """

    task: str
    attempt: int
    datasource: str
    intervals: tuple[Interval, ...] = ()
    handed: int = 0
    receipt: Annotated[Receipt, PlainSerializer(_counts)] = Receipt()
    nulls: Mapping[str, int] = field(default_factory=dict)
    """By column the nulls that a reader must find in the run's rows."""
    columns: Annotated[tuple[DruidColumn, ...], BeforeValidator(_columns), PlainSerializer(as_notes)] = ()
    granularity: Granularity = Granularity.DAY
    is_append: Annotated[bool, Field(alias="append")] = False
    is_clean: Annotated[bool, Field(alias="clean")] = False
    """The clean parts themselves are read."""
    format: str = JSON
    time_source: Annotated[str | None, Field(alias="time")] = None
    """Column of our parts that the time is taken from, unless there is a `time_key`."""
    time_key: str | None = None
    logical_time: str = ""
    run_id: Annotated[int | None, Field(alias="run")] = None
    input_names: Annotated[tuple[str, ...], Field(alias="inputs")] = ()
    objects: tuple[StagedObject, ...] | None = None
    """Rows of a merge; None where the run's own parts are read."""
    is_inline: Annotated[bool, Field(alias="inline")] = False
    discovers: bool = False
    settings: str = ""
    """Hash of the settings that it was planned under."""
    hash: str = ""
    """Hash of the plan, which its task carries."""

    def plan(self, source: Mapping[str, Any] | None = None) -> LoadPlan:
        """Return what the task is to do, reading from `source`."""
        time = next((column.name for column in self.columns if column.source == self.time_source), None)
        return LoadPlan(
            datasource=self.datasource,
            task_id=self.task,
            columns=self.columns,
            time_column=self.time_key or time,
            logical_time=self.logical_time,
            granularity=self.granularity,
            intervals=self.intervals,
            format=self.format,
            run_id=self.run_id,
            is_append=self.is_append,
            discovers=self.discovers,
            is_emptying=not self.handed,
            input_names=self.input_names,
            source=source or {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadState:
    """The load of a delivery and how far it is; times are those of the context's clock."""

    load: Load | None = None
    unclear_at: Annotated[datetime | None, Field(alias="unsettled_at")] = None
    """Since when it cannot be told what the datasource holds."""
    submitted_at: datetime | None = None
    published_at: datetime | None = None
    failed_at: datetime | None = None
    stored: int | None = None
    """Rows that a task has stored which stored too few."""
    failed_polls: Annotated[int, Field(alias="failed_looks")] = 0
    is_final: bool = False
    is_foreign: bool = False
    """The id belongs to another task."""
    is_used_up: bool = False
    task_message: str = ""
    attempts_before: int = 0
    """Attempts that a person has seen fail and asked for more."""
    input_kind: Annotated[str, Field(alias="way")] = ""

    @classmethod
    def parse(cls, notes: Mapping[str, Any]) -> "LoadState":
        """Return the state that the notes of a delivery describe."""
        return _STATE.validate_python({**notes, "load": None if notes.get("task") is None else notes})

    def dump(self) -> dict[str, Any]:
        """Return the notes, JSON values, that `parse` reads."""
        notes: dict[str, Any] = _STATE.dump_python(self, mode="json", by_alias=True)
        load = notes.pop("load") or {}
        return notes | load

    @property
    def step(self) -> Step:
        """Return the step that the delivery is at."""
        if self.load is None:
            return Step.NEW
        if self.failed_at is not None:
            return Step.FAILED
        if self.published_at is not None:
            return Step.PUBLISHED if self.stored is None else Step.SHORT
        return Step.PLANNED if self.submitted_at is None else Step.SUBMITTED

    @property
    def planned(self) -> Load:
        """Return the load; LookupError where none is planned yet."""
        if self.load is None:
            raise LookupError(self.step)
        return self.load

    @property
    def awaited_task(self) -> str:
        """Return the id of the task that is waited for; "" where none is."""
        is_waiting = self.submitted_at is not None and self.published_at is None
        return self.load.task if self.load is not None and is_waiting else ""

    def with_load(self, load: Load, *, published_at: datetime | None = None) -> "LoadState":
        """Return the state with another attempt; `published_at` where nothing has to be loaded."""
        return LoadState(
            load=load,
            published_at=published_at,
            attempts_before=self.attempts_before,
            input_kind=self.input_kind,
        )

    def begun_again(self, now: datetime) -> "LoadState":
        """Return the state of a given-up delivery that a person has asked for again, with attempts of its own."""
        return replace(
            self,
            failed_polls=0,
            is_final=False,
            attempts_before=self.planned.attempt,
            failed_at=self.failed_at and now,
            published_at=self.published_at and now,
        )


_STATE = TypeAdapter(LoadState)


def move(before: LoadState, after: LoadState) -> dict[str, Any]:
    """Return the notes of the state that follows; ValueError where its step may not follow."""
    if after.step not in MOVES[before.step]:
        msg = f"a delivery cannot go from {before.step} to {after.step}"
        raise ValueError(msg)
    return after.dump()
