"""Clean parts as rows of the catalog: JSON text, hashes, event time; computed by column, a batch at a time.

Imports polars and pyarrow; so it is imported by the functions that load a part, never at start.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, BinaryIO

import polars as pl

from ingestion.ports.publication import PartView
from ingestion.ports.schema import ContractBody
from ingestion.toolkit.clean.reader import PartFile

HASH_HEX_DIGITS = 32  # 128 bits
LARGEST_BATCH_ROWS = 20_000


def read_rows(
    source: BinaryIO, part: PartView, *, contract: ContractBody, logical_time: datetime
) -> Iterator[pl.DataFrame]:
    """Yield the part's rows as frames of key_hash, record_hash, event_time (UTC) and record (JSON text).

    A frame holds at most 20,000 rows and about 8 MB, whatever the part's size. `event_time` is the value of the
    contract's time column, null where the row has none; without such a column it is `logical_time`.
    """
    file = PartFile(source, key=part.key, rows=part.rows)
    for frame in file.frames(rows=LARGEST_BATCH_ROWS):
        yield _as_rows(frame, contract=contract, logical_time=logical_time)


def hash_key(values: tuple[Any, ...]) -> str:
    """Return the hash of a key's values: the first 128 bits of SHA-256 over their canonical JSON list, as hex.

    The same in every process and release, so that rows of different runs meet: text and numbers as JSON writes
    them, times as UTC with microseconds, other values by their ISO form or text.
    """
    return _digest(_canonical(values))


def _as_rows(frame: pl.DataFrame, *, contract: ContractBody, logical_time: datetime) -> pl.DataFrame:
    own = [name for name in frame.columns if not name.startswith("_")]
    data = frame.select(_json_ready(pl.col(name), frame.schema[name]).alias(name) for name in own)
    texts = data.select(
        pl.struct(pl.all()).struct.json_encode().alias("record") if own else pl.lit("{}").alias("record"),
        _canonical_record(data).alias("canonical"),
    )
    if not own:
        texts = pl.DataFrame({"record": ["{}"] * frame.height, "canonical": [""] * frame.height})
    record_hashes = [_digest(text) for text in texts["canonical"]]
    key_hashes = [hash_key(key) for key in frame.select(contract.key).rows()] if contract.key else record_hashes
    return pl.DataFrame(
        {
            "key_hash": key_hashes,
            "record_hash": record_hashes,
            "event_time": frame.select(_event_time(frame, contract, logical_time)).to_series(),
            "record": texts["record"],
        }
    )


def _canonical_record(data: pl.DataFrame) -> pl.Expr:
    """Return each row as text that does not depend on column order, nor on whether a null column was there at all.

    Parts of one run can differ in both, since each infers the columns that its contract does not name.
    """
    members = [
        pl.when(pl.col(name).is_not_null()).then(pl.struct(name).struct.json_encode()).otherwise(pl.lit(""))
        for name in sorted(data.columns)
    ]
    return pl.concat_str(members) if members else pl.lit("")


def _json_ready(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return the column in a type that polars can write as JSON: bytes as base64, plain times as UTC."""
    if dtype == pl.Binary:
        return column.bin.encode("base64")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        return column.dt.replace_time_zone("UTC")
    if isinstance(dtype, pl.List):
        inner = _json_ready(pl.element(), dtype.inner)  # type: ignore[arg-type]
        return column.list.eval(inner) if _holds_bytes(dtype) else column
    if isinstance(dtype, pl.Struct) and _holds_bytes(dtype):
        fields = [_json_ready(column.struct.field(f.name), f.dtype).alias(f.name) for f in dtype.fields]  # type: ignore[arg-type]
        return pl.when(column.is_not_null()).then(pl.struct(fields))
    return column


def _holds_bytes(dtype: Any) -> bool:
    if isinstance(dtype, pl.List):
        return _holds_bytes(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return any(_holds_bytes(field.dtype) for field in dtype.fields)
    return bool(dtype == pl.Binary)


def _event_time(frame: pl.DataFrame, contract: ContractBody, logical_time: datetime) -> pl.Expr:
    if contract.time is None:
        return pl.repeat(logical_time.astimezone(UTC), frame.height, dtype=pl.Datetime("us", "UTC"))
    column, dtype = pl.col(contract.time), frame.schema[contract.time]
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        column = column.dt.convert_time_zone("UTC")
    timestamps = column.cast(pl.Datetime("us")) if dtype == pl.Date else column.dt.replace_time_zone(None)
    return timestamps.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_HEX_DIGITS]


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    msg = f"a key cannot hold a {type(value).__name__}"
    raise TypeError(msg)


_canonical = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=_json_value).encode
