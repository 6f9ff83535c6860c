"""Rows of the parts of manifests in one order that never changes, so that a position in it is a number.

Row 1 is the first one. Whoever has read N rows goes on behind row N, and nothing that lies before is read again: parts
and row groups are passed over by the counts in their footers.

Imports polars and pyarrow; so it is imported by functions that read rows, never at start.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from ingestion.ports.context import Lake
from ingestion.ports.publication import PartView
from ingestion.toolkit.clean.kinds import Kind, PartShape
from ingestion.toolkit.clean.reader import open_part

if TYPE_CHECKING:
    import numpy.typing as npt

    Positions = npt.NDArray[np.integer[Any]]
    Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Window:
    """Rows whose time lies in [since, until); a row without a time does not."""

    column: str
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One part of a sequence, and which of its rows belong to it: all but `dropped` and those outside of `window`."""

    part: PartView
    shape: PartShape
    dropped: "Positions | None" = None
    window: Window | None = None


class RowSequence:
    """The rows of some pieces, one after the other, in the columns of `kinds`."""

    def __init__(self, lake: Lake, pieces: Sequence[Piece], *, kinds: Mapping[str, Kind]) -> None:
        self.kinds = dict(kinds)
        self._lake = lake
        self._pieces = pieces

    @cached_property
    def counts(self) -> list[int]:
        """Return how many rows of each piece belong to the sequence; only times that decide it are read."""
        return [self._count(piece) for piece in self._pieces]

    @property
    def total(self) -> int:
        """Return how many rows there are."""
        return sum(self.counts)

    def choose(self, names: Sequence[str]) -> "RowSequence":
        """Return the same rows with these columns alone, in this order."""
        return RowSequence(self._lake, self._pieces, kinds={name: self.kinds[name] for name in names})

    def batches(self, *, after: int = 0, limit: int | None = None) -> Iterator["pa.RecordBatch"]:
        """Yield the rows behind row `after`, at most `limit`, in small batches: memory does not grow with their number."""
        left = self.total - after if limit is None else min(limit, self.total - after)
        for piece, count in zip(self._pieces, self.counts, strict=True):
            if left <= 0:
                return
            if after >= count:
                after -= count
                continue
            for batch in self._batches_of(piece, skipped=after):
                taken = batch.slice(0, left)
                left -= taken.num_rows
                yield taken
                if left <= 0:
                    return
            after = 0

    def _count(self, piece: Piece) -> int:
        if piece.window is not None and not (verdict := _verdict(piece, piece.window)).is_known:
            mask = self._mask(piece)
            return piece.shape.rows if mask is None else int(mask.sum())
        if piece.window is not None and not verdict.has_all:
            return 0
        return piece.shape.rows - (0 if piece.dropped is None else len(piece.dropped))

    def _batches_of(self, piece: Piece, *, skipped: int) -> Iterator["pa.RecordBatch"]:
        """Yield the piece's rows that belong to the sequence, without the first `skipped`."""
        mask = self._mask(piece)
        first = skipped if mask is None else int(np.flatnonzero(mask)[skipped])
        with open_part(self._lake, piece.part) as file:
            for start, batch in file.batches(self.kinds, first=first):
                chosen = batch
                if mask is not None:
                    chosen = batch.filter(pl.Series(mask[start : start + batch.num_rows]).to_arrow())
                if chosen.num_rows:
                    yield chosen

    def _mask(self, piece: Piece) -> "Mask | None":
        """Return which rows of the piece belong to the sequence, None where all do."""
        mask = None
        if piece.window is not None and not _verdict(piece, piece.window).has_all:
            mask = self._times_within(piece, piece.window)
        if piece.dropped is not None and len(piece.dropped):
            mask = np.ones(piece.shape.rows, dtype=bool) if mask is None else mask.copy()
            mask[piece.dropped] = False
        return mask

    def _times_within(self, piece: Piece, window: Window) -> "Mask":
        with open_part(self._lake, piece.part) as file:
            found = [batch.column(0) for _, batch in file.batches({window.column: Kind.TIMESTAMP})]
        times = pl.Series(pa.chunked_array(found))
        chosen = times.is_not_null()
        if window.since is not None:
            chosen &= times >= window.since.astimezone(UTC)
        if window.until is not None:
            chosen &= times < window.until.astimezone(UTC)
        return chosen.fill_null(False).to_numpy()


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Answer of a footer to a window: whether it decides alone, and whether all rows are within it."""

    is_known: bool
    has_all: bool


def _verdict(piece: Piece, window: Window) -> _Verdict:
    column = piece.shape.column(window.column)
    if column is None or column.kind not in (Kind.DATE, Kind.TIMESTAMP) or not piece.shape.has_values(column):
        return _Verdict(is_known=True, has_all=False)
    if not column.is_bounded:
        return _Verdict(is_known=False, has_all=False)
    begins = window.since is None or column.low >= window.since
    ends = window.until is None or column.high < window.until
    if begins and ends and column.null_count == 0:
        return _Verdict(is_known=True, has_all=True)
    is_outside = (window.since is not None and column.high < window.since) or (
        window.until is not None and column.low >= window.until
    )
    return _Verdict(is_known=is_outside, has_all=False)
