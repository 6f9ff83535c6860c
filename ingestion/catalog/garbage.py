"""Removal of the versions that no reader sees any more."""

from ingestion.catalog.batches import delete_rows
from ingestion.models import CatalogRecord, CatalogState


def collect_garbage(limit: int) -> int:
    """Delete about `limit` retired or replaced versions at most, in short transactions, and return how many.

    Touches no visible and no staged row; safe to be run twice at once and to be killed.
    """
    deleted_count = 0
    for state in CatalogState.objects.order_by("pk"):
        rows = CatalogRecord.objects.filter(pipeline=state.pk)
        for unseen in (
            rows.filter(id__lte=state.floor_id, publication__lt=state.floor),
            rows.filter(retired_by__isnull=False, retired_by__lte=state.current),
        ):
            if deleted_count >= limit:
                return deleted_count
            deleted_count += delete_rows(unseen, limit=limit - deleted_count)
    return deleted_count
