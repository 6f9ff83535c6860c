"""Duplicates by key over the partitions of a run: found by their hashes, confirmed on the keys themselves."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl
    import pyarrow as pa

    from ingestion.toolkit.clean.current import Candidates

    Positions = npt.NDArray[np.int64]

_BATCH_ROWS = 500_000


def resolve_duplicates(
    candidates: "Iterable[Candidates]",
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


def _batched(candidates: "Iterable[Candidates]") -> "Iterator[list[Candidates]]":
    batch: list[Candidates] = []
    for found in candidates:
        batch.append(found)
        if sum(len(item.positions) for item in batch) >= _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _keys_of(
    batch: "Sequence[Candidates]",
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
