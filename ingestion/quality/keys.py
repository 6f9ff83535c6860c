"""Duplicates by key over the partitions of a run: sorted hashes per part, merged, confirmed on the keys themselves.

A part's hashes are one file: `HGKEYS1\\n`, the length of a JSON header (4 bytes, little endian), the header (scheme,
key, rows), then 12 bytes per row: the 64-bit hash of its key and its position in the clean part, sorted by both.
"""

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl
    import pyarrow as pa

    Positions = npt.NDArray[np.int64]

_MAGIC = b"HGKEYS1\n"
_RECORD_BYTES = 12
_SEED = 0
_BATCH_ROWS = 500_000


@dataclass(frozen=True, slots=True)
class HashedPart:
    """One clean part of a run and where its key hashes lie; `open` gives them as a seekable file."""

    lane: int
    link: int
    open: Callable[[], BinaryIO]
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows whose key hash appears more than once, in (hash, part, position) order.

    `parts` are indexes into the sequence given to `find_duplicates`; all rows of one hash are in one object.
    """

    hashes: "npt.NDArray[np.uint64]"
    parts: "Positions"
    positions: "Positions"


@dataclass(frozen=True, slots=True)
class _Header:
    scheme: str
    key: tuple[str, ...]
    rows: int
    body_at: int


@lru_cache(maxsize=1)
def hash_scheme() -> str:
    """Return the name of the hash this process computes; hashes of different schemes cannot be compared.

    Polars promises equal hashes only within one version, so the name holds its version and what a few known values
    hash to on this machine.
    """
    import polars as pl  # noqa: PLC0415

    probe = pl.DataFrame({"i": [0, 1, -1], "s": ["", "a", "longer than an inlined view"], "f": [0.5, 1.5, -2.0]})
    marks = probe.hash_rows(seed=_SEED).to_list() + probe.select("i").hash_rows(seed=_SEED).to_list()
    mark = 0
    for value in marks:
        mark = (mark * 1_000_003 + value) % 2**64
    return f"polars-{pl.__version__}-{mark:016x}"


def hash_keys(clean: "pa.Table", key: Sequence[str]) -> bytes:
    """Return the sorted key hashes of a clean part with their positions; the same part gives the same bytes."""
    import numpy as np  # noqa: PLC0415

    from ingestion.toolkit.frames import frame_of  # noqa: PLC0415

    hashes = frame_of(clean.select(list(key))).hash_rows(seed=_SEED).to_numpy()
    order = np.argsort(hashes)
    if bool((hashes[order[1:]] == hashes[order[:-1]]).any()):
        order = np.lexsort((np.arange(len(hashes)), hashes))
    records = np.empty(len(hashes), dtype=_record_type())
    records["hash"], records["row"] = hashes[order], order
    header = json.dumps({"scheme": hash_scheme(), "key": list(key), "rows": len(hashes)}).encode()
    return _MAGIC + struct.pack("<I", len(header)) + header + records.tobytes()


def read_scheme(source: BinaryIO) -> str:
    """Return the hash scheme of stored hashes; where it is not `hash_scheme()` they must be computed again."""
    return _read_header(source).scheme


def find_duplicates(parts: Sequence[HashedPart], *, chunk_rows: int = 2_000_000) -> Iterator[Candidates]:
    """Yield the rows that may be duplicates, one range of hashes after the other.

    `parts` are in (lane, link, seq) order and hashed by one scheme over one key, else ValueError. Memory is bounded
    by `chunk_rows` (about 60 bytes each), whatever the number of rows; every hash is read once.
    """
    order = [(part.lane, part.link, part.seq) for part in parts]
    if sorted(set(order)) != order:
        msg = "the parts are not in (lane, link, seq) order"
        raise ValueError(msg)
    headers = [_header_of(part) for part in parts]
    if len({(header.scheme, header.key) for header in headers}) > 1:
        msg = "the hashes are of different keys or schemes; compute those of another scheme than hash_scheme() again"
        raise ValueError(msg)
    ranges = max(1, -(-sum(header.rows for header in headers) // chunk_rows))
    runs = [_Run(part, header, ranges) for part, header in zip(parts, headers, strict=True)]
    for number in range(1, ranges + 1):
        end = None if number == ranges else (number << 64) // ranges
        found = _doubled([run.take_below(end) for run in runs])
        if found is not None:
            yield found


def resolve_duplicates(
    candidates: Iterable[Candidates],
    read_keys: Callable[[int, "Positions"], "pa.Table"],
    *,
    key: Sequence[str],
    keep: Literal["first", "latest"],
    cursor_field: str | None = None,
) -> "dict[int, Positions]":
    """Return which positions to drop from which part, so that every key stays once.

    `read_keys(part, positions)` returns the key columns, and `cursor_field` where one is given, of those rows of a
    clean part, in the order of the positions. The keys themselves are compared: equal hashes alone drop nothing.
    "first" keeps the first row in (part, position) order, "latest" the one with the greatest `cursor_field` value
    (null is lowest), then the last.
    """
    import numpy as np  # noqa: PLC0415

    dropped: dict[int, list[Positions]] = {}
    for batch in _batched(candidates):
        frame = _keys_of(batch, read_keys, key=key, cursor_field=cursor_field)
        for part, positions in _losers(frame, key=key, keep=keep):
            dropped.setdefault(part, []).append(positions)
    return {part: np.sort(np.concatenate(found)) for part, found in sorted(dropped.items())}


def drop_rows(clean: "pa.Table", positions: "Positions") -> "tuple[pa.Table, pa.Table]":
    """Return the clean part without the rows at these positions, and those rows; both in their order."""
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    is_dropped = np.zeros(clean.num_rows, dtype=bool)
    is_dropped[positions] = True
    # Not pa.array: that loads pandas, which costs a worker more than this whole function.
    return clean.filter(pl.Series(~is_dropped).to_arrow()), clean.filter(pl.Series(is_dropped).to_arrow())


class _Run:
    """One part's sorted hashes, taken from the front range by range."""

    def __init__(self, part: HashedPart, header: _Header, ranges: int) -> None:
        self._part, self._header = part, header
        share = header.rows // ranges
        self._step = header.rows if ranges == 1 else share + share // 8 + 64
        self._read = 0
        self._held = b""

    def take_below(self, end: int | None) -> "npt.NDArray[Any]":
        """Return the records with a hash below `end` that were not taken yet; all of them where it is None."""
        import numpy as np  # noqa: PLC0415

        blocks = [self._held]
        while self._read < self._header.rows and (end is None or not self._reaches(blocks[-1], end)):
            blocks.append(self._next_block())
        records = np.frombuffer(b"".join(blocks), dtype=_record_type())
        count = len(records) if end is None else int(np.searchsorted(records["hash"], np.uint64(end)))
        self._held = records[count:].tobytes()
        return records[:count]

    def _reaches(self, block: bytes, end: int) -> bool:
        return len(block) > 0 and int.from_bytes(block[-_RECORD_BYTES : 8 - _RECORD_BYTES], "little") >= end

    def _next_block(self) -> bytes:
        wanted = min(self._step, self._header.rows - self._read) * _RECORD_BYTES
        with self._part.open() as file:
            file.seek(self._header.body_at + self._read * _RECORD_BYTES)
            block = file.read(wanted)
        if len(block) != wanted:
            msg = f"the key hashes of part {self._part.lane}-{self._part.link} are cut off"
            raise ValueError(msg)
        self._read += wanted // _RECORD_BYTES
        return block


