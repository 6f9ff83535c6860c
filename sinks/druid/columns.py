"""The columns of a datasource: how each of ours is called and typed there. Pure.

Findings on a real 33.0.0: a comma or a line break in a name makes the task fail at its end, an empty one is refused,
and one of more than 128 UTF-16 units cannot be queried; `long` cuts 1.5 to 1 and clamps what is too large without a
word, `double` takes no booleans, so every value is written in the type of its column; JSON text becomes COMPLEX<json>
through try_parse_json, and what is no JSON becomes null without a word.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ingestion.ports.batch import CLEAN_COLUMNS
from ingestion.ports.schema import ContractBody
from ingestion.toolkit.clean.kinds import LINEAGE, Kind, declared_kinds, kind_of_arrow

LONGEST_NAME = 128
RESERVED = "__headgate"
"""Beginning of the names that a load needs beside those of the data."""
_BREAKS_TASKS = re.compile(r"[,\r\n]")
_HASH_DIGITS = 8


class DruidType(StrEnum):
    """The types of dimensions that we use."""

    STRING = "string"
    LONG = "long"
    DOUBLE = "double"
    JSON = "json"


_TYPES = {
    Kind.TEXT: DruidType.STRING,
    Kind.INTEGER: DruidType.LONG,
    Kind.UNSIGNED: DruidType.STRING,  # does not fit into a long
    Kind.NUMBER: DruidType.DOUBLE,
    Kind.BOOLEAN: DruidType.LONG,
    Kind.DATE: DruidType.LONG,
    Kind.TIMESTAMP: DruidType.LONG,
    Kind.JSON: DruidType.JSON,
    Kind.NOTHING: DruidType.STRING,
}
_TEXTS = frozenset({Kind.TEXT, Kind.NOTHING})
_OWN = {name: _TYPES[kind] for name, kind in LINEAGE.items()}


@dataclass(frozen=True, slots=True)
class DruidColumn:
    """One column: its name in our parts, in Druid, and its type there."""

    source: str
    name: str
    type: DruidType
    is_declared: bool = True


def types_of_part(contract: ContractBody, arrow_types: Mapping[str, str]) -> dict[str, DruidType]:
    """Return the types of a part's columns: as its own contract declares them, else by their Arrow types."""
    declared = declared_kinds(contract.columns)
    return {
        name: _TYPES[declared.get(name) or kind_of_arrow(arrow_type) or Kind.TEXT]
        for name, arrow_type in arrow_types.items()
    }


def druid_columns(contract: ContractBody, parts: Iterable[Mapping[str, DruidType]]) -> tuple[DruidColumn, ...]:
    """Return the columns of the datasource, the contract's first, then those that only the parts have.

    `parts` gives for each part its types by column name. Where parts disagree about a column it is text, which can
    hold them all: of an undeclared one, and of a declared one that was something else under an earlier contract
    (whole numbers in what is a number now stay numbers). Names that Druid cannot bear are changed, always in the
    same way, and stay unique.
    """
    types = {name: _TYPES[kind] for name, kind in declared_kinds(contract.columns).items()}
    declared = set(types)
    for part in parts:
        for name, kind in part.items():
            if name in CLEAN_COLUMNS:
                continue
            seen = types.get(name, kind)
            is_widened = name in declared and (seen, kind) == (DruidType.DOUBLE, DruidType.LONG)
            types[name] = seen if seen is kind or is_widened else DruidType.STRING
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
    is_plain = not _BREAKS_TASKS.search(name) and 0 < _length(name) <= LONGEST_NAME
    if is_plain and name != "__time" and not name.startswith(RESERVED):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    stem = _BREAKS_TASKS.sub("_", name).lstrip("_") or "column"
    used, count = set(taken), 1
    while (made := _joined(stem, digest if count == 1 else f"{digest}{count}")) in used:
        count += 1
    return made


def is_changed(columns: Iterable[DruidColumn]) -> bool:
    """Return whether any column is called otherwise in Druid than in our parts."""
    return any(column.source != column.name for column in columns)


def can_be_read_as_parquet(columns: Iterable[DruidColumn], parts: Iterable[Mapping[str, str]]) -> bool:
    """Return whether Druid reads Parquet files of these Arrow types as the columns say: text only from text.

    What it makes of other values in a column of text (a uint64, a moment) is not what we would write.
    """
    columns, parts = tuple(columns), tuple(parts)
    texts = [column.source for column in columns if column.type is DruidType.STRING]
    return not is_changed(columns) and all(
        kind_of_arrow(part[name]) in _TEXTS for part in parts for name in texts if name in part
    )


def columns_hash(columns: Sequence[DruidColumn]) -> str:
    """Return what tells these columns from others: eight hex digits over their names and types."""
    told = json.dumps([[column.source, column.name, column.type] for column in columns])
    return hashlib.sha256(told.encode()).hexdigest()[:_HASH_DIGITS]


def as_notes(columns: Iterable[DruidColumn]) -> list[list[Any]]:
    """Return the columns as JSON values."""
    return [[item.source, item.name, item.type.value, item.is_declared] for item in columns]


def from_notes(notes: Iterable[Sequence[Any]]) -> tuple[DruidColumn, ...]:
    """Return the columns that `as_notes` wrote."""
    return tuple(DruidColumn(source, name, DruidType(kind), own) for source, name, kind, own in notes)


def _length(name: str) -> int:
    # Druid counts as Java does: what lies beyond the basic plane is two.
    return len(name.encode("utf-16-le", "surrogatepass")) // 2


def _joined(stem: str, digest: str) -> str:
    while _length(stem) > LONGEST_NAME - len(digest) - 1:
        stem = stem[:-1]
    return f"{stem}_{digest}"
