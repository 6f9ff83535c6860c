"""Keys of rows in one canonical form, and their hashes beside a clean part: sorted, so that those of many parts merge.

The hashes are one file: `HGKEYS2\\n`, the length of a JSON header (4 bytes, little endian), the header, then a record per
row that has a whole key, sorted by hash and position: the 128-bit hash of its canonical key and its position in the
clean part. In the same order follow a 64-bit hash of each row's content, and where the contract names a time the event
times in milliseconds. So whoever asks which rows are current reads 20 bytes a row, and opens no part.

Imports numpy, polars and pyarrow; so it is imported by functions that hold data, never at start.
"""

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ingestion.ports.batch import CLEAN_COLUMNS
from ingestion.toolkit.clean.kinds import EXACT_INTEGER
from ingestion.toolkit.frames import frame_of

Positions: TypeAlias = npt.NDArray[np.int64]
Records: TypeAlias = npt.NDArray[np.void]
Words: TypeAlias = npt.NDArray[np.uint64]

NO_MOMENT = -(2**63)
_MAGIC = b"HGKEYS2\n"
RECORD_BYTES = 20
FACT_BYTES = 8
CONTENT_SCHEME = f"polars-{pl.__version__}"
_HASH = np.dtype([("high", "<u8"), ("low", "<u8")])
_FIRST, _SECOND = np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F)
_MIX, _REMIX = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_BLOCK = 16
_AT_ONCE = 1 << 22
"""Bytes of texts that are spread out at once: more is slower, for it does not stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class HashedPart:
    """One clean part and where its key hashes lie; `open` gives them as a seekable file."""

    lane: int
    link: int
    open: Callable[[], BinaryIO]
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """Facts of the part that its hashes were made of; `rows` are those with a whole key."""

    key: tuple[str, ...]
    rows: int
    time: str | None
    content: str
    """Scheme of the hashes of contents: those of two schemes cannot be compared."""
    columns: dict[str, str]
    """Arrow's names of the types by name of column."""
    body_at: int


def canonical_keys(columns: "Sequence[pl.Series]") -> "pl.Series":
    """Return the key of each row as text, null where a part of it is: the same record has the same key in every type.

    Whole numbers are written without a fraction, whatever their type; moments in UTC, at midnight as the day alone; text
    is as it is. Several columns stand one after the other, each behind its length.
    """

    texts = [_canonical(column).alias(str(number)) for number, column in enumerate(columns)]
    if len(texts) == 1:
        return texts[0]
    parts = [pl.format("{}:{}", pl.col(text.name).str.len_bytes(), pl.col(text.name)) for text in texts]
    return pl.DataFrame(texts).select(pl.concat_str(parts).alias("key")).to_series()


def hash_keys(clean: "pa.Table", key: Sequence[str], *, time: str | None = None) -> bytes:
    """Return the key hashes of a clean part; those of the keys are the same in every release.

    Where the part lacks a column of the key, no row has a whole one.
    """

    frame = frame_of(clean)
    time = time if time in frame.columns else None
    records, facts = np.empty(0, dtype=record_type()), b""
    if all(name in frame.columns for name in key):
        texts = canonical_keys([frame[name] for name in key])
        rows = texts.is_not_null().arg_true().to_numpy()
        hashes = hash_texts(texts.drop_nulls())
        order = np.argsort(hashes["high"])
        if bool((hashes["high"][order[1:]] == hashes["high"][order[:-1]]).any()):
            order = np.lexsort((hashes["low"], hashes["high"]))
        records = np.empty(len(hashes), dtype=record_type())
        records["high"], records["low"], records["row"] = hashes["high"][order], hashes["low"][order], rows[order]
        facts = hash_contents(frame.drop(CLEAN_COLUMNS, strict=False))[records["row"]].astype("<u8").tobytes()
        if time is not None:
            moments = moments_of(frame[time]).fill_null(NO_MOMENT).to_numpy()
            facts += moments[records["row"]].astype("<i8").tobytes()
    columns = {
        name: str(dtype).removeprefix("large_")
        for name, dtype in zip(clean.schema.names, clean.schema.types, strict=True)
    }
    told = {"key": list(key), "rows": len(records), "time": time, "content": CONTENT_SCHEME, "columns": columns}
    header = json.dumps(told).encode()
    return b"".join([_MAGIC, struct.pack("<I", len(header)), header, records.tobytes(), facts])