def _record_type() -> "np.dtype[Any]":
    import numpy as np  # noqa: PLC0415

    return np.dtype([("hash", "<u8"), ("row", "<u4")])


def _header_of(part: HashedPart) -> _Header:
    with part.open() as file:
        return _read_header(file)


def _read_header(file: BinaryIO) -> _Header:
    start = file.read(len(_MAGIC) + 4)
    if not start.startswith(_MAGIC) or len(start) != len(_MAGIC) + 4:
        msg = "these are no key hashes"
        raise ValueError(msg)
    (length,) = struct.unpack("<I", start[len(_MAGIC) :])
    header = json.loads(file.read(length))
    return _Header(header["scheme"], tuple(header["key"]), int(header["rows"]), len(start) + length)


def _doubled(runs: "Sequence[npt.NDArray[Any]]") -> Candidates | None:
    import numpy as np  # noqa: PLC0415

    hashes = np.concatenate([run["hash"] for run in runs]) if runs else np.empty(0, np.uint64)
    order = np.argsort(hashes)
    same = hashes[order[1:]] == hashes[order[:-1]]
    if not same.any():
        return None
    member = np.zeros(len(order), dtype=bool)
    member[1:] |= same
    member[:-1] |= same
    # Positions in the concatenation grow with (part, position), so they decide the order within one hash.
    chosen = np.sort(order[member])
    chosen = chosen[np.argsort(hashes[chosen], kind="stable")]
    ends = np.cumsum([len(run) for run in runs])
    parts = np.searchsorted(ends, chosen, side="right").astype(np.int64)
    positions = np.concatenate([run["row"] for run in runs])[chosen].astype(np.int64)
    return Candidates(hashes[chosen], parts, positions)


