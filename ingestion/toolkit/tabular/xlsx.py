"""XLSX: one sheet as one span, cells typed."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import fastexcel
import polars as pl
import pyarrow as pa

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.assembly import Header, assemble, clean_header
from ingestion.toolkit.tabular.spans import DEFAULT_TARGET_BYTES, BadRow, Opener, Span, bad_row
from ingestion.toolkit.tabular.workbook import Workbook, describe_workbook, mark_errors

FORMAT = "xlsx"
MAX_INFLATED_BYTES = 1024 * 1024 * 1024
MAX_MEMBER_BYTES = 256 * 1024 * 1024
MAX_MEMBERS = 1_000
_EXACT_IN_DOUBLE = 2**53
_TIMES_OF_DAY = {False: date(1899, 12, 31), True: date(1904, 1, 1)}
"""The day on which a time without a date lies, by whether the workbook counts its days from 1904."""


def split(
    open_file: Opener,
    size: int,
    *,
    name: str,
    target_bytes: int = DEFAULT_TARGET_BYTES,
    sheet: str | None = None,
) -> list[Span]:
    """Return the named sheet, or the first visible one, as one span, whatever the target; a choice is noted.

    ConfigError file.malformed where the archive is damaged, unpacks to too much, or has no such sheet.
    """
    del target_bytes
    described = _check_archive(open_file, name=name)
    with open_file() as file, _told(name):
        book = fastexcel.read_excel(file.read())
    there = [one for one in described.sheets if one in book.sheet_names] or book.sheet_names
    if sheet is not None and sheet not in book.sheet_names:
        detail = f"there is no sheet {sheet!r}, there are {', '.join(book.sheet_names)}"
        raise ConfigError("file.malformed", name=name, detail=detail)
    if not there:
        raise ConfigError("file.empty", name=name)
    chosen = sheet or there[0]
    with _told(name):
        header = _header(book, chosen, name=name)
    layout = {"sheet": chosen}
    if chosen in described.sheets:
        layout["member"] = described.sheets[chosen]
    if described.begins_1904:
        layout["epoch"] = "1904"
    others = [f"{other} (hidden)" if other in described.hidden else other for other in there if other != chosen]
    note = f"Of {name} the sheet {chosen!r} is read, the first visible one; there are also: {', '.join(others)}."
    notes = (note,) if others and sheet is None else ()
    return [Span(FORMAT, 0, size, columns=header.columns, renamed=header.renamed, layout=layout, notes=notes)]


def read(open_file: Opener, span: Span, *, name: str) -> pa.Table:
    """Return the rows of the sheet below its header; empty rows are no records.

    Numbers that are all whole are integers; dates are timestamps, times without a date ISO text; a column of
    several kinds is text. A row with an Excel error (#DIV/0!), or with a formula that was never calculated, is an
    error row.
    """
    with open_file() as file:
        content = file.read()
    faults = list[tuple[str, str]]()
    if "member" in span.layout:
        with _told(name):
            content, faults = mark_errors(content, member=span.layout["member"])
    with _told(name):
        found, errors = _load_cells(fastexcel.read_excel(content), span.layout["sheet"])
    frame = found.rename(dict(zip(found.columns, span.columns, strict=False)))
    times_on = _TIMES_OF_DAY[span.layout.get("epoch") == "1904"]
    frame = frame.select(_plain(frame.to_series(index), times_on=times_on) for index in range(frame.width))
    frame = frame.with_row_index("_position")
    # Faults in the header are not among the errors: the last ones belong to each other.
    faults = faults[-len(errors) :] if len(faults) >= len(errors) else [("", "an error of Excel")] * len(errors)
    broken = dict[int, str]()
    for (position, column), (address, fault) in zip(errors, faults, strict=False):
        said = f"the cell {address} in the column {span.columns[column]!r} has {fault}"
        broken[position] = f"{broken[position]}; {said}" if position in broken else said
    is_empty = pl.all_horizontal(pl.exclude("_position").is_null()) & ~pl.col("_position").is_in(list(broken))
    frame = frame.filter(~is_empty).with_columns(pl.int_range(pl.len()).alias("_number") + span.first_row)
    bad: list[BadRow] = []
    for record in frame.filter(pl.col("_position").is_in(list(broken))).iter_rows(named=True):
        detail = broken[record["_position"]]
        raw = ", ".join("" if value is None else str(value) for key, value in record.items() if key[0] != "_")
        bad.append(bad_row(record["_number"], "row.malformed", raw=raw, detail=detail))
    good = frame.filter(~pl.col("_position").is_in(list(broken)))
    rows = good.get_column("_number").to_list()
    table = good.drop("_position", "_number").to_arrow(compat_level=pl.CompatLevel.newest())
    return assemble(table, rows, bad)


def _check_archive(open_file: Opener, *, name: str) -> Workbook:
    try:
        with open_file() as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            described = describe_workbook(archive)
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, ValueError, EOFError) as error:
        raise ConfigError("file.truncated", name=name, detail="the XLSX archive has no readable directory") from error
    largest = max((member.file_size for member in members), default=0)
    if (
        len(members) > MAX_MEMBERS
        or largest > MAX_MEMBER_BYTES
        or sum(m.file_size for m in members) > MAX_INFLATED_BYTES
    ):
        raise ConfigError("file.malformed", name=name, detail="it unpacks to more than is allowed")
    return described


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn what the readers of workbooks raise into file.malformed."""
    try:
        yield
    except (fastexcel.FastExcelError, zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError) as error:
        raise ConfigError("file.malformed", name=name, detail=_first_line(error)) from error


def _header(book: fastexcel.ExcelReader, sheet: str, *, name: str) -> Header:
    first = book.load_sheet(sheet, header_row=None, n_rows=1, dtypes="string")
    if not first.width or not first.height:
        raise ConfigError("file.empty", name=name)
    cells = first.to_polars().row(0)
    width = book.load_sheet(sheet, header_row=0, n_rows=0, dtypes="string").width
    found = [str(cell or "") for cell in cells]
    return clean_header([*found, *[""] * (width - len(found))][:width], name=name)


def _load_cells(book: fastexcel.ExcelReader, sheet: str) -> tuple[pl.DataFrame, list[tuple[int, int]]]:
    """Return the cells below the header, each column of one kind or text, and where errors are, in order.

    Left to itself the reader makes TRUE a 1 where it stands beside numbers, so what it joined is compared with the
    texts.
    """
    options: dict[str, Any] = {"header_row": 0, "schema_sample_rows": None}
    try:
        return _with_errors(book.load_sheet(sheet, dtype_coercion="strict", **options))
    except fastexcel.UnsupportedColumnTypeCombinationError:
        texts, errors = _with_errors(book.load_sheet(sheet, dtypes="string", **options))
    try:
        joined, _ = _with_errors(book.load_sheet(sheet, **options))
    except fastexcel.UnsupportedColumnTypeCombinationError:
        return texts, errors
    chosen = []
    for column, text in zip(joined.get_columns(), texts.get_columns(), strict=True):
        is_mixed = column.dtype.is_numeric() and text.cast(pl.Float64, strict=False).null_count() > text.null_count()
        chosen.append(text if is_mixed else column)
    return pl.DataFrame(chosen), errors


def _with_errors(sheet: fastexcel.ExcelSheet) -> tuple[pl.DataFrame, list[tuple[int, int]]]:
    batch, errors = sheet.to_arrow_with_errors()
    found = [error.offset_position for error in errors.errors] if errors is not None else []
    return pl.DataFrame(batch), sorted((int(row), int(column)) for row, column in found)


def _plain(series: pl.Series, *, times_on: date) -> pl.Series:
    """Return the column with whole numbers as integers, dates without a time as dates, times of day as ISO text."""
    values = series.drop_nulls()
    if series.dtype == pl.Float64 and len(values):
        is_whole = values.is_finite() & (values.abs() <= _EXACT_IN_DOUBLE) & (values == values.floor())
        return series.cast(pl.Int64) if is_whole.all() else series
    if series.dtype == pl.String:
        return series.str.replace(rf"^{times_on} (\d\d:\d\d:\d\d(?:\.\d+)?)$", "$1")
    if series.dtype == pl.Datetime and len(values):
        series = series.cast(pl.Datetime("us"))
        days = series.dt.date()
        is_time = days == times_on
        if is_time.any():
            times = series.dt.strftime("%H:%M:%S%.f")
            return times.zip_with(is_time.fill_null(False), series.dt.strftime("%Y-%m-%dT%H:%M:%S%.f"))
        if (series == days.cast(pl.Datetime("us"))).all():
            return days
    return series


def _first_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:200] or "the workbook is damaged"
