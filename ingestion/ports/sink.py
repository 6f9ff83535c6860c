"""The contract of a sink: how a published run reaches a place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel

from ingestion.ports.check import CheckReport
from ingestion.ports.context import Context
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, PartView, Receipt, WriteMode


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The abilities of a sink, so that the engine asks for it and not for its name."""

    write_modes: frozenset[WriteMode]
    formats: frozenset[str] = frozenset({"parquet"})
    is_transactional: bool = False
    needs_lake: bool = True
    orders_runs: bool = False
    """It takes several runs of a pipeline at once, in any order, and lets none of them undo a newer one."""
    resumes_commit: bool = True
    """A commit that stops half way goes on there when it is called again. One that begins anew (a single
    transaction) must not be stopped at the end of a worker slot: it would never be done."""


@dataclass(frozen=True, slots=True)
class CommitStep:
    """One step of a commit: the state reached, when to poll next, and the receipt once there is one.

    `refs` are added to the delivery's and stored before anything is done on the strength of the step: a sink that is
    about to cause an outside effect returns what names it first, with next_poll_s 0, and causes it in the next call.
    PUBLISHED_NOT_LOADED ends the delivery for its run: the rows are there and no reader sees them; a retry polls again.
    """

    state: DeliveryState
    next_poll_s: float | None = None
    receipt: Receipt | None = None
    refs: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    """A line for a person, in the run's log."""


@runtime_checkable
class ClaimingConfig(Protocol):
    """The Config of a sink that must not share a place: of one kind, two destinations may not claim the same."""

    @property
    def claim(self) -> str:
        """Return what the destination has to itself; empty where it has nothing."""
        ...


@runtime_checkable
class PlacedConfig(Protocol):
    """The Config of a sink that writes into a folder, a file or a bucket, which must be no other's."""

    @property
    def occupies(self) -> str:
        """Return the address of that place: an absolute path, `file:///folder` or `s3://bucket/prefix?options`."""
        ...

    @property
    def is_shared(self) -> bool:
        """Return whether two destinations of this kind may have the same place, each with things of its own in it."""
        ...


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
        """Make the staged rows visible, or see how far that is. Idempotent."""
        ...

    def count(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> int:
        """Return how many of this run's rows a reader of the destination sees."""
        ...

    def abort(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> None:
        """Remove what was staged and is not visible. Idempotent."""
        ...


@runtime_checkable
class VerifyingSink(Sink, Protocol):
    """A sink that can compare what readers see of a run, value by value, with what was handed over."""

    def differences(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> Sequence[str]:
        """Return what differs, a clause for each column such as "qty has 3 values instead of 5"; empty where nothing does."""
        ...


@runtime_checkable
class PollingSink(Sink, Protocol):
    """A sink that can poll many deliveries with one question to the destination."""

    def poll(self, deliveries: Sequence[DeliveryView], ctx: Context) -> Mapping[int, Mapping[str, Any]]:
        """Return what the destination says of these deliveries now, by delivery id; one it does not know is left out."""
        ...
