"""Values of columns cast to their declared types: exactly, without loss, fast where the data are regular.

Every column goes through one fast expression. It may leave a value out but never misread one; only the values it
left out are read again with the whole grammar. This module is imported by functions that hold data already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import polars as pl

from ingestion.ports.schema import Column, ColumnType
from ingestion.quality.texts import TIMESTAMP, as_text, timestamp_of
from ingestion.quality.values import FIRST_AT, ISO_DATETIME, LAST_AT
from ingestion.toolkit.clean.kinds import DECLARED_KINDS, EXACT_INTEGER, Kind
from ingestion.toolkit.moments import day_of
from ingestion.toolkit.nested import is_json

_DTYPES: dict[Kind, pl.DataType] = {
    Kind.INTEGER: pl.Int64(),
    Kind.NUMBER: pl.Float64(),
    Kind.BOOLEAN: pl.Boolean(),
    Kind.DATE: pl.Date(),
    Kind.TIMESTAMP: TIMESTAMP,
}
_GUESS_ROWS = 512
_FIRST_PLAIN_YEAR = 1000
_SAFE_DIGITS = 15
"""That many digits come back from a number of 64 bits as they were."""
_FINER_FRACTION = r":[0-9]{2}[.,][0-9]{6}[0-9]*[1-9]"
_WHOLE = r"^([+-]?[0-9]+)\.0+$"
_DATE_GUARD = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_MIDNIGHT = "^([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]00:00(?::00(?:[.,]0+)?)?[Zz]?$"
_FAST_DATETIMES = tuple(
    (
        f"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}{sep}[0-9]{{2}}:[0-9]{{2}}:[0-5][0-9]{guard}{zone}$",
        f"%Y-%m-%d{sep}%H:%M:%S{fraction}{zone}",
    )
    for sep in ("T", " ")
    for guard, fraction in (("", ""), (r"\.[0-9]{3}", ".%3f"), (r"\.[0-9]{6}", ".%6f"))
    for zone in ("Z", "")
)


@dataclass(frozen=True, slots=True)
class CastColumn:
    """One column under its declared type; `invalid` holds the positions of values that the type cannot take.

    `values` is null there, and where the source is null or, for other types than string and any, blank.
    """

    column: Column
    source: pl.Series
    values: pl.Series
    invalid: pl.Series


def dtype_of(column: Column) -> pl.DataType:
    """Return the type in which a declared column is published; nested types are JSON text."""
    return _DTYPES.get(DECLARED_KINDS[column.type], pl.String())


def cast_columns(frame: pl.DataFrame, columns: Sequence[Column]) -> list[CastColumn]:
    """Return the declared columns that the frame has, cast; one parallel pass, then repairs where it left values out."""
    present = [column for column in columns if column.name in frame.columns]
    plans = [_fast_expression(column, frame[column.name]) for column in present]
    fast = (
        frame.lazy()
        .select([plan.alias(str(position)) for position, plan in enumerate(plans) if isinstance(plan, pl.Expr)])
        .collect()
    )
    return [
        _repaired(column, frame[column.name], fast[str(position)] if isinstance(plan, pl.Expr) else plan)
        for position, (column, plan) in enumerate(zip(present, plans, strict=True))
    ]


def cast_values(source: pl.Series, column: Column) -> tuple[pl.Series, pl.Series]:
    """Return the values as the declared type, and the positions of those it cannot take; these are null."""
    (cast,) = cast_columns(source.alias(column.name).to_frame(), [column])
    return cast.values, cast.invalid


def _repaired(column: Column, source: pl.Series, values: pl.Series) -> CastColumn:
    nothing = pl.Series([], dtype=pl.UInt32)
    left_out = values.null_count() - source.null_count()
    if not left_out or (source.dtype == pl.String and dtype_of(column) == pl.String and not _is_nested(column)):
        return CastColumn(column, source, values, nothing)
    suspects = (values.is_null() & source.is_not_null()).arg_true()
    if source.dtype != pl.String:
        return CastColumn(column, source, values, suspects)
    texts = source.gather(suspects).str.strip_chars()
    read = _read_slowly(column, texts)
    if read.null_count() < len(read):
        found = read.is_not_null()
        values = values.scatter(suspects.filter(found), read.filter(found))
    return CastColumn(column, source, values, suspects.filter(read.is_null() & (texts != "")))


def _is_nested(column: Column) -> bool:
    return column.type in (ColumnType.OBJECT, ColumnType.ARRAY)


def _fast_expression(column: Column, source: pl.Series) -> pl.Expr | pl.Series:
    if source.dtype == pl.Null:
        return _nulls(column, source)
    if source.dtype == pl.String:
        return _from_text(column, source)
    if dtype_of(column) == pl.String:
        return _to_text(column, source)
    return _from_typed(column, source)


def _nulls(column: Column, source: pl.Series) -> pl.Series:
    return pl.Series(source.name, [None], dtype=dtype_of(column)).new_from_index(0, len(source))


def _from_text(  # noqa: PLR0911 - one return per type
    column: Column, source: pl.Series
) -> pl.Expr | pl.Series:
    text = pl.col(column.name)
    match column.type:
        case ColumnType.INTEGER:
            return _plain_number(text, column).cast(pl.Int64, strict=False)
        case ColumnType.NUMBER:
            text = _plain_number(text, column)
            number = text.cast(pl.Float64, strict=False)
            return pl.when(number.is_finite()).then(number)
        case ColumnType.BOOLEAN:
            return pl.when(text == "true").then(pl.lit(True)).when(text == "false").then(pl.lit(False))
        case ColumnType.DATE if column.format is None:
            return pl.when(text.str.contains(_DATE_GUARD)).then(_day(text, "%Y-%m-%d"))
        case ColumnType.DATE:
            return _with_whole_year(_day(text, str(column.format)), text)
        case ColumnType.DATETIME if column.format is None:
            return _guessed_datetime(text, source)
        case ColumnType.DATETIME:
            return _with_whole_year(_timestamp(text, str(column.format)), text)
        case ColumnType.OBJECT | ColumnType.ARRAY:
            return _nulls(column, source)
    return text


def _plain_number(text: pl.Expr, column: Column) -> pl.Expr:
    """Return the texts with a decimal point and no grouping, as they are read; null where they are not in the format."""
    if column.format is None:
        return text
    group, decimal = column.format[1], column.format[5]
    bare = text.str.strip_chars()
    grammar = f"^[+-]?(?:[0-9]{{1,3}}(?:[{group}][0-9]{{3}})+|[0-9]+)(?:[{decimal}][0-9]+)?(?:[eE][+-]?[0-9]+)?$"
    plain = bare.str.replace_all(group, "", literal=True).str.replace(decimal, ".", literal=True)
    return pl.when(bare.str.contains(grammar)).then(plain)


def _guessed_datetime(text: pl.Expr, source: pl.Series) -> pl.Expr:
    # The guess only decides which values take the fast way; the guard makes that way read what the grammar would.
    head = source.head(_GUESS_ROWS)
    hits = [head.str.contains(guard).sum() for guard, _ in _FAST_DATETIMES]
    best = max(range(len(hits)), key=hits.__getitem__)
    if not hits[best]:
        return pl.when(False).then(_timestamp(text, "%Y"))
    guard, pattern = _FAST_DATETIMES[best]
    return pl.when(text.str.contains(guard)).then(_timestamp(text, pattern))


def _timestamp(text: pl.Expr, pattern: str) -> pl.Expr:
    # cache=False: the cache of parsed texts costs more than it saves on columns of mostly different moments.
    has_zone = any(directive in pattern for directive in ("%z", "%:z", "%#z", "%+", "%Z"))
    moment = text.str.to_datetime(pattern, strict=False, time_unit="us", cache=False)
    moment = moment if has_zone else moment.dt.replace_time_zone("UTC")
    return pl.when(moment.is_between(FIRST_AT, LAST_AT)).then(moment)


def _day(text: pl.Expr, pattern: str) -> pl.Expr:
    return day_of(text.str.to_date(pattern, strict=False, cache=False))


def _with_whole_year(read: pl.Expr, text: pl.Expr) -> pl.Expr:
    # %Y takes the year 24 from "03/04/24"; a year before 1000 counts only where all its four digits are there.
    year = read.dt.year()
    is_whole = (year >= _FIRST_PLAIN_YEAR) | text.str.contains(year.cast(pl.String).str.zfill(4), literal=True)
    return pl.when(is_whole).then(read)


def _read_slowly(column: Column, texts: pl.Series) -> pl.Series:
    """Read every text with the whole grammar of the type; null where it does not fit."""
    frame, text = texts.alias("text").to_frame(), pl.col("text")
    read: pl.Expr | pl.Series
    match column.type:
        case ColumnType.INTEGER:
            # pandas writes whole numbers so where a column has gaps.
            read = _plain_number(text, column).str.replace(_WHOLE, "$1").cast(pl.Int64, strict=False)
        case ColumnType.BOOLEAN:
            lower = text.str.to_lowercase()
            read = pl.when(lower.is_in(["true", "1"])).then(True).when(lower.is_in(["false", "0"])).then(False)
        case ColumnType.DATE if column.format is None:
            read = _day(pl.coalesce(text.str.extract(_MIDNIGHT), text.str.extract(f"({_DATE_GUARD})")), "%Y-%m-%d")
        case ColumnType.DATETIME if column.format is None:
            return _read_iso_datetimes(frame)
        case ColumnType.OBJECT | ColumnType.ARRAY:
            kind = dict if column.type is ColumnType.OBJECT else list
            fits = pl.Series([value is not None and is_json(value, kind) for value in texts], dtype=pl.Boolean)
            return texts.set(~fits, None)
        case _:
            read = _from_text(column.model_copy(update={"name": "text"}), texts)
    return frame.lazy().select(read.alias("text")).collect()["text"]


def _read_iso_datetimes(frame: pl.DataFrame) -> pl.Series:
    parts = frame.select(pl.col("text").str.extract_groups(ISO_DATETIME).alias("parts")).unnest("parts")
    day, clock, seconds, fraction, zone = (pl.col(str(position)) for position in range(1, 6))
    filled = pl.concat_str(
        day,
        pl.lit("T"),
        clock.fill_null("00:00"),
        pl.lit(":"),
        seconds.fill_null("00"),
        pl.lit("."),
        (fraction.fill_null("") + "000000").str.slice(0, 6),
        pl.when(zone.is_null() | zone.is_in(["Z", "z"])).then(pl.lit("+00:00")).otherwise(zone),
    )
    return parts.lazy().select(_timestamp(filled, "%Y-%m-%dT%H:%M:%S.%6f%#z").alias("text")).collect()["text"]


def _to_text(column: Column, source: pl.Series) -> pl.Series:
    is_object = isinstance(source.dtype, pl.Struct) or source.dtype == pl.Map
    is_array = isinstance(source.dtype, pl.List | pl.Array)
    fits = {ColumnType.OBJECT: is_object, ColumnType.ARRAY: is_array}.get(column.type, True)
    if not fits:
        return _nulls(column, source)
    text = as_text(source)
    # A map with a key that stands twice is no object; as pairs it would be an array, so it is refused by name.
    return text.set(text.str.starts_with("["), None) if column.type is ColumnType.OBJECT else text


def cuts_digits(column: Column, source: pl.Series) -> bool:
    """Return whether some value has digits, or fractions of a second, that the column's type does not keep."""
    dtype = source.dtype
    if column.type is ColumnType.DATETIME and isinstance(dtype, pl.Datetime):
        return dtype.time_unit == "ns" and bool((source.to_physical() % 1000 != 0).any())
    if column.type is ColumnType.DATETIME and dtype == pl.String and column.format is None:
        return bool(source.str.contains(_FINER_FRACTION).any())
    if column.type is not ColumnType.NUMBER:
        return False
    if dtype.is_integer():
        large = source.filter(source.is_not_null() & ~source.is_between(-EXACT_INTEGER, EXACT_INTEGER))
        return any(int(float(item)) != item for item in large.to_list())
    if dtype != pl.String and not dtype.is_decimal():
        return False
    texts = source.cast(pl.String).str.strip_chars().alias("text")
    if dtype == pl.String and column.format is not None:
        texts = texts.to_frame().select(_plain_number(pl.col("text"), column)).to_series()
    return _cuts_written(texts.alias("text"))


