"""Current rows: of each key the row of the newest publication that has it. The one rule, for every reader and destination.

Told by the key hashes beside the parts, in memory that does not grow with the rows: no part is opened for it.

Imports numpy, polars and pyarrow; so it is imported by functions that read rows, never at start.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ingestion.ports.context import Lake
from ingestion.ports.publication import Manifest, PartView, WriteMode
from ingestion.toolkit.clean.keys import (
    FACT_BYTES,
    NO_MOMENT,
    RECORD_BYTES,
    HashedPart,
    Header,
    Positions,
    Records,
    hash_keys,
    read_header,
    record_type,
)
from ingestion.toolkit.clean.reader import open_part

Places: TypeAlias = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows whose key hash appears more than once, in (hash, part, position) order.

    `parts` are indexes into the sequence given to `find_duplicates`; all rows of one hash are in one object, and
    `first` is true for the first of each.
    """

    parts: "Positions"
    positions: "Positions"
    first: "npt.NDArray[np.bool_]"


def merge_key(manifests: Sequence[Manifest]) -> tuple[str, ...]:
    """Return the key by which later runs of a state replace rows of earlier ones; empty where they do not."""
    merging = [manifest for manifest in manifests[1:] if manifest.mode == WriteMode.MERGE]
    return merging[-1].contract.key if merging else ()


def replaced_rows(lake: Lake, parts: Sequence[PartView], *, key: Sequence[str]) -> "Mapping[int, Places]":
    """Return which rows later parts have replaced: the number of a part, and positions in it, in order."""

    lost: dict[int, list[Places]] = {}
    for found in find_duplicates([hashed_part(lake, part, number, key=key) for number, part in enumerate(parts)]):
        # Of each key the last row stays: the one before the first of the next key.
        stays = np.append(found.first[1:], [True])
        places, positions = found.parts[~stays], found.positions[~stays].astype(np.uint32)
        for number in np.unique(places).tolist():
            lost.setdefault(number, []).append(positions[places == number])
    return {number: np.sort(np.concatenate(positions)) for number, positions in sorted(lost.items())}


def hashed_part(lake: Lake, part: PartView, number: int, *, key: Sequence[str], time: str | None = None) -> HashedPart:
    """Return the part's stored hashes; made anew where there are none of this scheme."""
    if part.is_hashed:
        return HashedPart(number, 0, partial(lake.open, part.hashes))
    fresh = fresh_hashes(lake, part, key=key, time=time)
    return HashedPart(number, 0, partial(io.BytesIO, fresh))


def fresh_hashes(lake: Lake, part: PartView, *, key: Sequence[str], time: str | None) -> bytes:
    """Return the hashes of the part, read whole."""

    with open_part(lake, part) as file:
        return hash_keys(file.table(), key, time=time)


def find_duplicates(parts: Sequence[HashedPart], *, chunk_rows: int = 2_000_000) -> Iterator[Candidates]:
    """Yield the rows whose key another row has, one range of hashes after the other.

    `parts` are in (lane, link, seq) order and hashed over one key, else ValueError. Memory is bounded by `chunk_rows`
    (about 70 bytes each), whatever the number of rows; every hash is read once.
    """
    for records in merged_records(parts, chunk_rows=chunk_rows):
        same = records["same"]
        if same.any():
            member = same.copy()
            member[:-1] |= same[1:]
            chosen = records[member]
            yield Candidates(chosen["part"].astype("i8"), chosen["row"].astype("i8"), ~chosen["same"])


