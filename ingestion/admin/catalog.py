"""The catalog: what readers of each pipeline's records see, and how it came there."""

import json

from django.contrib import admin

from ingestion.admin.base import ReadOnly
from ingestion.admin.display import column, show_json, show_state
from ingestion.models import CatalogPart, CatalogPublication, CatalogRecord, CatalogState

_SHOWN_CHARACTERS = 120


@admin.register(CatalogRecord)
class CatalogRecordAdmin(ReadOnly):
    """Accepted records, every version that is kept."""

    list_display = ("id", "pipeline", "publication", "retired_by", "run_id", "event_time", "record_begin")
    list_filter = ("pipeline",)
    list_select_related = ("pipeline",)
    ordering = ("-id",)
    fields = (
        "id", "pipeline", "publication", "retired_by", "run_id", "part", "event_time", "key_hash", "record_hash",
        "shown_record",
    )  # fmt: skip
    shown_record = column("Record", lambda row: show_json(json.loads(row.row)))

    @admin.display(description="Run")
    def run_id(self, record: CatalogRecord) -> int:
        """Return the number of the run that brought it; the run itself may be gone."""
        return record.run_id

    @admin.display(description="Record")
    def record_begin(self, record: CatalogRecord) -> str:
        """Return how the record begins."""
        text = record.record
        return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} …"


@admin.register(CatalogState)
class CatalogStateAdmin(ReadOnly):
    """The publication of each pipeline that is seen."""

    list_display = ("pipeline", "current", "floor", "floor_id", "last_number")
    list_select_related = ("pipeline",)
    search_fields = ("pipeline__name",)


@admin.register(CatalogPublication)
class CatalogPublicationAdmin(ReadOnly):
    """The passages of runs into the catalog."""

    list_display = ("pipeline", "number", "run", "shown_state", "inserted", "updated", "unchanged", "created_at")
    list_filter = ("state", "pipeline")
    list_select_related = ("pipeline", "run")
    search_fields = ("pipeline__name", "=run__id")
    ordering = ("-id",)
    fields = (
        "pipeline", "number", "run", "shown_state", "inserted", "updated", "unchanged", "after_id", "merged_up_to",
        "created_at",
    )  # fmt: skip
    shown_state = column("State", lambda row: show_state(row.state), ordering="state")


@admin.register(CatalogPart)
class CatalogPartAdmin(ReadOnly):
    """Clean parts on their way into the catalog."""

    list_display = ("name", "publication", "generation", "row_count", "is_complete")
    list_filter = ("is_complete",)
    list_select_related = ("publication__pipeline",)
    search_fields = ("=publication__run__id",)
    ordering = ("-id",)
