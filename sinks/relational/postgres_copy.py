"""Rows by COPY: in the binary format where every column has a type of ours, else as CSV."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.connection import RowWriter

if TYPE_CHECKING:
    import polars as pl

_BINARY: Mapping[str, Kind] = {
    "bigint": Kind.INTEGER,
    "double precision": Kind.NUMBER,
    "boolean": Kind.BOOLEAN,
    "date": Kind.DATE,
    "timestamp with time zone": Kind.TIMESTAMP,
    "text": Kind.TEXT,
    "jsonb": Kind.JSON,
}


def copy_writer(connection: Any, *, statement: str, types: Sequence[str]) -> RowWriter:
    """Return what writes into columns of these types; `statement` is a COPY with a place for its format.

    A column to which somebody gave another type takes CSV, which the server reads as whatever the type is.
    """
    kinds = [_BINARY.get(column_type) for column_type in types]
    begin, _, end = statement.rpartition("{}")
    if all(kinds):
        return _Binary(connection, f"{begin}binary{end}", tuple(kind for kind in kinds if kind))
    return _Csv(connection, f"{begin}csv{end}")


@dataclass(frozen=True, slots=True)
class _Binary:
    connection: Any
    statement: str
    kinds: tuple[Kind, ...]

    def encode(self, frame: "pl.DataFrame") -> list[Any]:
        from sinks.relational.postgres_binary import encode_rows  # noqa: PLC0415 (heavy)

        return encode_rows(frame, self.kinds)

    def write(self, encoded: list[Any]) -> None:
        _copy(self.connection, self.statement, encoded)


@dataclass(frozen=True, slots=True)
class _Csv:
    connection: Any
    statement: str

    def encode(self, frame: "pl.DataFrame") -> list[Any]:
        text = io.BytesIO()
        frame.write_csv(
            text,
            include_header=False,
            quote_style="necessary",
            null_value="",
            datetime_format="%Y-%m-%d %H:%M:%S%.6f+00",
        )
        return [text.getbuffer()]

    def write(self, encoded: list[Any]) -> None:
        _copy(self.connection, self.statement, encoded)


def _copy(connection: Any, statement: str, buffers: Sequence[Any]) -> None:
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for buffer in buffers:
            copy.write(buffer)
