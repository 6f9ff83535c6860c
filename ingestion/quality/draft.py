"""A first contract, inferred from data."""

from typing import TYPE_CHECKING

from ingestion.ports.batch import ERROR_CODE
from ingestion.ports.schema import Column, ColumnType, ContractBody
from ingestion.quality.contracts import RESERVED_NAMES
from ingestion.toolkit.clean.kinds import EXACT_INTEGER

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from ingestion.quality.casts import CastColumn

_HEAD_ROWS = 1_000
_NAME_CHARACTERS = 100
_COLUMN_NAME_CHARACTERS = 200
_TRIED_TYPES = (
    ColumnType.BOOLEAN, ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.DATE, ColumnType.DATETIME,
)  # fmt: skip
_KEY_TYPES = (ColumnType.INTEGER, ColumnType.STRING)
_CODE = r"^\s*(?:\+|-?0[0-9])"
"""Phone numbers and codes with leading zeros are text: as numbers they would not be what they were."""


def draft_contract(table: "pa.Table", *, name: str) -> ContractBody:
    """Return a contract that accepts every readable row of this table, as a start for a person.

    A text column becomes boolean, integer, number, date or datetime only where every value fits without loss; else
    it stays text. A column may be null unless no null was seen in at least one row. A column named exactly `id` whose
    values are unique and never null is proposed as the key; nothing else is guessed. Extra columns are kept.
    """
    import polars as pl  # noqa: PLC0415

    from ingestion.quality.checking import read_data  # noqa: PLC0415

    frame = read_data(table)
    if ERROR_CODE in table.column_names:
        codes = pl.Series(table[ERROR_CODE].to_pylist(), dtype=pl.String)
        frame = frame.filter(codes.is_null()) if frame.width else frame
    drafts = [
        _draft_column(series)
        for series in frame.get_columns()
        if series.name not in RESERVED_NAMES and 0 < len(series.name) <= _COLUMN_NAME_CHARACTERS
    ]
    key = tuple(
        column.name
        for column, values in drafts
        if column.name == "id"
        and not column.nullable
        and column.type in _KEY_TYPES
        and values.n_unique() == len(values)
    )
    return ContractBody(name=name[:_NAME_CHARACTERS], key=key, columns=tuple(column for column, _ in drafts))


def _draft_column(source: "pl.Series") -> "tuple[Column, pl.Series]":
    kind = _type_of(source)
    values = _cast(source, kind).values
    column = Column(name=source.name, type=kind, nullable=len(source) == 0 or values.null_count() > 0)
    return column, values


def _type_of(source: "pl.Series") -> ColumnType:
    import polars as pl  # noqa: PLC0415

    dtype = source.dtype
    if dtype == pl.String:
        return next((kind for kind in _TRIED_TYPES if _fits(source, kind)), ColumnType.STRING)
    if isinstance(dtype, pl.Struct) or dtype == pl.Map:
        return ColumnType.OBJECT
    if isinstance(dtype, pl.List | pl.Array):
        return ColumnType.ARRAY
    by_type = {pl.Boolean: ColumnType.BOOLEAN, pl.Date: ColumnType.DATE, pl.Datetime: ColumnType.DATETIME}
    kind = by_type.get(dtype.base_type(), ColumnType.STRING)
    if dtype.is_integer():
        kind = ColumnType.INTEGER
    elif dtype.is_numeric():
        kind = ColumnType.NUMBER
    # A typed column may still hold what its contract type does not take, such as NaN or integers above 64 bits.
    return ColumnType.STRING if len(_cast(source, kind).invalid) else kind


def _fits(source: "pl.Series", kind: ColumnType) -> bool:
    for texts in (source.head(_HEAD_ROWS), source):
        cast = _cast(texts, kind)
        if len(cast.invalid) or cast.values.null_count() == len(texts) or _loses(texts, kind):
            return False
    return True


def _loses(texts: "pl.Series", kind: ColumnType) -> bool:
    import polars as pl  # noqa: PLC0415

    if kind is ColumnType.BOOLEAN:
        return bool(texts.str.contains(r"^\s*[01]\s*$").any())
    if kind is ColumnType.DATE:
        # Midnights are dates to a contract, but a column that writes them has times of day.
        return bool(texts.str.contains(":", literal=True).any())
    if kind not in (ColumnType.INTEGER, ColumnType.NUMBER):
        return False
    if texts.str.contains(_CODE).any():
        return True
    if kind is ColumnType.INTEGER:
        return False
    whole = texts.filter(texts.str.contains(r"^\s*-?[0-9]+\s*$")).str.strip_chars().cast(pl.Int64, strict=False)
    return bool(whole.null_count() or (whole.abs() > EXACT_INTEGER).any())


def _cast(source: "pl.Series", kind: ColumnType) -> "CastColumn":
    from ingestion.quality.casts import cast_columns  # noqa: PLC0415

    return cast_columns(source.to_frame(), [Column(name=source.name, type=kind)])[0]
