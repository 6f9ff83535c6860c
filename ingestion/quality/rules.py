"""The rules of a contract over cast columns: which positions break which rule.

This module is imported by functions that hold data already.
"""

import math
from collections.abc import Iterator, Sequence

import polars as pl

from ingestion.ports.schema import Column, ColumnType
from ingestion.quality.casts import CastColumn, dtype_of
from ingestion.quality.rejects import KEY_DUPLICATE, Violation, key_text, text_of
from ingestion.quality.texts import as_text
from ingestion.quality.values import INT64_MAX, INT64_MIN, read_bound, read_value

_EXPECTED = {
    ColumnType.INTEGER: "an integer of at most 64 bits",
    ColumnType.NUMBER: "a finite number",
    ColumnType.BOOLEAN: "true, false, 1 or 0",
    ColumnType.DATE: "an existing date of the form YYYY-MM-DD",
    ColumnType.DATETIME: "an existing date and time in ISO 8601",
    ColumnType.OBJECT: "a JSON object",
    ColumnType.ARRAY: "a JSON array",
}


def find_violations(casts: Sequence[CastColumn], *, key: Sequence[str]) -> list[Violation]:
    """Return what breaks the rules of each column, in column order; uniqueness of the key is not among them."""
    tests = [(cast, rule, message, test) for cast in casts for rule, message, test in _tests(cast)]
    frame = pl.DataFrame([cast.values.alias(cast.column.name) for cast in casts]) if casts else pl.DataFrame()
    broken = frame.lazy().select([test.alias(str(number)) for number, (*_, test) in enumerate(tests)]).collect()
    by_column: dict[str, list[Violation]] = {}
    for number, (cast, rule, message, _) in enumerate(tests):
        found = Violation(cast.column.name, rule, message, broken[str(number)].arg_true(), text_of(cast.source))
        by_column.setdefault(cast.column.name, []).append(found)
    violations: list[Violation] = []
    for cast in casts:
        violations += _type_violations(cast, is_key=cast.column.name in key)
        violations += by_column.get(cast.column.name, [])
    return violations


def find_duplicates(
    key: Sequence[pl.Series], *, considered: pl.Series | None, version: pl.Series | None, is_file: bool
) -> Violation:
    """Return the rows whose key another row of the table has, all but the one that stays.

    In files the first stays, else the one with the highest `version` (null is lowest), then the last. Rows outside
    `considered` neither are duplicates nor make any; neither do null keys. Rows that break other rules take part:
    uniqueness is a property of what arrived, and decided before anything is taken out.
    """
    column, text = ",".join(part.name for part in key), key_text(key)
    message = "An earlier row of the data has the same key." if is_file else "A newer record has the same key."
    frame = pl.DataFrame([part.alias(f"k{number}") for number, part in enumerate(key)])
    names = frame.columns
    same = pl.struct(names) if len(names) > 1 else pl.col(names[0])
    usable = pl.all_horizontal(pl.col(names).is_not_null())
    if considered is not None:
        usable = usable & considered
    is_partial = considered is not None or any(part.null_count() for part in key)
    frame = frame.with_row_index("at").filter(usable) if is_partial else frame.with_row_index("at")
    if len(names) == 1 and frame[names[0]].is_sorted():
        # The usual numbered file: equal keys are neighbours, which is twenty times cheaper than a hash table.
        repeats = frame[names[0]].eq(frame[names[0]].shift(1))
        if is_file or not repeats.any():
            return Violation(column, KEY_DUPLICATE, message, frame["at"].filter(repeats.fill_null(False)), text)
    if is_file:
        dropped = frame.filter(~same.is_first_distinct())["at"]
    else:
        doubled = frame.filter(same.is_duplicated())
        rank = pl.Series("version", [None], dtype=pl.Null).new_from_index(0, doubled.height)
        doubled = doubled.with_columns(rank if version is None else version.gather(doubled["at"]).alias("version"))
        ordered = doubled.sort("version", "at", nulls_last=False)
        dropped = ordered.filter(~same.is_last_distinct())["at"].sort()
    return Violation(column, KEY_DUPLICATE, message, dropped, text)


def _type_violations(cast: CastColumn, *, is_key: bool) -> Iterator[Violation]:
    name, text = cast.column.name, text_of(cast.source)
    if len(cast.invalid):
        expected = _EXPECTED.get(cast.column.type, "text")
        if cast.column.format is not None:
            expected = f"an existing date in the format {cast.column.format}"
        yield Violation(name, "type", f"The value is not {expected}.", cast.invalid, text)
    if (is_key or not cast.column.nullable) and cast.values.null_count() > len(cast.invalid):
        nulls = cast.values.is_null().arg_true()
        nulls = nulls.filter(~nulls.is_in(cast.invalid.implode())) if len(cast.invalid) else nulls
        if not cast.column.nullable:
            yield Violation(name, "nullable", "The value is missing, but the column must not be null.", nulls, text)
        if is_key:
            yield Violation(name, "key.null", "The value is missing, but the column is part of the key.", nulls, text)


def _tests(cast: CastColumn) -> Iterator[tuple[str, str, pl.Expr]]:
    column, value = cast.column, pl.col(cast.column.name)
    if column.pattern is not None:
        text = value if cast.values.dtype == pl.String else pl.lit(as_text(cast.source))
        yield "pattern", f"The value does not match the pattern {column.pattern}", ~text.str.contains(column.pattern)
    for rule, bound, breaks in (("min", column.min, _below), ("max", column.max, _above)):
        if bound is not None:
            side = "below the minimum" if rule == "min" else "above the maximum"
            yield rule, f"The value is {side} of {bound}.", breaks(column, value)
    if column.enum is not None:
        allowed = pl.Series([read_value(column, item) for item in column.enum], dtype=dtype_of(column))
        names = ", ".join(str(item) for item in column.enum[:10]) + (", ..." if len(column.enum) > 10 else "")  # noqa: PLR2004
        yield "enum", f"The value is none of the allowed ones: {names}.", ~value.is_in(allowed.implode())


def _below(column: Column, value: pl.Expr) -> pl.Expr:
    bound = read_bound(column, column.min)
    if column.type is ColumnType.INTEGER:
        # A float bound is rounded to the integer that decides the same; comparing as floats would lose digits.
        least = math.ceil(bound)  # type: ignore[arg-type]
        if least > INT64_MAX:
            return value.is_not_null()
        return value < max(least, INT64_MIN)
    return value < pl.lit(bound, dtype=dtype_of(column))


def _above(column: Column, value: pl.Expr) -> pl.Expr:
    bound = read_bound(column, column.max)
    if column.type is ColumnType.INTEGER:
        most = math.floor(bound)  # type: ignore[arg-type]
        if most < INT64_MIN:
            return value.is_not_null()
        return value > min(most, INT64_MAX)
    return value > pl.lit(bound, dtype=dtype_of(column))
