"""In what form rows lie in files: format, and the folders of their partition."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from ingestion.toolkit.lake.keys import MAX_SEGMENT_BYTES

Format = Literal["parquet", "jsonl", "csv"]
Scalar: TypeAlias = str | int | bool | None
"""The value of a partition as JSON has it; a date is ISO text."""
Partition: TypeAlias = tuple[tuple[str, Scalar], ...]
"""The folders of a file, from the outermost on: name and value."""

NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"
DAY_SUFFIX = "_day"


class UnfitPartitionError(Exception):
    """The rows cannot be split into folders in this way; its text says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of a run's files."""

    format: Format = "parquet"
    is_gzipped: bool = False
    partition_by: tuple[str, ...] = ()
    defuse_formulas: bool = True

    @property
    def extension(self) -> str:
        """Return how the names of files end."""
        return f".{self.format}{'.gz' if self.is_gzipped else ''}"

    @property
    def is_copy(self) -> bool:
        """Return whether a clean part is such a file already."""
        return self.format == "parquet" and not self.partition_by

    def as_json(self) -> dict[str, Any]:
        """Return the form as a manifest says it."""
        found: dict[str, Any] = {"format": self.format}
        if self.format != "parquet":
            found["gzip"] = self.is_gzipped
        if self.format == "csv":
            found["defuse_formulas"] = self.defuse_formulas
        if self.partition_by:
            found["partition_by"] = list(self.partition_by)
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Layout":
        """Return the form that a manifest says; one that says none is of a version that only copied."""
        return cls(
            format=found.get("format", "parquet"),
            is_gzipped=bool(found.get("gzip")),
            partition_by=tuple(found.get("partition_by", ())),
            defuse_formulas=bool(found.get("defuse_formulas", True)),
        )


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file at the destination: its rows, and what it must be byte for byte.

    `partition` holds the values that stand in its folders and not in its rows; `source` is the SHA-256 of the clean
    part that it was written from, empty where it is that part itself.
    """

    path: str
    part: str
    rows: int
    size_bytes: int
    sha256: str
    partition: Partition = ()
    source: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the file as a manifest names it."""
        found: dict[str, Any] = {
            "path": self.path,
            "rows": self.rows,
            "bytes": self.size_bytes,
            "sha256": self.sha256,
        }
        if self.part:
            found["name"] = self.part
        if self.partition:
            found["partition"] = dict(self.partition)
        if self.source:
            found["source_sha256"] = self.source
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "StoredFile":
        """Return the file that a manifest names."""
        return cls(
            path=found["path"],
            part=found.get("name", ""),
            rows=found["rows"],
            size_bytes=found["bytes"],
            sha256=found["sha256"],
            partition=tuple(found.get("partition", {}).items()),
            source=found.get("source_sha256", ""),
        )


def folder_of(partition: Partition) -> str:
    """Return the folders of a partition as Hive names them, "" for none; UnfitPartitionError where a value is too long."""
    folders = ""
    for name, value in partition:
        segment = f"{_encoded_name(name)}={_encoded_value(value)}"
        if len(segment) > MAX_SEGMENT_BYTES:
            raise UnfitPartitionError(f"a value of {name} is too long for a folder: {segment[:60]}...")
        folders += f"{segment}/"
    return folders


def text_of(value: Scalar) -> str | None:
    """Return a value as it stands in a cell."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def scalar_of(value: Any) -> Scalar:
    """Return a cell's value as JSON has it."""
    return value.isoformat() if isinstance(value, dt.date) else value


def _encoded_value(value: Scalar) -> str:
    text = text_of(value)
    if text is None:
        return NULL_FOLDER
    # The name that stands for null must not be taken for it where it is a text.
    return quote(text, safe="") if text != NULL_FOLDER else f"%5F{NULL_FOLDER[1:]}"


def _encoded_name(name: str) -> str:
    found = quote(name, safe="")
    # No segment of a key begins with a dot.
    return f"%2E{found[1:]}" if found.startswith(".") else found
