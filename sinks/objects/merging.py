"""Current rows of a merged state: those that no later run replaced, found in memory that does not grow with the rows.

The keys of all rows are hashed (128 bits) into files of this machine, split by their hash; each of these files is
then small enough to be sorted. What remains in memory is a byte a row, of files that lose rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from sinks.objects.joining import Keep
from sinks.objects.layout import StoredFile

BUCKET_ROWS = 500_000
MAX_BUCKETS = 200
_ROW = np.dtype([("a", "<u8"), ("b", "<u8"), ("order", "<u4"), ("file", "<u4"), ("row", "<u4")])
_SEEDS = (11, 7919)


class Replaced:
    """Collects the keys of files, then says which rows remain; of two rows with one key that of the greater order."""

    def __init__(self, files: Sequence[tuple[int, StoredFile]], *, folder: Path) -> None:
        rows = sum(file.rows for _, file in files)
        self._orders = [order for order, _ in files]
        self._count = min(MAX_BUCKETS, max(1, -(-rows // BUCKET_ROWS)))
        self._paths = [folder / f"keys-{number:03d}" for number in range(self._count)]
        self._stack = ExitStack()
        self._buckets: list[BinaryIO] = [self._stack.enter_context(path.open("wb")) for path in self._paths]
        self._seen = [0] * len(files)

    def add(self, index: int, keys: pl.DataFrame) -> None:
        """Take the keys of the next rows of a file."""
        rows = np.empty(keys.height, dtype=_ROW)
        rows["a"], rows["b"] = (keys.hash_rows(seed=seed).to_numpy() for seed in _SEEDS)
        rows["order"] = self._orders[index]
        rows["file"] = index
        rows["row"] = np.arange(self._seen[index], self._seen[index] + keys.height)
        self._seen[index] += keys.height
        places = rows["a"] % np.uint64(self._count)
        for number, bucket in enumerate(self._buckets):
            bucket.write(rows[places == number].tobytes())

    def remaining(self) -> dict[int, Keep]:
        """Return by file which of its rows remain, for the files that lose some."""
        self._stack.close()
        kept: dict[int, Keep] = {}
        for path in self._paths:
            for file, row in _lost(np.fromfile(path, dtype=_ROW)):
                if file not in kept:
                    kept[file] = np.ones(self._seen[file], dtype=np.bool_)
                kept[file][row] = False
            path.unlink()
        return kept

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _lost(rows: npt.NDArray[np.void]) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
    """Yield by file the rows whose key a greater order has, too."""
    if not len(rows):
        return
    rows = rows[np.lexsort((rows["order"], rows["b"], rows["a"]))]
    is_last = np.ones(len(rows), dtype=np.bool_)
    is_last[:-1] = (rows["a"][1:] != rows["a"][:-1]) | (rows["b"][1:] != rows["b"][:-1])
    ends = np.flatnonzero(is_last)
    # Of each key the greatest order, spread over all of its rows.
    greatest = np.repeat(rows["order"][ends], np.diff(ends, prepend=-1))
    lost = rows[rows["order"] < greatest]
    for file in np.unique(lost["file"]):
        yield int(file), lost["row"][lost["file"] == file]
