"""The SQL that makes the view `rows` of Parquet files whose columns need not agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion.toolkit.clean.kinds import Kind, PartShape
from ingestion.toolkit.duck.guard import VIEW

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Positions = npt.NDArray[np.uint32]

_ALL = "every_version"
_ORDER, _ROW = "__order", "__row"
_TYPES = {
    Kind.TEXT: "VARCHAR",
    Kind.INTEGER: "BIGINT",
    Kind.UNSIGNED: "UBIGINT",
    Kind.NUMBER: "DOUBLE",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.DATE: "DATE",
    Kind.TIMESTAMP: "TIMESTAMPTZ",
    Kind.JSON: "VARCHAR",
    Kind.NOTHING: "VARCHAR",
}


@dataclass(frozen=True, slots=True)
class ViewFile:
    """One Parquet file and what its footer tells."""

    path: Path
    shape: PartShape


def write_replaced(replaced: "Mapping[int, Positions]", path: Path) -> Path | None:
    """Write down which rows of which files are replaced by others, for the view; None where none is."""
    import numpy as np  # noqa: PLC0415 (heavy)
    import polars as pl  # noqa: PLC0415

    if not replaced:
        return None
    order = np.repeat(list(replaced), [len(rows) for rows in replaced.values()])
    pl.DataFrame({_ORDER: order, _ROW: np.concatenate(list(replaced.values()))}).write_parquet(path)
    return path


def view_statements(files: Sequence[ViewFile], *, kinds: Mapping[str, Kind], replaced: Path | None = None) -> list[str]:
    """Return the statements that make the view `rows` of these files, given in their order.

    The columns are those of `kinds`, each in its agreed type; two names that differ in case alone, which SQL does not
    tell apart, get a number. Rows that the file `replaced` names are left out.
    """
    names = _sql_names(kinds)
    groups: dict[tuple[tuple[str, Kind], ...], list[int]] = {}
    for number, file in enumerate(files):
        groups.setdefault(tuple((column.name, column.kind) for column in file.shape.columns), []).append(number)
    selects = [
        _select([files[number].path for number in numbers], columns, order=numbers, kinds=kinds, names=names)
        for columns, numbers in groups.items()
    ] or [_select_nothing(kinds, names)]
    statements = [f"CREATE VIEW {_ALL} AS " + " UNION ALL ".join(selects)]
    source = _ALL
    if replaced is not None:
        source = f"{_ALL} ANTI JOIN read_parquet({literal(str(replaced))}) USING ({_ORDER}, {_ROW})"
    columns_sql = ", ".join(quoted(names[name]) for name in kinds)
    return [*statements, f"CREATE VIEW {VIEW} AS SELECT {columns_sql} FROM {source}"]  # noqa: S608 (quoted names)


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever it holds."""
    return '"{}"'.format(name.replace('"', '""'))


def literal(text: str) -> str:
    """Return a text as SQL takes it, whatever it holds."""
    return "'{}'".format(text.replace("'", "''"))


def _sql_names(kinds: Mapping[str, Kind]) -> dict[str, str]:
    """Return the names in the view."""
    names: dict[str, str] = {}
    taken = {_ORDER, _ROW}
    for name in kinds:
        chosen, number = name, 1
        while chosen.lower() in taken:
            chosen, number = f"{name}_{number}", number + 1
        taken.add(chosen.lower())
        names[name] = chosen
    return names


def _select(
    paths: Sequence[Path],
    columns: Sequence[tuple[str, Kind]],
    *,
    order: Sequence[int],
    kinds: Mapping[str, Kind],
    names: Mapping[str, str],
) -> str:
    # By position: DuckDB renames columns whose names differ in case alone.
    places = {name: f"c{place}" for place, (name, _) in enumerate(columns)}
    stored = dict(columns)
    chosen = [
        f"{_expression(places.get(name), stored.get(name), kind)} AS {quoted(names[name])}"
        for name, kind in kinds.items()
    ]
    chosen.append(f"list_extract({list(order)}::INTEGER[], file_index::INTEGER + 1) AS {_ORDER}")
    chosen.append(f"file_row_number AS {_ROW}")
    listed = ", ".join(literal(str(path)) for path in paths)
    aliases = ", ".join(f"c{place}" for place in range(len(columns)))
    return f"SELECT {', '.join(chosen)} FROM read_parquet([{listed}]) AS stored({aliases})"  # noqa: S608 (quoted)


def _select_nothing(kinds: Mapping[str, Kind], names: Mapping[str, str]) -> str:
    chosen = [f"NULL::{_TYPES[kind]} AS {quoted(names[name])}" for name, kind in kinds.items()]
    return f"SELECT {', '.join([*chosen, f'0 AS {_ORDER}', f'0 AS {_ROW}'])} WHERE false"  # noqa: S608 (quoted names)


def _expression(place: str | None, stored: Kind | None, wanted: Kind) -> str:
    """Return how a stored column is read as the agreed kind; text as `rows.kinds.as_text` writes it."""
    if place is None or stored is Kind.NOTHING:
        return f"NULL::{_TYPES[wanted]}"
    if stored is Kind.TIMESTAMP and wanted is Kind.TEXT:
        moment = f"{place}::TIMESTAMPTZ"
        fraction = f"CASE WHEN microsecond({moment}) % 1000000 = 0 THEN '' ELSE strftime({moment}, '.%f') END"
        return f"strftime({moment}, '%Y-%m-%dT%H:%M:%S') || {fraction} || '+00:00'"
    return f"{place}::{_TYPES[wanted]}"
