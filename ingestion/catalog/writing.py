"""Writing many rows into a relational table, and how many of them one transaction should hold."""

import io
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
    """How many rows the next transaction should hold, so that one lasts about 0.25 s.

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
    """Append the frame's rows to the columns of the same names, by COPY through a psycopg 3 connection.

    The rows travel as CSV text written by polars: no Python object per value. A null is an empty field, an empty
    string a quoted one.
    """
    from psycopg import sql  # noqa: PLC0415 - the driver, only where it is used

    text = io.BytesIO()
    frame.write_csv(text, include_header=False, quote_style="necessary", null_value="")
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(text.getbuffer())


def insert_rows(connection: Any, *, table: str, frame: "pl.DataFrame") -> None:
    """Append the frame's rows to the columns of the same names, by executemany on a SQLite connection."""
    columns = ", ".join(_quote(name) for name in frame.columns)
    marks = ", ".join("?" * frame.width)
    connection.executemany(f"INSERT INTO {_quote(table)} ({columns}) VALUES ({marks})", frame.iter_rows())  # noqa: S608


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
