"""Column names as the rest of the system may use them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.spans import MAX_COLUMNS

MAX_NAME_LENGTH = 200
TIME_NAME = "__time"


@dataclass(frozen=True, slots=True)
class Header:
    """Cleaned column names in file order; `renamed` maps a changed name to the one in the file."""

    columns: tuple[str, ...]
    renamed: dict[str, str] = field(default_factory=dict)


def clean_header(found: Sequence[str], *, name: str) -> Header:
    """Return the column names to use for those found in file `name`.

    A name that begins with "_" (ours do, and Druid's __time) moves its underscores to the end, an empty one becomes
    `column_<position from 1>`, a very long one is cut; whatever then collides gets more underscores.
    ConfigError file.duplicate_column where the file itself names a column twice, file.too_many_columns beyond 5,000.
    """
    if len(found) > MAX_COLUMNS:
        raise ConfigError("file.too_many_columns", name=name, columns=len(found), limit=MAX_COLUMNS)
    seen: set[str] = set()
    for column in found:
        if column and column in seen:
            raise ConfigError("file.duplicate_column", name=name, column=column[:MAX_NAME_LENGTH])
        seen.add(column)
    taken = {column for column in found if _wanted(column, position=0) == column}
    columns, renamed = [], {}
    for position, column in enumerate(found, start=1):
        wanted = _wanted(column, position=position)
        if wanted != column:
            while wanted in taken:
                wanted = (
                    f"{wanted[: MAX_NAME_LENGTH - 1]}_" if len(wanted) < MAX_NAME_LENGTH else _shorten(wanted, taken)
                )
            taken.add(wanted)
            renamed[wanted] = column
        columns.append(wanted)
    return Header(tuple(columns), renamed)


def _wanted(column: str, *, position: int) -> str:
    bare = column.lstrip("_")
    if not bare:
        return f"column_{position}"
    if bare != column:
        return f"{bare[: MAX_NAME_LENGTH - 1]}_"
    return column[:MAX_NAME_LENGTH]


def _shorten(wanted: str, taken: set[str]) -> str:
    count = 2
    while f"{wanted[: MAX_NAME_LENGTH - 8]}_{count}" in taken:
        count += 1
    return f"{wanted[: MAX_NAME_LENGTH - 8]}_{count}"