def _cuts_written(texts: pl.Series) -> bool:
    text, number = pl.col("text"), pl.col("text").cast(pl.Float64, strict=False)
    suspects = (
        texts.to_frame()
        .lazy()
        .filter((text.str.len_bytes() > _SAFE_DIGITS) | ((number == 0) & text.str.contains("^[^eE]*[1-9]")))
        .select(text, number=number)
        .filter(pl.col("number").is_finite())
        .select(text, written=pl.col("number").cast(pl.String))
        .filter(text != pl.col("written"))
        .collect()
    )
    return any(Decimal(given) != Decimal(written) for given, written in suspects.iter_rows())


def _from_typed(  # noqa: PLR0911 - one return per type
    column: Column, source: pl.Series
) -> pl.Expr | pl.Series:
    value, dtype = pl.col(column.name), source.dtype
    match column.type:
        case ColumnType.INTEGER if dtype.is_float():
            whole = value.is_finite() & (value == value.floor()) & (value.abs() <= EXACT_INTEGER)
            return pl.when(whole).then(value).cast(pl.Int64, strict=False)
        case ColumnType.INTEGER if dtype.is_decimal():
            return pl.when(value == value.floor()).then(value).cast(pl.Int64, strict=False)
        case ColumnType.INTEGER if dtype.is_integer():
            return value.cast(pl.Int64, strict=False)
        case ColumnType.NUMBER if dtype.is_numeric():
            number = value.cast(pl.Float64, strict=False)
            return pl.when(number.is_finite()).then(number)
        case ColumnType.BOOLEAN if dtype == pl.Boolean:
            return value
        case ColumnType.BOOLEAN if dtype.is_numeric():
            return pl.when(value == 1).then(pl.lit(True)).when(value == 0).then(pl.lit(False))
        case ColumnType.DATE if dtype == pl.Date:
            return day_of(value)
        case ColumnType.DATE if isinstance(dtype, pl.Datetime):
            moment = timestamp_of(value, dtype)
            return pl.when(moment == moment.dt.truncate("1d")).then(moment.dt.date())
        case ColumnType.DATETIME if isinstance(dtype, pl.Datetime):
            return timestamp_of(value, dtype)
        case ColumnType.DATETIME if dtype == pl.Date:
            return day_of(value).cast(TIMESTAMP)
    return _nulls(column, source)


def publish_undeclared(source: pl.Series) -> pl.Series:
    """Return a column no contract declares in a type every destination takes: nested and exotic ones as text."""
    dtype, value = source.dtype, pl.col(source.name)
    if dtype in (pl.String, pl.Int64, pl.UInt64, pl.Float64, pl.Boolean):
        return source
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        inside = timestamp_of(value, dtype) if isinstance(dtype, pl.Datetime) else day_of(value)
        published = source.to_frame().select(inside.alias(source.name)).to_series()
        return published if published.null_count() == source.null_count() else as_text(source)
    if dtype.is_integer() and dtype not in (pl.Int128, pl.UInt128):
        return source.cast(pl.Int64)
    if dtype.is_float():
        return source.cast(pl.Float64)
    return as_text(source)
