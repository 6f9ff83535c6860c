"""Rows into PostgreSQL by COPY: in its binary format where every column has a type known here, else as CSV.

The server reads the binary format in half the time that CSV takes it, and polars writes it no slower. Every row is the
number of its fields, then for each its length and its bytes; Arrow joins these pieces over all rows at once, and what
its string array holds then is the stream.

Imports polars and pyarrow; so it is imported by the functions that load rows, never at start.
"""

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TEXTS = ("text", "jsonb")
BINARY_TYPES = frozenset((*_TEXTS, "bigint", "double precision", "boolean", "date", "timestamp with time zone"))
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_EPOCH_DAYS = 10_957
"""From 1970, where Arrow counts from, to 2000, where PostgreSQL does."""
_EPOCH_US = _EPOCH_DAYS * 86_400_000_000
_NULL = -1
_JSON_VERSION = b"\x01"
_join: Any = pc.binary_join_element_wise
"""Its types know nothing of scalars beside arrays."""


@dataclass(frozen=True, slots=True)
class CopyWriter:
    """Appends rows through a psycopg 3 connection; `table` and `columns` are quoted, `types` are what the server calls them.

    A column of any other type than `BINARY_TYPES` makes it CSV, which the server reads as whatever the type is; a null
    is an empty field then, an empty text a quoted one.
    """

    connection: Any
    table: str
    columns: Sequence[str]
    types: Sequence[str]

    def encode(self, frame: pl.DataFrame) -> list[Any]:
        """Return the rows, in the order of the columns, as `write` takes them."""
        if self._is_binary:
            return encode_rows(frame, self.types)
        text = io.BytesIO()
        frame.write_csv(
            text,
            include_header=False,
            quote_style="necessary",
            null_value="",
            datetime_format="%Y-%m-%d %H:%M:%S%.6f+00",
        )
        return [text.getbuffer()]

    def write(self, encoded: Sequence[Any]) -> None:
        """Append the encoded rows."""
        form = "binary" if self._is_binary else "csv"
        statement = f"COPY {self.table} ({', '.join(self.columns)}) FROM STDIN (FORMAT {form})"
        with self.connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for buffer in encoded:
                copy.write(buffer)

    @property
    def _is_binary(self) -> bool:
        return BINARY_TYPES.issuperset(self.types)


def encode_rows(frame: pl.DataFrame, types: Sequence[str]) -> list[Any]:
    """Return the rows as buffers of a binary stream, its beginning and end included."""
    if not frame.height:
        return [HEADER, TRAILER]
    pieces: list[Any] = [len(types).to_bytes(2, "big")]
    for series, column_type in zip(frame.get_columns(), types, strict=True):
        write = _text_pieces if column_type in _TEXTS else _number_pieces
        if _is_constant(series):
            # The run and the part are the same in every row, as are columns without values.
            pieces.append(b"".join(_bytes_of(piece) for piece in write(series.head(1), column_type)))
        else:
            pieces += write(series, column_type)
    if all(isinstance(piece, bytes) for piece in pieces):
        return [HEADER, b"".join(pieces) * frame.height, TRAILER]
    pieces = list(_scalars_joined(pieces))
    rows = _join(*pieces, pa.scalar(b"", pa.large_binary()), null_handling="skip")
    first, end = np.frombuffer(rows.buffers()[1], np.int64)[[rows.offset, rows.offset + len(rows)]]
    return [HEADER, memoryview(rows.buffers()[2])[int(first) : int(end)], TRAILER]


def _is_constant(series: pl.Series) -> bool:
    if series.null_count():
        return series.null_count() == len(series)
    first = series[0]
    return bool(first == series[-1] and (series == first).all())


def _bytes_of(piece: Any) -> bytes:
    value = piece[0].as_py()
    return b"" if value is None else bytes(value)


def _scalars_joined(pieces: Sequence[Any]) -> Iterator[Any]:
    """Yield the pieces with what is the same in every row put together."""
    for is_scalar, group in itertools.groupby(pieces, lambda piece: isinstance(piece, bytes)):
        if is_scalar:
            yield pa.scalar(b"".join(group), pa.large_binary())
        else:
            yield from group


def _text_pieces(series: pl.Series, column_type: str) -> list[Any]:
    series = series.cast(pl.String)
    lengths = series.str.len_bytes().cast(pl.Int32) + (len(_JSON_VERSION) if column_type == "jsonb" else 0)
    prefix = _fixed(lengths.fill_null(_NULL).to_numpy().astype(">i4"))
    text = series.to_arrow().cast(pa.large_string()).cast(pa.large_binary())
    if column_type == "jsonb":
        text = _join(pa.scalar(_JSON_VERSION, pa.large_binary()), text, pa.scalar(b"", pa.large_binary()))
    return [prefix, text]


def _number_pieces(series: pl.Series, column_type: str) -> list[Any]:
    values = _values(series, column_type)
    if not series.null_count():
        whole = np.empty(len(series), dtype=[("length", ">i4"), ("value", values.dtype)])
        whole["length"], whole["value"] = values.itemsize, values
        return [_fixed(whole)]
    is_there = series.is_not_null().to_numpy()
    prefix = np.where(is_there, values.itemsize, _NULL).astype(">i4")
    return [_fixed(prefix), _fixed(values, valid=is_there)]


def _values(series: pl.Series, column_type: str) -> "NDArray[Any]":
    match column_type:
        case "double precision":
            return series.cast(pl.Float64).fill_null(0.0).to_numpy().astype(">f8")
        case "boolean":
            return series.cast(pl.Boolean).fill_null(False).cast(pl.UInt8).to_numpy().astype("u1")
        case "date":
            return (series.cast(pl.Date).to_physical().fill_null(0).to_numpy() - _EPOCH_DAYS).astype(">i4")
        case "timestamp with time zone":
            ticks = series.cast(pl.Datetime("us", "UTC")).to_physical()
            return (ticks.fill_null(0).to_numpy() - _EPOCH_US).astype(">i8")
    return series.cast(pl.Int64).fill_null(0).to_numpy().astype(">i8")


def _fixed(values: "NDArray[Any]", *, valid: "NDArray[np.bool_] | None" = None) -> Any:
    """Return values of one size as an Arrow array of bytes, without looking at each."""
    size = values.dtype.itemsize
    offsets = np.arange(0, (len(values) + 1) * size, size, dtype=np.int64)
    validity = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    data = pa.py_buffer(np.ascontiguousarray(values).view(np.uint8).data)
    return pa.Array.from_buffers(pa.large_binary(), len(values), [validity, pa.py_buffer(offsets.data), data])