def hash_texts(texts: pl.Series) -> npt.NDArray[np.void]:
    """Return the hash of each text's UTF-8; texts of one length are hashed together, block by block."""
    hashes = np.zeros(len(texts), dtype=_HASH)
    array = texts.to_arrow().cast(pa.large_string())
    if not len(array):
        return hashes
    offset_bytes, data = (memoryview(buffer or b"") for buffer in array.buffers()[1:])
    offsets = np.frombuffer(offset_bytes, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    held = np.concatenate([np.frombuffer(data, dtype=np.uint8)[: offsets[-1]], np.zeros(_BLOCK, np.uint8)])
    starts, lengths = offsets[:-1], np.diff(offsets)
    blocks = lengths // _BLOCK
    order = np.argsort(blocks, kind="stable")
    counts = blocks[order]
    edges = np.flatnonzero(np.diff(counts, prepend=-1, append=-1))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        width = (int(counts[begin]) + 1) * _BLOCK
        step = max(1, _AT_ONCE // width)
        for first in range(begin, end, step):
            rows = order[first : min(first + step, end)]
            hashes["high"][rows], hashes["low"][rows] = _hash(held, starts[rows], lengths[rows], width // _BLOCK - 1)
    return hashes


def hash_contents(rows: pl.DataFrame) -> Words:
    """Return a 64-bit hash of each row's values; the order of the columns, and columns of nulls, change nothing.

    It is quick and only of this version of polars (CONTENT_SCHEME): where the versions differ, so do the hashes, and a
    row that came again counts as changed.
    """
    hashes = np.zeros(rows.height, dtype=np.uint64)
    for column in rows:
        seed = zlib.crc32(column.name.encode())
        found = column.hash(seed).to_numpy().copy()
        if column.null_count():
            found[column.is_null().to_numpy()] = 0
        hashes += found
    return hashes


def moments_of(times: "pl.Series") -> "pl.Series":
    """Return moments or days as milliseconds; what is finer is cut off downwards, before 1970 as well."""

    if times.dtype == pl.Date:
        return times.cast(pl.Datetime("ms")).to_physical()
    return times.dt.epoch("ms")


def read_header(part: HashedPart) -> Header:
    """Return what the file says of its part; ValueError where these are no key hashes of ours."""
    with part.open() as file:
        start = file.read(len(_MAGIC) + 4)
        if not start.startswith(_MAGIC) or len(start) != len(_MAGIC) + 4:
            msg = "these are no key hashes"
            raise ValueError(msg)
        (length,) = struct.unpack("<I", start[len(_MAGIC) :])
        told = json.loads(file.read(length))
        return Header(body_at=len(start) + length, **{**told, "key": tuple(told["key"])})


def record_type() -> "np.dtype[Any]":

    return np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u4")])


def _canonical(values: "pl.Series") -> "pl.Series":

    dtype = values.dtype
    if dtype == pl.String:
        return values
    if dtype.is_float():
        return _canonical_number(values)
    if dtype == pl.Boolean:
        return values.cast(pl.Int8).cast(pl.String).replace({"1": "true", "0": "false"})
    if dtype == pl.Date:
        return values.dt.strftime("%Y-%m-%d")
    if isinstance(dtype, pl.Datetime):
        return _canonical_moment(values)
    return values.bin.encode("base64") if dtype == pl.Binary else values.cast(pl.String)


def _canonical_number(values: "pl.Series") -> "pl.Series":

    whole = (values.is_finite() & (values == values.floor()) & (values.abs() <= EXACT_INTEGER)).fill_null(value=False)
    texts = values.cast(pl.Int64, strict=False).cast(pl.String)
    if bool(whole.all()):
        return texts
    # By Python and not by polars, which may write numbers in another way some day.
    others = pl.Series(
        [None if value is None else repr(value) for value in values.cast(pl.Float64).to_list()], dtype=pl.String
    )
    return texts.zip_with(whole, others)


def _canonical_moment(values: "pl.Series") -> "pl.Series":

    plain = values if values.dtype.time_zone is None else values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)  # type: ignore[attr-defined] # a Datetime
    at = pl.col("at")
    day, second = at.dt.strftime("%Y-%m-%d"), at.dt.strftime("%Y-%m-%dT%H:%M:%S")
    is_day, is_second = at == at.dt.truncate("1d"), at == at.dt.truncate("1s")
    text = (
        pl.when(is_day)
        .then(day)
        .when(is_second)
        .then(second + "+00:00")
        .otherwise(second + at.dt.strftime("%.6f") + "+00:00")
    )
    return plain.cast(pl.Datetime("us")).alias("at").to_frame().select(text).to_series()


def _hash(held: "npt.NDArray[np.uint8]", starts: Positions, lengths: Positions, blocks: int) -> tuple[Words, Words]:
    """Return both halves for texts that have so many whole blocks, and a rest."""
    windows = np.lib.stride_tricks.sliding_window_view(held, _BLOCK)
    high = np.zeros(len(starts), dtype=np.uint64)
    low = np.zeros(len(starts), dtype=np.uint64)
    for block in range(blocks):
        one, two = windows[starts + block * _BLOCK].view("<u8").T
        high ^= _scatter(one, _FIRST, 31, _SECOND)
        high = (_turn(high, 27) + low) * np.uint64(5) + np.uint64(0x52DCE729)
        low ^= _scatter(two, _SECOND, 33, _FIRST)
        low = (_turn(low, 31) + high) * np.uint64(5) + np.uint64(0x38495AB5)
    rest = windows[starts + blocks * _BLOCK]
    rest[np.arange(_BLOCK) >= (lengths - blocks * _BLOCK)[:, None]] = 0
    one, two = rest.view("<u8").T
    size = lengths.astype(np.uint64)
    low ^= _scatter(two, _SECOND, 33, _FIRST) ^ size
    high ^= _scatter(one, _FIRST, 31, _SECOND) ^ size
    high += low
    low += high
    high, low = _finish(high), _finish(low)
    high += low
    return high, low + high


def _scatter(word: Words, before: np.uint64, turn: int, after: np.uint64) -> Words:
    return _turn(word * before, turn) * after


def _turn(word: Words, bits: int) -> Words:
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


def _finish(word: Words) -> Words:
    for factor in (_MIX, _REMIX):
        word = (word ^ (word >> np.uint64(33))) * factor
    return word ^ (word >> np.uint64(33))
