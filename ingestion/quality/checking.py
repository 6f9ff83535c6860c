"""One table against one contract: cast, find what is broken, split, keep the control totals.

This module is imported by functions that hold data already.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from ingestion.ports.batch import (
    CLEAN_COLUMNS,
    ERROR,
    ERROR_CODE,
    FILTERED,
    PAGE,
    PART,
    RAW,
    READER_COLUMNS,
    ROW,
    RUN,
)  # fmt: skip
from ingestion.ports.errors import ConfigError
from ingestion.ports.schema import ContractBody, ExtraColumns
from ingestion.quality.casts import CastColumn, cast_columns, cuts_digits, dtype_of, publish_undeclared
from ingestion.quality.rejects import DUPLICATE, Violation, build_rejected, text_of
from ingestion.quality.rules import find_duplicates, find_violations
from ingestion.toolkit.frames import array_of, frame_of


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

    clean: pa.Table
    rejected: pa.Table
    counts: Counts
    high_water: str = ""
    warnings: tuple[str, ...] = ()


def check_table(
    body: ContractBody, table: pa.Table, *, run_id: int, part: str, is_file: bool, cursor_field: str | None
) -> Verdict:
    """Return the verdict over every row of the table; see `CompiledContract.check`."""
    reader = _read_reader_columns(table)
    records = read_data(table)
    _reject_wrong_columns(body, records, has_rows=reader.has_live_rows)
    frame = _without_missing(records, body.missing_values)
    casts = cast_columns(frame, body.columns)
    columns, warnings = _published_columns(body, frame, casts, reader)

    violations = find_violations(casts, key=body.key)
    if body.key and reader.has_live_rows:
        key = [columns[name].alias(name) for name in body.key]
        version = columns.get(cursor_field) if cursor_field else None
        violations.append(find_duplicates(key, considered=reader.live, version=version, is_file=is_file))
    if reader.live is not None:
        violations = [*reader.unreadable, *(violation.only(reader.live) for violation in violations)]

    rejected = build_rejected(violations, rows=reader.rows, pages=reader.pages, raw=reader.raw, records=records)
    keep = _kept_rows(table.num_rows, violations, live=reader.live)
    # The source's own columns are not needed any more; without them the clean ones fit into their memory.
    del records, frame, casts, violations
    columns |= {ROW: reader.rows, PAGE: reader.pages}
    clean, high_water = _take_clean(columns, keep, run_id=run_id, part=part, cursor_field=cursor_field)
    return Verdict(
        clean=clean,
        rejected=rejected,
        counts=_count(table.num_rows, accepted=clean.num_rows, rejected=rejected, filtered=reader.filtered_count),
        high_water=high_water,
        warnings=tuple(warnings),
    )


@dataclass(frozen=True, slots=True)
class _ReaderColumns:
    """Marks that the reader left at each row; `live` marks the rows to check, None where that is all of them."""

    rows: pl.Series
    pages: pl.Series
    raw: pl.Series | None
    live: pl.Series | None
    has_live_rows: bool
    filtered_count: int
    unreadable: Sequence[Violation]


def _read_reader_columns(table: pa.Table) -> _ReaderColumns:
    present = _to_frame(table.select([name for name in READER_COLUMNS if name in table.column_names]))
    height = table.num_rows
    given = {series.name: series for series in present.get_columns()}
    rows = given[ROW].cast(pl.Int64) if ROW in given else pl.int_range(height, dtype=pl.Int64, eager=True)
    pages = given[PAGE].cast(pl.Int32) if PAGE in given else _nulls(height, pl.Int32())
    filtered = given[FILTERED].cast(pl.Boolean).fill_null(False) if FILTERED in given else None
    codes = given[ERROR_CODE].cast(pl.String) if ERROR_CODE in given else _nulls(height, pl.String())
    unreadable = codes.is_not_null() if filtered is None else codes.is_not_null() & ~filtered
    dead = unreadable if filtered is None else unreadable | filtered
    return _ReaderColumns(
        rows=rows.alias(ROW),
        pages=pages.alias(PAGE),
        raw=given[RAW].cast(pl.String) if RAW in given else None,
        live=~dead if dead.any() else None,
        has_live_rows=not dead.all() if height else False,
        filtered_count=0 if filtered is None else int(filtered.sum()),
        unreadable=_read_errors(unreadable.arg_true(), codes, given.get(ERROR)),
    )


def _read_errors(at: pl.Series, codes: pl.Series, sentences: pl.Series | None) -> list[Violation]:
    if not len(at):
        return []
    message = codes.gather(at) if sentences is None else sentences.cast(pl.String).gather(at).fill_null("")
    return [Violation("", "read", message, at, text_of(codes))]


def read_data(table: pa.Table) -> pl.DataFrame:
    """Return the source's own columns of a connector's table; ConfigError where two have one name."""
    names = [name for name in table.column_names if name not in READER_COLUMNS]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise ConfigError("file.duplicate_column", name="the input", column=doubled)
    return _to_frame(table.select(names))


def _without_missing(frame: pl.DataFrame, missing: Sequence[str]) -> pl.DataFrame:
    if not missing:
        return frame
    text = pl.col(pl.String)
    return frame.with_columns(pl.when(~text.is_in(list(missing))).then(text).name.keep())


def _to_frame(table: pa.Table) -> pl.DataFrame:
    arrays = {name: _text_of_binary(table[name]) for name in table.column_names}
    return frame_of(pa.table(arrays))


def _text_of_binary(array: "pa.ChunkedArray[Any]") -> "pa.ChunkedArray[Any]":
    # Old writers store text as plain bytes; real bytes become base64 later (`texts.as_text`).
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        try:
            return array.cast(pa.large_string())
        except pa.ArrowInvalid:
            return array
    return array


def _reject_wrong_columns(body: ContractBody, frame: pl.DataFrame, *, has_rows: bool) -> None:
    found = ", ".join(frame.columns) or "none"
    if has_rows or frame.width:
        missing = [column for column in body.columns if column.name not in frame.columns]
        for column in missing:
            if column.name in body.key:
                raise ConfigError("contract.missing_key_column", column=column.name, found=found)
        for column in missing:
            if not column.nullable:
                raise ConfigError("contract.missing_column", column=column.name, found=found)
    unexpected = [name for name in frame.columns if body.column(name) is None]
    if unexpected and body.extra_columns is ExtraColumns.REJECT:
        raise ConfigError("contract.unexpected_column", columns=", ".join(unexpected))


def _published_columns(
    body: ContractBody, frame: pl.DataFrame, casts: Sequence[CastColumn], reader: "_ReaderColumns"
) -> tuple[dict[str, pl.Series], list[str]]:
    values = {item.column.name: item.values for item in casts}
    columns: dict[str, pl.Series] = {}
    warnings: list[str] = []
    for column in body.columns:
        if column.name not in values and reader.has_live_rows:
            warnings.append(f"The data have no column {column.name!r}; it was filled with nulls.")
        columns[column.name] = values.get(column.name, _nulls(len(reader.rows), dtype_of(column)))
    warnings += [
        f"Some values of the column {item.column.name!r} have digits that its type {item.column.type} does not keep; "
        "they were rounded. Declare it as string to keep them."
        for item in casts
        if cuts_digits(item.column, item.source)
    ]
    if body.extra_columns is ExtraColumns.KEEP:
        names = _published_names(body, frame)
        columns |= {names[name]: publish_undeclared(frame[name]) for name in names}
        warnings += [
            f"The column {name!r} was published as {published!r}: its name is one of Headgate's own."
            for name, published in names.items()
            if name != published
        ]
    return columns, warnings


def _published_names(body: ContractBody, frame: pl.DataFrame) -> dict[str, str]:
    taken = {*frame.columns, *(column.name for column in body.columns), *CLEAN_COLUMNS}
    names = {}
    for name in frame.columns:
        if body.column(name) is None:
            published = name
            while published in CLEAN_COLUMNS or (published != name and published in taken):
                published = f"{published.lstrip('_')}_"
            names[name] = published
    return names


def _kept_rows(height: int, violations: Sequence[Violation], *, live: pl.Series | None) -> pl.Series | None:
    if live is None and not any(len(violation.at) for violation in violations):
        return None
    keep = np.ones(height, dtype=bool) if live is None else live.to_numpy().copy()
    for violation in violations:
        keep[violation.at.to_numpy()] = False
    return pl.Series(keep)


def _take_clean(
    columns: dict[str, pl.Series], keep: pl.Series | None, *, run_id: int, part: str, cursor_field: str | None
) -> tuple[pa.Table, str]:
    """Empty `columns` into the clean table, one after the other, so that never two copies of all of them exist."""
    arrays, high_water = {}, ""
    height = len(columns[ROW]) if keep is None else int(keep.sum())
    for name in list(columns):
        if name == ROW:
            arrays[RUN] = pl.repeat(run_id, height, dtype=pl.Int64, eager=True).to_arrow()
            arrays[PART] = pl.repeat(part, height, dtype=pl.String, eager=True).to_arrow()
        series = columns.pop(name)
        series = series if keep is None else series.filter(keep)
        if name == cursor_field:
            high_water = _high_water(series)
        arrays[name] = array_of(series)
    return pa.table(arrays), high_water


def _count(fetched: int, *, accepted: int, rejected: pa.Table, filtered: int) -> Counts:
    duplicate = int((pl.Series(rejected["outcome"]) == DUPLICATE).sum())
    return Counts(
        fetched=fetched,
        accepted=accepted,
        rejected=rejected.num_rows - duplicate,
        duplicate=duplicate,
        filtered=filtered,
    )


def _high_water(accepted: pl.Series) -> str:
    greatest: Any = accepted.max()
    if isinstance(greatest, dt.datetime):
        return greatest.isoformat().replace("+00:00", "Z")
    return "" if greatest is None else str(greatest)


def _nulls(height: int, dtype: pl.DataType) -> pl.Series:
    return pl.Series([None], dtype=dtype).new_from_index(0, height)
