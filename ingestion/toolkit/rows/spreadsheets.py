"""Cells that a spreadsheet must not take for formulas."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

FORMULA = r"[=+\-@\t\r\n＝＋－＠]"  # noqa: RUF001 - the wide ones are read as the narrow ones
"""Beginning of a text that a spreadsheet would run; a regular expression of Python and of polars."""
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
"""A whole text that is a number, and so no formula whatever its sign."""
_FORMULA, _NUMBER = re.compile(FORMULA), re.compile(NUMBER)


def defused(text: "pl.Expr") -> "pl.Expr":
    """Return a column of texts, each as `defuse` gives it."""
    import polars as pl  # noqa: PLC0415 (heavy, and single values need none of it)

    is_formula = text.str.contains(f"^{FORMULA}") & ~text.str.contains(f"^(?:{NUMBER})$")
    return pl.when(is_formula).then("'" + text).otherwise(text)


def defuse(value: Any) -> Any:
    """Return the value; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
