"""XLSX: one sheet as one span, cells typed."""

import re
import zipfile
from datetime import time
from typing import Any

import fastexcel
import polars as pl
import pyarrow as pa

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.assembly import Header, assemble, clean_header
from ingestion.toolkit.tabular.spans import DEFAULT_TARGET_BYTES, BadRow, Opener, Span, bad_row

FORMAT = "xlsx"
MAX_INFLATED_BYTES = 1024 * 1024 * 1024
MAX_MEMBER_BYTES = 256 * 1024 * 1024
MAX_MEMBERS = 1_000
EXCEL_EPOCH_YEARS = (1899, 1900)
_EXACT_IN_DOUBLE = 2**53


def split(
    open_file: Opener,
    size: int,
    *,
    name: str,
    target_bytes: int = DEFAULT_TARGET_BYTES,
    sheet: str | None = None,
) -> list[Span]:
    """Return the named sheet, or the first one, as one span, whatever the target.

    ConfigError file.malformed where the archive is damaged, unpacks to too much, or has no such sheet.
    """
    del target_bytes
    _check_archive(open_file, name=name)
    book = _open_book(open_file, name=name)
    if sheet is not None and sheet not in book.sheet_names:
        detail = f"there is no sheet {sheet!r}, there are {', '.join(book.sheet_names)}"
        raise ConfigError("file.malformed", name=name, detail=detail)
    if not book.sheet_names:
        raise ConfigError("file.empty", name=name)
    chosen = sheet or book.sheet_names[0]
    header = _header(book, chosen, name=name)
    return [Span(FORMAT, 0, size, columns=header.columns, renamed=header.renamed, layout={"sheet": chosen})]


def read(open_file: Opener, span: Span, *, name: str) -> pa.Table:
    """Return the rows of the sheet below its header; empty rows are no records.

    Numbers that are all whole are integers; dates are timestamps, times without a date ISO text; a column of
    several kinds is text. A row with an Excel error (#DIV/0!) is an error row.
    """
    book = _open_book(open_file, name=name)
    sheet = _load(book, span.layout["sheet"], name=name, header_row=0, schema_sample_rows=None)
    found, errors = _with_errors(sheet)
    frame = found.rename(dict(zip(found.columns, span.columns, strict=False)))
    frame = frame.select(_plain(frame.to_series(index)) for index in range(frame.width))
    frame = frame.with_row_index("_position")
    broken = {position: detail for position, detail in errors}
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


def _check_archive(open_file: Opener, *, name: str) -> None:
    try:
        with open_file() as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise ConfigError("file.truncated", name=name, detail="the XLSX archive has no readable directory") from error
    largest = max((member.file_size for member in members), default=0)
    if (
        len(members) > MAX_MEMBERS
        or largest > MAX_MEMBER_BYTES
        or sum(m.file_size for m in members) > MAX_INFLATED_BYTES
    ):
        raise ConfigError("file.malformed", name=name, detail="it unpacks to more than is allowed")


def _open_book(open_file: Opener, *, name: str) -> fastexcel.ExcelReader:
    with open_file() as file:
        content = file.read()
    try:
        return fastexcel.read_excel(content)
    except fastexcel.FastExcelError as error:
        raise ConfigError("file.malformed", name=name, detail=_first_line(error)) from error


def _load(book: fastexcel.ExcelReader, sheet: str, *, name: str, **options: Any) -> fastexcel.ExcelSheet:
    try:
        loaded: fastexcel.ExcelSheet = book.load_sheet(sheet, **options)
    except fastexcel.FastExcelError as error:
        raise ConfigError("file.malformed", name=name, detail=_first_line(error)) from error
    return loaded


def _header(book: fastexcel.ExcelReader, sheet: str, *, name: str) -> Header:
    first = _load(book, sheet, name=name, header_row=None, n_rows=1, dtypes="string")
    if not first.width or not first.height:
        raise ConfigError("file.empty", name=name)
    cells = first.to_polars().row(0)
    width = _load(book, sheet, name=name, header_row=0, n_rows=0, dtypes="string").width
    found = [str(cell or "") for cell in cells]
    return clean_header([*found, *[""] * (width - len(found))][:width], name=name)


def _with_errors(sheet: fastexcel.ExcelSheet) -> tuple[Any, list[tuple[int, str]]]:
    """Return the cells as a polars frame and the rows that hold an Excel error, by position below the header."""
    batch, errors = sheet.to_arrow_with_errors()
    frame = pl.from_arrow(batch)
    found = []
    for error in errors.errors if errors is not None else []:
        found.append((int(error.offset_position[0]), str(error.detail)))
    return frame, found


def _plain(series: Any) -> Any:
    """Return the column with whole numbers as integers, dates without a time as dates, times of day as ISO text."""
    if series.dtype == pl.Float64 and series.drop_nulls().len():
        values = series.drop_nulls()
        if (values.is_finite() & (values.abs() <= _EXACT_IN_DOUBLE) & (values == values.floor())).all():
            return series.cast(pl.Int64)
    if series.dtype == pl.Datetime and series.drop_nulls().len():
        series = series.cast(pl.Datetime("us"))
        if series.drop_nulls().dt.year().is_in(EXCEL_EPOCH_YEARS).all():
            return series.dt.strftime("%H:%M:%S")
        if (series.drop_nulls().dt.time() == time()).all():
            return series.cast(pl.Date)
    return series


def _first_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:200] or "the workbook is damaged"
