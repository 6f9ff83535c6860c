"""A first contract, inferred from data."""

from typing import TYPE_CHECKING, Any

from ingestion.ports.batch import DELIMITER, ERROR_CODE
from ingestion.ports.schema import NUMBER_FORMATS, Column, ColumnType, ContractBody
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
_CODE = r"^\s*(?:\+|-?0[0-9])"
"""Phone numbers and codes with leading zeros are text: as numbers they would not be what they were."""
DECIMAL_COMMA = NUMBER_FORMATS[0]
_CODE_COMMA = r"^\s*(?:\+|-?0[0-9.])"
_SURE_COMMA = r"^\s*-?(?:[0-9.]*\.[0-9]{3},[0-9]+|[0-9]+,(?:[0-9]{1,2}|[0-9]{4,})|0,[0-9]+)\s*$"


def draft_contract(table: "pa.Table", *, name: str) -> ContractBody:
    """Return a contract that accepts every readable row of this table, as a start for a person.

    A text column becomes boolean, integer, number, date or datetime only where every value fits without loss; else
    it stays text. A column may be null unless no null was seen in at least one row. No key is guessed: rows are
    dropped only for one that a person declared. Extra columns are kept.
    """
    import polars as pl  # noqa: PLC0415

    from ingestion.quality.checking import read_data  # noqa: PLC0415

    frame = read_data(table)
    if ERROR_CODE in table.column_names:
        codes = pl.Series(table[ERROR_CODE].to_pylist(), dtype=pl.String)
        frame = frame.filter(codes.is_null()) if frame.width else frame
    # Where commas stand between cells, "1,5" in quotes may as well be two values.
    may_have_commas = (table.schema.metadata or {}).get(DELIMITER, b",") != b","
    drafts = [
        _draft_column(series, may_have_commas=may_have_commas)
        for series in frame.get_columns()
        if series.name not in RESERVED_NAMES and 0 < len(series.name) <= _COLUMN_NAME_CHARACTERS
    ]
    return ContractBody(name=name[:_NAME_CHARACTERS], columns=tuple(drafts))


def _draft_column(source: "pl.Series", *, may_have_commas: bool) -> Column:
    kind, pattern = _type_of(source), None
    if kind is ColumnType.STRING and may_have_commas and _has_decimal_commas(source):
        kind, pattern = ColumnType.NUMBER, DECIMAL_COMMA
    values = _cast(source, kind, pattern=pattern).values
    return Column(name=source.name, type=kind, nullable=len(source) == 0 or values.null_count() > 0, format=pattern)


def _has_decimal_commas(source: "pl.Series") -> bool:
    """Return whether all texts are numbers with a decimal comma, and one shows that it is no comma between thousands."""
    import polars as pl  # noqa: PLC0415

    if (
        source.dtype != pl.String
        or not source.str.contains(_SURE_COMMA).any()
        or source.str.contains(_CODE_COMMA).any()
    ):
        return False
    is_whole = not len(_cast(source, ColumnType.NUMBER, pattern=DECIMAL_COMMA).invalid)
    return is_whole and not _cuts(source, ColumnType.NUMBER, pattern=DECIMAL_COMMA)


def _type_of(source: "pl.Series") -> ColumnType:
    import polars as pl  # noqa: PLC0415

    dtype = source.dtype
    if dtype == pl.String:
        return next((kind for kind in _TRIED_TYPES if _fits(source, kind)), ColumnType.STRING)
    if isinstance(dtype, pl.Struct):
        return ColumnType.OBJECT
    if isinstance(dtype, pl.List | pl.Array):
        return ColumnType.ARRAY
    by_type: dict[Any, ColumnType] = {
        pl.Boolean: ColumnType.BOOLEAN,
        pl.Date: ColumnType.DATE,
        pl.Datetime: ColumnType.DATETIME,
        pl.Map: ColumnType.OBJECT,
    }
    kind = by_type.get(dtype.base_type(), ColumnType.STRING)
    if dtype.is_integer():
        kind = ColumnType.INTEGER
    elif dtype.is_numeric():
        kind = ColumnType.NUMBER
    # A typed column may still hold what its contract type does not take, such as NaN or integers above 64 bits.
    return ColumnType.STRING if len(_cast(source, kind).invalid) or _cuts(source, kind) else kind


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
        return _cuts(texts, kind)
    if texts.str.contains(_CODE).any() or _cuts(texts, kind):
        return True
    if kind is ColumnType.INTEGER:
        # 1.0 is one, but a column that writes it has numbers.
        return bool(texts.str.contains(".", literal=True).any())
    whole = texts.filter(texts.str.contains(r"^\s*-?[0-9]+\s*$")).str.strip_chars().cast(pl.Int64, strict=False)
    return bool(whole.null_count() or (whole.abs() > EXACT_INTEGER).any())


def _cast(source: "pl.Series", kind: ColumnType, *, pattern: str | None = None) -> "CastColumn":
    from ingestion.quality.casts import cast_columns  # noqa: PLC0415

    return cast_columns(source.to_frame(), [Column(name=source.name, type=kind, format=pattern)])[0]


def _cuts(source: "pl.Series", kind: ColumnType, *, pattern: str | None = None) -> bool:
    from ingestion.quality.casts import cuts_digits  # noqa: PLC0415

    return cuts_digits(Column(name=source.name, type=kind, format=pattern), source)
