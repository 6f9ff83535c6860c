"""Pieces of a run: partitions, parts, its log, and how far its pipeline has read."""

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.safestring import SafeString

from ingestion.admin.base import ReadOnly
from ingestion.admin.display import column, link_to, processing_status, show_json, show_size, show_state
from ingestion.models import Checkpoint, Part, Partition, RunEvent


@admin.register(Partition)
class PartitionAdmin(ReadOnly):
    """Bounded pieces of the runs' work."""

    list_display = (
        "__str__",
        "of_run",
        "label",
        "stage",
        "shown_state",
        "attempt",
        "raw_size",
        "fetched",
        "accepted",
        "rejected",
        "code",
    )
    list_filter = ("state", "stage")
    list_select_related = ("run",)
    search_fields = ("=run__id", "label", "=code")
    ordering = ("-run_id", "lane", "link")
    fieldsets = (
        (None, {"fields": ("of_run", ("lane", "link"), "label", "stage", "shown_state", "code", "message")}),
        (
            "Control totals",
            {"fields": ("expected_records", "fetched", "accepted", "rejected", "duplicate", "filtered", "raw_size")},
        ),
        ("Work", {"fields": ("attempt", "fence", "lease_until", "not_before", "sent_at", "finished_at")}),
        ("Position", {"fields": ("next_seq", "high_water", "shown_cursor", "shown_spec")}),
    )
    of_run = column("Run", lambda row: link_to(row.run), ordering="run_id")
    shown_state = column("State", lambda row: show_state(row.state), ordering="state")
    raw_size = column("Raw data", lambda row: show_size(row.raw_bytes), ordering="raw_bytes")
    shown_cursor = column("Cursor", lambda row: show_json(row.cursor))
    shown_spec = column("What it reads", lambda row: show_json(row.spec))


@admin.register(Part)
class PartAdmin(ReadOnly):
    """Objects in the lake; a raw one says how far its records have come."""

    list_display = ("__str__", "of_run", "zone", "place", "size", "rows", "processing", "created_at")
    list_filter = ("zone",)
    list_select_related = ("run",)
    search_fields = ("=run__id", "=sha256")
    ordering = ("-id",)
    fields = (
        "of_run", "zone", "place", "key", "offset", "size", "sha256", "rows", "processing", "hashes_key", "created_at",
        "shown_pages",
    )  # fmt: skip
    of_run = column("Run", lambda row: link_to(row.run), ordering="run_id")
    place = column("Lane-link, number", lambda row: f"{row.lane}-{row.link}, {row.seq}")
    size = column("Size", lambda row: show_size(row.size_bytes), ordering="size_bytes")
    shown_pages = column("Pages", lambda row: show_json(row.pages))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Part]:
        """Return the parts with the state of their partition."""
        return with_partition_state(super().get_queryset(request))

    @admin.display(description="Processing")
    def processing(self, part: Any) -> SafeString | str:
        """Return how far a raw part's records have come."""
        status = processing_status(part, partition_state=part.partition_state)
        return show_state(status) if status else "-"


def with_partition_state(parts: QuerySet[Part]) -> QuerySet[Part]:
    """Return the parts, each with the state of its partition (None: there is none)."""
    partition = Partition.objects.filter(run=OuterRef("run"), lane=OuterRef("lane"), link=OuterRef("link"))
    return parts.annotate(partition_state=Subquery(partition.values("state")[:1]))


@admin.register(RunEvent)
class RunEventAdmin(ReadOnly):
    """The logs of all runs."""

    list_display = ("created_at", "of_run", "shown_level", "kind", "message")
    list_filter = ("level",)
    list_select_related = ("run",)
    search_fields = ("=run__id", "=kind")
    ordering = ("-id",)
    fields = ("of_run", "created_at", "shown_level", "kind", "message", "shown_values")
    of_run = column("Run", lambda row: link_to(row.run), ordering="run_id")
    shown_level = column("Level", lambda row: show_state(row.level), ordering="level")
    shown_values = column("Values", lambda row: show_json(row.values))


@admin.register(Checkpoint)
class CheckpointAdmin(ReadOnly):
    """Checkpoints: the place up to which each pipeline has read."""

    list_display = ("pipeline", "stream", "cursor", "of_run", "updated_at")
    list_filter = ("pipeline",)
    list_select_related = ("pipeline", "run")
    search_fields = ("pipeline__name", "stream")
    fields = ("pipeline", "stream", "shown_cursor", "of_run", "updated_at")
    of_run = column("Run", lambda row: link_to(row.run))
    shown_cursor = column("Cursor", lambda row: show_json(row.cursor))