def _batched(candidates: Iterable[Candidates]) -> "Iterator[list[Candidates]]":
    batch: list[Candidates] = []
    for found in candidates:
        batch.append(found)
        if sum(len(item.positions) for item in batch) >= _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _keys_of(
    batch: Sequence[Candidates],
    read_keys: Callable[[int, "Positions"], "pa.Table"],
    *,
    key: Sequence[str],
    cursor_field: str | None,
) -> "pl.DataFrame":
    import numpy as np  # noqa: PLC0415
    import polars as pl  # noqa: PLC0415

    from ingestion.quality.texts import as_text  # noqa: PLC0415
    from ingestion.toolkit.frames import frame_of  # noqa: PLC0415

    parts = np.concatenate([found.parts for found in batch])
    positions = np.concatenate([found.positions for found in batch])
    frames, versions = [], []
    for part in np.unique(parts).tolist():
        wanted = np.sort(positions[parts == part])
        read = frame_of(read_keys(part, wanted))
        columns = [read[name].alias(f"k{number}") for number, name in enumerate(key)]
        frames.append(pl.DataFrame([*columns, pl.Series("at", wanted)]).with_columns(part=pl.lit(part, dtype=pl.Int64)))
        versions.append(
            read[cursor_field] if cursor_field is not None else pl.Series([None]).new_from_index(0, len(wanted))
        )
    if len({version.dtype for version in versions if version.dtype != pl.Null}) > 1:
        # A cursor the contract does not declare may have another type in another part; as text they can be compared.
        versions = [as_text(version) for version in versions]
    frame = pl.concat(frames)
    version = pl.concat([item.alias("version").to_frame() for item in versions], how="vertical_relaxed")["version"]
    return frame.with_columns(version)


def _losers(frame: "pl.DataFrame", *, key: Sequence[str], keep: str) -> "Iterator[tuple[int, Positions]]":
    import polars as pl  # noqa: PLC0415

    names = [f"k{number}" for number in range(len(key))]
    same = pl.struct(names) if len(names) > 1 else pl.col(names[0])
    if keep == "first":
        losers = frame.sort("part", "at").filter(~same.is_first_distinct())
    else:
        losers = frame.sort("version", "part", "at", nulls_last=False).filter(~same.is_last_distinct())
    for (part,), rows in losers.select("part", "at").partition_by("part", as_dict=True).items():
        yield int(part), rows["at"].to_numpy()
