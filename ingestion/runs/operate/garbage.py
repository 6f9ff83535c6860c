"""Removing what nothing refers to: objects that no row names, unfinished uploads, retired records."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings

from ingestion.catalog import collect_garbage
from ingestion.models import TERMINAL_RUN_STATES, Part, Run, Upload
from ingestion.runs.record.lake import open_lake
from ingestion.toolkit.scratch import sweep_scratch

_GRACE = timedelta(days=1)
"""An object younger than this may belong to work that has not committed its row yet."""
_RECORDS_AT_ONCE = 100_000
_STAGED = "staged"
"""Prefix below which sinks keep what they write for a destination; they remove it themselves when they get so far."""
_ZONES = (Part.Zone.RAW, Part.Zone.CLEAN, Part.Zone.REJECTED, Part.Zone.REFUSED, _STAGED)


def clean_up(*, now: datetime | None = None, grace: timedelta = _GRACE) -> dict[str, int]:
    """Remove what is older than the grace and named by nothing; return how many of each kind."""
    now = now or datetime.now(UTC)
    return {
        "objects": _remove_orphans(now - grace),
        "uploads": _remove_unfinished_uploads(now - grace),
        "multipart_uploads": open_lake().abort_stale_uploads(now - grace),
        "catalog_records": collect_garbage(_RECORDS_AT_ONCE),
        "scratch": sweep_scratch(Path(settings.HEADGATE_DATA_DIR) / "scratch", before=now - grace),
    }


def _remove_orphans(before: datetime) -> int:
    """Delete the objects of ended runs that no part names; a killed worker leaves one, at most, each time."""
    lake, removed = open_lake(), 0
    for zone in _ZONES:
        batch: list[str] = []
        for info in lake.list(f"{zone}/"):
            if info.modified_at is not None and info.modified_at < before:
                batch.append(info.key)
            if len(batch) == 500:  # noqa: PLR2004 (names in one look at the table)
                removed += _remove_unnamed(batch)
                batch = []
        removed += _remove_unnamed(batch)
    return removed


def _remove_unnamed(keys: list[str]) -> int:
    # Looked at before the rows: work may name an object that an earlier attempt stored days ago.
    at_work = set(
        Run.objects.filter(pk__in=map(_run_id, keys))
        .exclude(state__in=TERMINAL_RUN_STATES)
        .values_list("pk", flat=True)
    )
    keys = [key for key in keys if _run_id(key) not in at_work]
    named = set(Part.objects.filter(key__in=keys).values_list("key", flat=True))
    named |= set(Part.objects.filter(hashes_key__in=keys).values_list("hashes_key", flat=True))
    orphans = [key for key in keys if key not in named]
    for key in orphans:
        open_lake().delete(key)
    return len(orphans)


def _run_id(key: str) -> int:
    """Return the run that a part's key names, 0 where it names none."""
    run = key.split("/")[2:3]
    return int(run[0]) if run and run[0].isdecimal() else 0


def _remove_unfinished_uploads(before: datetime) -> int:
    """Forget the uploads whose last byte never came."""
    unfinished = Upload.objects.filter(sha256__isnull=True, created_at__lt=before)
    for upload in unfinished:
        if upload.key:
            open_lake().delete(upload.key)
    count, _ = unfinished.delete()
    return count
