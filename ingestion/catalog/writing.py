"""Many rows written into a table of our own database, and the number of them that one transaction should hold."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

FIRST_BATCH_ROWS = 2_000
SMALLEST_BATCH_ROWS = 50
LARGEST_BATCH_ROWS = 10_000
TARGET_S = 0.25
"""Far below the 2 s that others may have to wait: on a busy machine a batch was seen to take six times its target."""


class BatchSize:
    """The number of rows that the next transaction should hold, so that one lasts about 0.25 s.

    A writer keeps SQLite's only write lock for as long as its transaction lasts; rows of 100 bytes and of 100 KB
    need batches of very different length for the same time.
    """

    def __init__(self) -> None:
        self.rows = FIRST_BATCH_ROWS

    @contextmanager
    def timed(self, row_count: int) -> Iterator[None]:
        """Time a batch of `row_count` rows and choose the length of the next by it.

        It is at most twice as long, and not longer after a batch that was not full.
        """
        began = time.monotonic()
        yield
        factor = TARGET_S / max(time.monotonic() - began, 0.001)
        factor = min(factor, 2.0 if row_count >= self.rows else 1.0)
        self.rows = max(SMALLEST_BATCH_ROWS, min(int(self.rows * factor), LARGEST_BATCH_ROWS))


def copy_rows(connection: Any, *, table: str, frame: "pl.DataFrame") -> None:
    """Append the frame's rows to the columns of the same names, by COPY through a psycopg 3 connection."""
    import polars as pl  # noqa: PLC0415 (heavy)

    from ingestion.toolkit.postgres_copy import CopyWriter  # noqa: PLC0415 (heavy)

    types: dict[pl.DataType, str] = {
        pl.Int64(): "bigint",
        pl.String(): "text",
        pl.Datetime("us", "UTC"): "timestamp with time zone",
    }
    columns = [_quote(name) for name in frame.columns]
    writer = CopyWriter(connection, _quote(table), columns, [types[dtype] for dtype in frame.dtypes])
    writer.write(writer.encode(frame))


def insert_rows(connection: Any, *, table: str, frame: "pl.DataFrame") -> None:
    """Append the frame's rows to the columns of the same names, by executemany on a SQLite connection."""
    import polars as pl  # noqa: PLC0415 (heavy)

    # Times as Django writes them into SQLite: with microseconds only where there are some.
    times = pl.col(pl.Datetime("us", "UTC"))
    whole, fine = times.dt.strftime("%Y-%m-%d %H:%M:%S"), times.dt.strftime("%Y-%m-%d %H:%M:%S%.6f")
    frame = frame.with_columns(pl.when(times.dt.microsecond() == 0).then(whole).otherwise(fine))
    columns = ", ".join(_quote(name) for name in frame.columns)
    marks = ", ".join("?" * frame.width)
    connection.executemany(f"INSERT INTO {_quote(table)} ({columns}) VALUES ({marks})", frame.iter_rows())  # noqa: S608


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
