"""The words the readers share: an opener, a span of a file, a record that cannot be read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias

from ingestion.ports.messages import sentence

Opener: TypeAlias = Callable[[], BinaryIO]
"""Gives the whole file as a new seekable binary stream; whoever opens it closes it."""

DEFAULT_TARGET_BYTES = 64 * 1024 * 1024
MAX_COLUMNS = 5_000
MAX_RECORD_BYTES = 16 * 1024 * 1024
MAX_JSON_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a file that is read by itself: whole records, from byte `offset` on for `length` bytes.

    `first_row` is the number, in the file, of its first record; `row_count` counts its records, readable or not,
    and is None where only reading tells. `layout` is JSON: what the format's `read` needs besides (dialect,
    columns, row groups, sheet). `renamed` maps each changed column name to the one in the file.
    """

    format: str
    offset: int
    length: int
    first_row: int = 0
    row_count: int | None = None
    columns: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    layout: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Sentences about what was chosen, for the run that plans; they are not kept with the span."""

    def to_data(self) -> dict[str, Any]:
        """Return the span as JSON values."""
        return {
            "format": self.format,
            "offset": self.offset,
            "length": self.length,
            "first_row": self.first_row,
            "row_count": self.row_count,
            "columns": list(self.columns),
            "renamed": dict(self.renamed),
            "layout": dict(self.layout),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Span":
        """Return the span that `to_data` described; other keys are ignored."""
        return cls(
            format=data["format"],
            offset=data["offset"],
            length=data["length"],
            first_row=data["first_row"],
            row_count=data["row_count"],
            columns=tuple(data["columns"]),
            renamed=dict(data["renamed"]),
            layout=dict(data["layout"]),
        )


@dataclass(frozen=True, slots=True)
class BadRow:
    """A record that cannot be read: its number in the file, the code, the sentence, and the text as it stood."""

    row: int
    code: str
    message: str
    raw: str


def bad_row(row: int, code: str, *, raw: str, **values: Any) -> BadRow:
    """Return a BadRow whose message is the code's sentence."""
    return BadRow(row, code, sentence(code, values), raw)


def raw_json(text: str) -> str:
    """Return the text of an unreadable record as a JSON string, the form of the `_raw` column."""
    return json.dumps(text, ensure_ascii=False)


def raw_text(raw: str) -> str:
    """Return the text of an unreadable record from its `_raw` form."""
    return str(json.loads(raw))
