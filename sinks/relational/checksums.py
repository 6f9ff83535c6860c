"""Checksums of columns that any database and we make alike: the sum of a number for each value, whatever their order.

Whole numbers stand for themselves, dates and times for their distance from 1970, floats for their first 31 bits or more;
each is mixed, so that two changes do not balance. Texts stand for their length and for the beginning of their MD5. That
and times are dear for a database, so they count in one row of `every`: in each of a million, they would take longer than
to load them.
"""

import hashlib
from typing import TYPE_CHECKING, Any

from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.dialect import Dialect
from sinks.relational.naming import ROW
from sinks.relational.statements import Name, Sql, Value, joined, sql

if TYPE_CHECKING:
    import polars as pl

MODULUS, MIXER = 2**31 - 1, 40503
"""What the numbers of a checksum are mixed with; products stay within 64 bits."""
FLOAT_BOUND = 2.0**62
FLOAT_SCALES = ((2.0**31, 1.0), *((2.0 ** (-31 * step), 2.0 ** (31 * step + 31)) for step in range(5)))
"""The least size of a float, and what makes a whole number of 31 bits or more of one that is no smaller."""
_HASHED_KINDS = (Kind.TEXT, Kind.UNSIGNED, Kind.JSON)


def summed(dialect: Dialect, column: Sql, kind: Kind, *, every: int) -> Sql:
    """Return the sum of the numbers that stand for the values of a column which keeps what it is given."""
    if kind in _HASHED_KINDS:
        text = dialect.as_text(column, kind) if kind is Kind.UNSIGNED else column
        return sql("SUM({} + {})", dialect.byte_count(text), _chosen(dialect.text_number(text), every=every))
    small = sql(f"({{}} % {MODULUS})", _number_of(dialect, column, kind))
    mixed = sql(f"({{}} * ({{}} + {MIXER})) % {MODULUS}", small, small)
    return sql("SUM({})", _chosen(mixed, every=every) if kind is Kind.TIMESTAMP else mixed)


def _chosen(number: Sql, *, every: int) -> Sql:
    return sql("CASE WHEN {} % {} = 0 THEN {} ELSE 0 END", Name(ROW), str(every), number)


def _number_of(dialect: Dialect, column: Sql, kind: Kind) -> Sql:
    """Return the whole number of 64 bits that stands for each value."""
    match kind:
        case Kind.NUMBER:
            cases = [sql("WHEN abs({}) >= {} THEN 1", column, Value(FLOAT_BOUND))]
            for least, scale in FLOAT_SCALES:
                whole = dialect.whole(sql("{} * {}", column, Value(scale)))
                cases.append(sql("WHEN abs({}) >= {} THEN {}", column, Value(least), whole))
            return sql("CASE {} WHEN {} IS NOT NULL THEN 0 END", joined(" ", cases), column)
        case Kind.BOOLEAN:
            return dialect.truth(column)
        case Kind.DATE:
            return dialect.days(column)
        case Kind.TIMESTAMP:
            return dialect.microseconds(column)
    return column


def text_number(text: str | None) -> int | None:
    """Return the number that stands for a text: the first 32 bits of its MD5, which every database knows."""
    digest = hashlib.md5((text or "").encode(), usedforsecurity=False).digest()
    return None if text is None else int.from_bytes(digest[:4])


def checksum(values: "pl.Series", kind: Kind, *, rows: "pl.Series", every: int) -> int:
    """Return the sum of the numbers that stand for the values, as `summed` has them; `rows` are their `_row`."""
    import numpy as np  # noqa: PLC0415 (heavy)
    import polars as pl  # noqa: PLC0415

    is_chosen = rows % every == 0
    if kind in _HASHED_KINDS:
        texts = values.cast(pl.String)
        hashed = texts.filter(is_chosen & texts.is_not_null()).value_counts(name="count")
        pairs = zip(hashed.to_series(0), hashed["count"], strict=True)
        weighed: int = sum((text_number(text) or 0) * count for text, count in pairs)
        return weighed + int(texts.str.len_bytes().cast(pl.Int64).sum() or 0)
    values = (values.filter(is_chosen) if kind is Kind.TIMESTAMP else values).drop_nulls()
    numbers: Any
    if kind is Kind.NUMBER:
        numbers = _float_numbers(values.cast(pl.Float64).to_numpy())
    elif kind is Kind.TIMESTAMP:
        numbers = values.cast(pl.Datetime("us", "UTC")).to_physical().to_numpy()
    else:
        numbers = values.to_physical().cast(pl.Int64).to_numpy()
    small = np.fmod(numbers, MODULUS)
    return int(np.fmod(small * (small + MIXER), MODULUS).sum())


def _float_numbers(values: Any) -> Any:
    """Return the numbers that stand for floats: their first 31 bits or more, whole, by powers of two, so without rounding."""
    import numpy as np  # noqa: PLC0415 (heavy)

    size = np.abs(values)
    numbers = np.zeros(len(values), dtype=np.int64)
    chosen = np.zeros(len(values), dtype=bool)
    numbers[~(size < FLOAT_BOUND)] = 1
    chosen |= ~(size < FLOAT_BOUND)
    for least, scale in FLOAT_SCALES:
        fits = ~chosen & (size >= least)
        numbers[fits] = np.trunc(values[fits] * scale).astype(np.int64)
        chosen |= fits
    return numbers