def merged_records(
    parts: Sequence[HashedPart], *, chunk_rows: int = 2_000_000, with_facts: bool = False
) -> "Iterator[Records]":
    """Yield the records of all parts in (hash, part, position) order, one range of hashes after the other.

    Each names its part and says whether its key is that of the one before; `with_facts` adds content and moment. All
    rows of one key are in one range.
    """

    order = [(part.lane, part.link, part.seq) for part in parts]
    if sorted(set(order)) != order:
        msg = "the parts are not in (lane, link, seq) order"
        raise ValueError(msg)
    headers = [read_header(part) for part in parts]
    if len({header.key for header in headers}) > 1:
        msg = "the hashes are of different keys"
        raise ValueError(msg)
    ranges = max(1, -(-sum(header.rows for header in headers) // chunk_rows))
    runs = [_Run(part, header, ranges, with_facts=with_facts) for part, header in zip(parts, headers, strict=True)]
    for number in range(1, ranges + 1):
        end = None if number == ranges else (number << 64) // ranges
        taken = [run.take_below(end) for run in runs]
        joined = np.concatenate(taken) if taken else np.empty(0, dtype=_merged_type(with_facts=with_facts))
        joined["part"] = np.repeat(np.arange(len(taken)), [len(records) for records in taken])
        joined = joined[_order_by_hash(joined)]
        same = (joined["high"][1:] == joined["high"][:-1]) & (joined["low"][1:] == joined["low"][:-1])
        joined["same"][:1], joined["same"][1:] = False, same
        yield joined


class _Run:
    """One part's sorted hashes, taken from the front range by range."""

    def __init__(self, part: HashedPart, header: Header, ranges: int, *, with_facts: bool) -> None:
        self._part, self._header, self._with_facts = part, header, with_facts
        share = header.rows // ranges
        self._step = header.rows if ranges == 1 else share + share // 8 + 64
        self._read = 0
        self._held: Records | None = None

    def take_below(self, end: int | None) -> "Records":
        """Return the records with a hash below `end` that were not taken yet; all of them where it is None."""
        import numpy as np  # noqa: PLC0415 (heavy)

        blocks = [] if self._held is None else [self._held]
        while self._read < self._header.rows and not (blocks and self._reaches(blocks[-1], end)):
            blocks.append(self._next_block())
        records = np.concatenate(blocks) if blocks else np.empty(0, dtype=_merged_type(with_facts=self._with_facts))
        count = len(records) if end is None else int(np.searchsorted(records["high"], np.uint64(end)))
        self._held = records[count:].copy()
        return records[:count]

    def _reaches(self, block: "Records", end: int | None) -> bool:
        return end is not None and len(block) > 0 and int(block["high"][-1]) >= end

    def _next_block(self) -> "Records":
        import numpy as np  # noqa: PLC0415 (heavy)

        count = min(self._step, self._header.rows - self._read)
        records = np.empty(count, dtype=_merged_type(with_facts=self._with_facts))
        stored = np.frombuffer(self._bytes(0, RECORD_BYTES, count), dtype=record_type())
        for name in ("high", "low", "row"):
            records[name] = stored[name]
        if self._with_facts:
            salt = np.uint64(int.from_bytes(hashlib.sha256(self._header.content.encode()).digest()[:8], "little"))
            facts_at = self._header.rows * RECORD_BYTES
            records["content"] = np.frombuffer(self._bytes(facts_at, FACT_BYTES, count), dtype="<u8") ^ salt
            records["moment"] = NO_MOMENT
            if self._header.time is not None:
                moments_at = facts_at + self._header.rows * FACT_BYTES
                records["moment"] = np.frombuffer(self._bytes(moments_at, FACT_BYTES, count), dtype="<i8")
        self._read += count
        return records

    def _bytes(self, section_at: int, size: int, count: int) -> bytes:
        """Return so many records, each of that size, of a section, behind those that were read."""
        with self._part.open() as file:
            file.seek(self._header.body_at + section_at + self._read * size)
            block = file.read(count * size)
        if len(block) != count * size:
            msg = f"the key hashes of part {self._part.lane}-{self._part.link} are cut off"
            raise ValueError(msg)
        return block


def _merged_type(*, with_facts: bool) -> "np.dtype[Any]":

    fields = [("high", "<u8"), ("low", "<u8"), ("row", "<u4"), ("part", "<u4"), ("same", "?")]
    return np.dtype([*fields, ("content", "<u8"), ("moment", "<i8")] if with_facts else fields)


def _order_by_hash(records: "Records") -> "Positions":
    """Return the places of the records by hash, and of one hash as they stand."""

    order = np.argsort(records["high"], kind="stable")
    high, low = records["high"][order], records["low"][order]
    if bool(((high[1:] == high[:-1]) & (low[1:] != low[:-1])).any()):
        order = np.lexsort((records["low"], records["high"]))
    return order.astype(np.int64)
