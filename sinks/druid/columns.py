"""The columns of a datasource: how each of ours is called and typed there. Pure.

Findings on a real 33.0.0: a comma or a line break in a name makes the task fail at its end, and a name of more than
128 characters cannot be queried; `long` cuts 1.5 to 1 and clamps what is too large without a word, `double` takes no
booleans, so every value is written in the type of its column; JSON text becomes COMPLEX<json> through try_parse_json.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ingestion.ports.batch import CLEAN_COLUMNS, PAGE, PART, ROW, RUN
from ingestion.ports.schema import ColumnType, ContractBody

LONGEST_NAME = 128
_BREAKS_TASKS = re.compile(r"[,\r\n]")
_HASH_DIGITS = 8


class DruidType(StrEnum):
    """The types of dimensions that we use."""

    STRING = "string"
    LONG = "long"
    DOUBLE = "double"
    JSON = "json"


_DECLARED = {
    ColumnType.INTEGER: DruidType.LONG,
    ColumnType.NUMBER: DruidType.DOUBLE,
    ColumnType.BOOLEAN: DruidType.LONG,
    ColumnType.DATE: DruidType.LONG,
    ColumnType.DATETIME: DruidType.LONG,
    ColumnType.OBJECT: DruidType.JSON,
    ColumnType.ARRAY: DruidType.JSON,
}
_OWN = {RUN: DruidType.LONG, PART: DruidType.STRING, ROW: DruidType.LONG, PAGE: DruidType.LONG}
_FOUND = {
    "int64": DruidType.LONG,
    "int32": DruidType.LONG,
    "double": DruidType.DOUBLE,
    "bool": DruidType.LONG,
    "date32[day]": DruidType.LONG,
}


@dataclass(frozen=True, slots=True)
class DruidColumn:
    """One column: its name in our parts, in Druid, and its type there."""

    source: str
    name: str
    type: DruidType
    is_declared: bool = True


def type_of_arrow(kind: str) -> DruidType:
    """Return the type that a column of our parts gets by its Arrow type; uint64 does not fit into a long."""
    if kind.startswith("timestamp"):
        return DruidType.LONG
    return _FOUND.get(kind, DruidType.STRING)


def druid_columns(contract: ContractBody, found: Iterable[Mapping[str, str]]) -> tuple[DruidColumn, ...]:
    """Return the columns of the datasource, the contract's first, then those that only the parts have.

    `found` gives for each part the Arrow type by column name. Where parts disagree about an undeclared column it is
    text. Names that Druid cannot bear are changed, always in the same way, and stay unique.
    """
    types: dict[str, DruidType] = {
        column.name: _DECLARED.get(column.type, DruidType.STRING) for column in contract.columns
    }
    declared = set(types)
    for part in found:
        for name, kind in part.items():
            if name in declared or name in CLEAN_COLUMNS:
                continue
            seen = type_of_arrow(kind)
            types[name] = seen if types.get(name, seen) is seen else DruidType.STRING
    types |= _OWN
    taken = set(types)
    columns = []
    for name, kind in types.items():
        safe = safe_name(name, taken=taken)
        taken.add(safe)
        columns.append(DruidColumn(name, safe, kind, is_declared=name in declared or name in _OWN))
    return tuple(columns)


def safe_name(name: str, *, taken: Iterable[str] = ()) -> str:
    """Return a name that Druid can load and be asked for; a changed one ends in a hash of the original."""
    if not _BREAKS_TASKS.search(name) and len(name) <= LONGEST_NAME and name != "__time":
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    stem = _BREAKS_TASKS.sub("_", name).lstrip("_")[: LONGEST_NAME - _HASH_DIGITS - 1]
    made, count = f"{stem}_{digest}", 1
    while made in set(taken):
        count += 1
        made = f"{stem[: LONGEST_NAME - _HASH_DIGITS - 4]}_{digest}{count}"
    return made


def is_changed(columns: Iterable[DruidColumn]) -> bool:
    """Return whether any column is called otherwise in Druid than in our parts."""
    return any(column.source != column.name for column in columns)
