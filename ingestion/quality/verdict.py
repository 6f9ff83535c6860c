"""Verdict of a check over one table."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Counts:
    """Control totals of one table: fetched = accepted + rejected + duplicate + filtered."""

    fetched: int
    accepted: int
    rejected: int
    duplicate: int
    filtered: int

    def __post_init__(self) -> None:
        parts = self.accepted + self.rejected + self.duplicate + self.filtered
        if self.fetched != parts:
            msg = f"the control totals do not balance: {self}"
            raise AssertionError(msg)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of every row of one table.

    `clean` has the declared columns in contract order, the extra ones, then `_run`, `_part`, `_row`, `_page`.
    `rejected` has one line per rejected or duplicate row (`rejects.REJECTED_SCHEMA`). `high_water` is the greatest
    accepted value of the cursor field as ISO text, "" where there is none.
    """

    clean: "pa.Table"
    rejected: "pa.Table"
    counts: Counts
    high_water: str = ""
    warnings: tuple[str, ...] = ()
