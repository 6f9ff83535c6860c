"""The publication of a run as its sinks see it: the manifest, the delivery, and what a destination took."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ingestion.ports.schema import ContractBody

KEY_HASHES = ".keys2"
"""Ending of the objects that hold the key hashes of a part."""


class WriteMode(StrEnum):
    """The treatment that a publication gives the rows of earlier ones."""

    REPLACE = "replace"
    APPEND = "append"
    MERGE = "merge"


class DeliveryState(StrEnum):
    """The state of one run on its way into one destination."""

    PLANNED = "planned"
    STAGED = "staged"
    SUBMITTED = "submitted"
    PUBLISHED = "published"
    AVAILABLE = "available"
    VERIFIED = "verified"
    PUBLISHED_NOT_LOADED = "published_not_loaded"
    FAILED = "failed"
    REMOVED = "removed"


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
    hashes: str = ""
    """Key of the object with the hashes of its rows' keys; empty where there are none."""

    @property
    def is_hashed(self) -> bool:
        """Return whether its hashes are of the present scheme; those of earlier ones cannot be compared."""
        return self.hashes.endswith(KEY_HASHES)

    @property
    def name(self) -> str:
        """Return "<lane>-<link>-<seq>", unique within the run and stable over retries."""
        return f"{self.lane}-{self.link}-{self.seq:06d}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The publication of a run: every clean part, in (lane, link, seq) order, and how to understand it.

    The column `_run` in the parts names the run that read the rows. That is another one where a publication is made
    again (a roll back), so a destination that tells runs apart writes `run_id` in its place.
    """

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
    `polls` counts the polls of its commit so far. `polled` is what `PollingSink.poll` saw of it just now.
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
    polls: int = 0
    polled: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """One row that the destination would not take: where it stands, which rule of the destination it broke, and why."""

    part: str
    """Name of the part (PartView.name)."""
    index: int
    """Position in the part, from 0."""
    rule: str
    message: str
    column: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The rows that a destination took, by what became of them; accepted = the sum of the four counts.

    `rejections` names the rejected rows, one each, in the receipt of a commit; they go to quarantine.
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    rejections: tuple[Rejection, ...] = ()

    @property
    def visible(self) -> int:
        """Return the rows that a reader must see as this run's."""
        return self.inserted + self.updated
