"""Rows as an Excel workbook of one sheet.

Imports pandas; so it is imported by functions that write workbooks, never at start.
"""

import math
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.clean.kinds import EXACT_INTEGER, as_text
from ingestion.toolkit.clean.sequence import RowSequence
from ingestion.toolkit.rows.spreadsheets import defuse
from ingestion.toolkit.rows.writers import python_rows
from ingestion.toolkit.scratch import scratch_folder

MAX_ROWS = 1_048_575
"""Without the header."""
MAX_COLUMNS = 16_384
MAX_CELL_CHARACTERS = 32_767
_BLOCK_BYTES = 1 << 20


def write_xlsx(rows: RowSequence, *, scratch: Path, after: int = 0, limit: int | None = None) -> Iterator[bytes]:
    """Yield a workbook; ConfigError where a sheet does not hold so many rows, columns or characters.

    Text is never a formula nor a link. Times are text in ISO 8601 and integers that Excel would round are text, because
    Excel has neither time zones nor more than 15 digits.
    """
    count = rows.total - after if limit is None else min(limit, rows.total - after)
    if count > MAX_ROWS:
        raise ConfigError("export.too_many_rows", rows=count, limit=MAX_ROWS)
    if len(rows.kinds) > MAX_COLUMNS:
        raise ConfigError("export.too_many_columns", columns=len(rows.kinds), limit=MAX_COLUMNS)
    with scratch_folder(scratch, "workbook") as folder:
        path = folder / "rows.xlsx"
        _write(rows, path, after=after, limit=limit)
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                yield block


def _write(rows: RowSequence, path: Path, *, after: int, limit: int | None) -> None:
    # constant_memory writes each row as it is finished; DataFrame.to_excel goes by columns and would lose all but one.
    options = {
        "constant_memory": True,
        "tmpdir": str(path.parent),
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
    }
    with pd.ExcelWriter(path, engine="xlsxwriter", engine_kwargs={"options": options}) as book:
        sheet = book.book.add_worksheet("rows")
        sheet.freeze_panes(1, 0)
        names = list(rows.kinds)
        for column, name in enumerate(names):
            sheet.write_string(0, column, defuse(name))
        number = 0
        for batch in rows.batches(after=after, limit=limit):
            for row in python_rows(batch):
                number += 1
                for column, value in enumerate(row):
                    if value is not None:
                        _write_cell(sheet, number, column, value, where=(after + number, names[column]))


def _write_cell(sheet: Any, row: int, column: int, value: Any, *, where: tuple[int, str]) -> None:
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _exact(value):
        sheet.write_number(row, column, value)
    else:
        text = (
            defuse(value) if isinstance(value, str) else str(value if not isinstance(value, date) else as_text(value))
        )
        if len(text) > MAX_CELL_CHARACTERS:
            raise ConfigError(
                "export.cell_too_long", row=where[0], column=where[1], found=len(text), limit=MAX_CELL_CHARACTERS
            )
        sheet.write_string(row, column, text)


def _exact(value: float) -> float:
    return EXACT_INTEGER if isinstance(value, int) else math.inf
