"""The contract of a sink: how a published run reaches a place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from ingestion.ports.connector import CheckReport
from ingestion.ports.context import Context
from ingestion.ports.schema import ContractBody


class WriteMode(StrEnum):
    """What a publication does with the rows of earlier ones."""

    REPLACE = "replace"
    APPEND = "append"
    MERGE = "merge"


class DeliveryState(StrEnum):
    """How far one run is on its way into one destination."""

    PLANNED = "planned"
    STAGED = "staged"
    SUBMITTED = "submitted"
    PUBLISHED = "published"
    AVAILABLE = "available"
    VERIFIED = "verified"
    PUBLISHED_NOT_LOADED = "published_not_loaded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a sink can do, so that the engine asks for it and not for its name."""

    write_modes: frozenset[WriteMode]
    formats: frozenset[str] = frozenset({"parquet"})
    is_transactional: bool = False
    needs_lake: bool = True


@dataclass(frozen=True, slots=True)
class PartView:
    """One clean part: an immutable Parquet object in the lake."""

    key: str
    lane: int
    link: int
    seq: int
    rows: int
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Return "<lane>-<link>-<seq>", unique within the run and stable over retries."""
        return f"{self.lane}-{self.link}-{self.seq:06d}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a run publishes: every clean part, in (lane, link, seq) order, and how to understand it."""

    run_id: int
    pipeline: str
    mode: WriteMode
    contract: ContractBody
    contract_version: int
    parts: tuple[PartView, ...]
    rows: int
    logical_time: str
    """ISO time of the run's slot, or of its creation: the event time of rows whose contract names none."""


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """One run on its way into one destination, as its sink sees it.

    `refs` is the sink's own notebook (task ids, keys): JSON, given back by CommitStep and kept between calls.
    """

    id: int
    run_id: int
    pipeline: str
    pipeline_id: int
    destination: str
    mode: WriteMode
    contract: ContractBody
    state: DeliveryState
    attempt: int
    logical_time: str
    refs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a destination took: rows by what became of them; accepted = the sum of the four counts."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def visible(self) -> int:
        """Return the rows that a reader must see as this run's."""
        return self.inserted + self.updated


@dataclass(frozen=True, slots=True)
class CommitStep:
    """One step of a commit: the state reached, when to look again, and the receipt once there is one."""

    state: DeliveryState
    look_again_s: float | None = None
    receipt: Receipt | None = None
    refs: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Sink(Protocol):
    """Writes one kind of destination. Built with its validated Config; every call may come twice."""

    kind: ClassVar[str]
    Config: ClassVar[type[BaseModel]]
    capabilities: ClassVar[Capabilities]

    def check(self, ctx: Context) -> CheckReport:
        """Return whether a delivery could succeed now, each finding with its fix."""
        ...

    def stage(self, part: PartView, delivery: DeliveryView, ctx: Context) -> Receipt:
        """Bring one part's rows to the destination where no reader counts them yet. Idempotent."""
        ...

    def commit(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        """Make the staged rows visible, or look how far that is. Idempotent."""
        ...

    def count(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> int:
        """Return how many of this run's rows a reader of the destination sees."""
        ...

    def abort(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> None:
        """Remove what was staged and is not visible. Idempotent."""
        ...
