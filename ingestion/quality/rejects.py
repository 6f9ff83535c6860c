"""Quarantine as a table: one line per rejected or duplicate row, with every broken rule and the raw record.

This module is imported by functions that hold data already.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa

from ingestion.ports.batch import CLEAN_COLUMNS, PAGE, ROW
from ingestion.ports.publication import Rejection
from ingestion.quality.texts import as_text, records_as_json
from ingestion.toolkit.frames import frame_of

VALUE_CHARACTERS = 200
REJECTED, DUPLICATE, REJECTED_BY_DESTINATION = "rejected", "duplicate", "refused"
"""Outcomes as parts in quarantine hold them; that of a destination keeps its first name."""
KEY_DUPLICATE = "key.duplicate"

ERROR_TYPE = pa.struct([(name, pa.string()) for name in ("column", "rule", "value", "message")])
_FIELDS: dict[str, pa.DataType] = {
    ROW: pa.int64(),
    PAGE: pa.int32(),
    "outcome": pa.string(),
    "errors": pa.list_(ERROR_TYPE),
    "raw": pa.string(),
}
REJECTED_SCHEMA = pa.schema(_FIELDS)
# Arrow's string arrays end at 2 GiB, so long tables are put together from pieces of this many rows.
_PIECE_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule of one column and the positions where it is broken; `text` gives the values there.

    `message` is one sentence for all positions or a series with one for each.
    """

    column: str
    rule: str
    message: str | pl.Series
    at: pl.Series
    text: Callable[[pl.Series], pl.Series]

    def only(self, chosen: pl.Series) -> "Violation":
        """Return the same violation, at those of its positions that `chosen` (one boolean per row) marks."""
        return replace(self, at=self.at.filter(chosen.gather(self.at)))


def text_of(source: pl.Series) -> Callable[[pl.Series], pl.Series]:
    """Return a function that gives the values of some positions as text."""
    return lambda at: as_text(source.gather(at))


def key_text(columns: Sequence[pl.Series]) -> Callable[[pl.Series], pl.Series]:
    """Return a function that gives the key of some positions as text, its parts joined by a comma."""

    def texts(at: pl.Series) -> pl.Series:
        parts = [as_text(column.gather(at)).alias(str(number)) for number, column in enumerate(columns)]
        return (
            pl.DataFrame(parts)
            .select(pl.concat_str(pl.all(), separator=", ", ignore_nulls=True).alias("key"))
            .to_series()
        )

    return texts


def build_rejected(
    violations: Sequence[Violation], *, rows: pl.Series, pages: pl.Series, raw: pl.Series | None, records: pl.DataFrame
) -> pa.Table:
    """Return the rejected table: the rows that break a rule, in their order, each with all its errors.

    `raw` holds the records as they arrived; where it is null the record is made from the row's columns in `records`.
    """
    found = [violation for violation in violations if len(violation.at)]
    if not found:
        # Not empty_table: that loads pandas, which costs a worker more than a whole check.
        return pa.Table.from_batches([], schema=REJECTED_SCHEMA)
    errors = pl.concat([_errors_of(violation, rank) for rank, violation in enumerate(found)]).sort("at", "rank")
    at, first = np.unique(errors["at"].to_numpy(), return_index=True)
    first = np.append(first, errors.height)
    broken = (errors["rule"] != KEY_DUPLICATE).to_numpy()
    is_rejected = np.logical_or.reduceat(broken, first[:-1])
    pieces = []
    for start in range(0, len(at), _PIECE_ROWS):
        stop = min(start + _PIECE_ROWS, len(at))
        positions = pl.Series(at[start:stop])
        piece = errors.slice(int(first[start]), int(first[stop] - first[start]))
        outcome = np.where(is_rejected[start:stop], REJECTED, DUPLICATE)
        columns = [
            rows.gather(positions).to_arrow(),
            pages.gather(positions).to_arrow(),
            _arrow(outcome).cast(pa.string()),
            pa.ListArray.from_arrays(
                cast(pa.Int32Array, _arrow((first[start : stop + 1] - first[start]).astype(np.int32))), _structs(piece)
            ),
            _raw_of(positions, raw=raw, records=records).to_arrow().cast(pa.string()),
        ]
        pieces.append(pa.Table.from_arrays(columns, schema=REJECTED_SCHEMA))
    return pa.concat_tables(pieces)


def reject_duplicates(dropped: pa.Table, *, key: Sequence[str]) -> pa.Table:
    """Return the rejected table of clean rows whose key another partition of the run already holds."""
    frame = frame_of(dropped)
    everywhere = pl.Series(range(frame.height), dtype=pl.UInt32)
    message = "Another partition of this run has a row with the same key, which was kept."
    violation = Violation(",".join(key), KEY_DUPLICATE, message, everywhere, key_text([frame[name] for name in key]))
    return build_rejected([violation], rows=frame[ROW], pages=frame[PAGE], raw=None, records=frame.drop(CLEAN_COLUMNS))


def reject_rows(rows: pa.Table, rejections: Sequence[Rejection]) -> pa.Table:
    """Return the rejected table of clean rows that a destination rejected, each with its own of the `rejections`."""
    frame = frame_of(rows)
    errors = pl.DataFrame(
        {
            "column": [rejection.column for rejection in rejections],
            "rule": [rejection.rule for rejection in rejections],
            "value": [_value_at(frame, rejection.column, row) for row, rejection in enumerate(rejections)],
            "message": [rejection.message for rejection in rejections],
        },
        schema=dict.fromkeys(("column", "rule", "value", "message"), pl.String),
    )
    offsets = cast(pa.Int32Array, _arrow(np.arange(frame.height + 1, dtype=np.int32)))
    columns = [
        frame[ROW].cast(pl.Int64).to_arrow(),
        frame[PAGE].cast(pl.Int32).to_arrow(),
        _arrow([REJECTED_BY_DESTINATION] * frame.height).cast(pa.string()),
        pa.ListArray.from_arrays(offsets, _structs(errors)),
        records_as_json(frame.drop(CLEAN_COLUMNS)).to_arrow().cast(pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=REJECTED_SCHEMA)


def _value_at(frame: pl.DataFrame, column: str, row: int) -> str:
    if column not in frame.columns:
        return ""
    return str(as_text(frame[column].slice(row, 1))[0] or "")[:VALUE_CHARACTERS]


def _errors_of(violation: Violation, rank: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "at": violation.at.cast(pl.Int64),
            "value": violation.text(violation.at).str.slice(0, VALUE_CHARACTERS).fill_null(""),
        }
    ).with_columns(
        rank=pl.lit(rank, dtype=pl.Int32),
        column=pl.lit(violation.column),
        rule=pl.lit(violation.rule),
        message=pl.lit(violation.message),
    )


def _arrow(values: Any) -> "pa.Array[Any]":
    # Not pa.array: that loads pandas, which costs a worker more than a whole check.
    return pl.Series(values).to_arrow()


def _structs(errors: pl.DataFrame) -> pa.StructArray:
    arrays = [errors[field.name].to_arrow().cast(pa.string()) for field in ERROR_TYPE]
    return pa.StructArray.from_arrays(arrays, fields=list(ERROR_TYPE))


def _raw_of(positions: pl.Series, *, raw: pl.Series | None, records: pl.DataFrame) -> pl.Series:
    made = records_as_json(records[positions]) if records.width else pl.Series(["{}"]).new_from_index(0, len(positions))
    return made if raw is None else raw.gather(positions).zip_with(raw.gather(positions).is_not_null(), made)
