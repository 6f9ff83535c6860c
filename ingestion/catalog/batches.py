"""Bounded transactions on the catalog's table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connection, transaction
from django.db.models import QuerySet

from ingestion.catalog.writing import BatchSize
from ingestion.models import CatalogRecord
from ingestion.toolkit.failpoints import failpoint

_PLANS_TO_AVOID = (
    "enable_seqscan",
    "enable_bitmapscan",
    "enable_sort",
    "enable_incremental_sort",
    "enable_hashjoin",
    "enable_mergejoin",
    "jit",
)


def end_batch(beat: Callable[[], None]) -> None:
    """Let the work go on after a batch, or be stopped by the signal of its `beat`. What was committed stays."""
    failpoint("catalog.after_batch")
    beat()


@contextmanager
def roomy_cache() -> Iterator[None]:
    """Let SQLite keep 64 MB of pages within this block instead of 2.

    Rows come in the order of their source and not of their key, so every batch touches all of the index by key
    (measured: a quarter less CPU for a merge of 300,000 rows).
    """
    if connection.vendor != "sqlite":
        yield
        return
    with connection.cursor() as cursor:
        kept = cursor.execute("PRAGMA cache_size").fetchone()[0]
        cursor.execute("PRAGMA cache_size = -65536")
        try:
            yield
        finally:
            cursor.execute(f"PRAGMA cache_size = {int(kept)}")


@contextmanager
def batch_transaction() -> Iterator[None]:
    """Open one batch's transaction, read by index on PostgreSQL too."""
    with transaction.atomic(), read_by_index():
        yield


@contextmanager
def read_by_index() -> Iterator[None]:
    """Have PostgreSQL read in index order within this block, whatever it thinks of the statistics.

    A table that just took a million rows has no statistics of them yet, and the bounds of what is visible are
    values the planner cannot know: it then reads and sorts a whole pipeline for each batch or page (measured:
    130 ms instead of 2 ms a page at 300,000 rows). SQLite does so by itself.
    """
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("; ".join(f"SET LOCAL {name} = off" for name in _PLANS_TO_AVOID))
        yield


def id_ranges(rows: QuerySet[CatalogRecord], *, batch_size: BatchSize) -> Iterator[tuple[QuerySet[CatalogRecord], int]]:
    """Yield `rows` in bounded ranges of ids, from the lowest, each with its number of rows.

    The range is found outside of the write; so rows that are gone by then are simply not in it any more.
    """
    after = 0
    while True:
        ids = list(rows.filter(id__gt=after).order_by("id").values_list("id", flat=True)[: batch_size.rows])
        if not ids:
            return
        yield rows.filter(id__gt=after, id__lte=ids[-1]), len(ids)
        after = ids[-1]


def delete_rows(
    rows: QuerySet[CatalogRecord], *, beat: Callable[[], None] = lambda: None, limit: int | None = None
) -> int:
    """Delete `rows`, or the first `limit` of them, and return how many; each batch is a transaction of its own."""
    batch_size = BatchSize()
    deleted_count = 0
    for batch, row_count in id_ranges(rows, batch_size=batch_size):
        with batch_size.timed(row_count), batch_transaction():
            deleted_count += batch.delete()[0]
        end_batch(beat)
        if limit is not None and deleted_count >= limit:
            break
    return deleted_count
