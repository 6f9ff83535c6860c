"""What a run is made of: partitions, parts, its log, and how far its pipeline has read."""

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.safestring import SafeString

from ingestion.admin.base import ReadOnly
from ingestion.admin.display import link_to, processing_status, show_json, show_size, show_state
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

    @admin.display(description="Run", ordering="run_id")
    def of_run(self, partition: Partition) -> SafeString:
        """Return a link to the run."""
        return link_to(partition.run)

    @admin.display(description="State", ordering="state")
    def shown_state(self, partition: Partition) -> SafeString:
        """Return the state."""
        return show_state(partition.state)

    @admin.display(description="Raw data", ordering="raw_bytes")
    def raw_size(self, partition: Partition) -> str:
        """Return how much was fetched."""
        return show_size(partition.raw_bytes)

    @admin.display(description="Cursor")
    def shown_cursor(self, partition: Partition) -> SafeString:
        """Return where the next page begins."""
        return show_json(partition.cursor)

    @admin.display(description="What it reads")
    def shown_spec(self, partition: Partition) -> SafeString:
        """Return what the connector was asked to read."""
        return show_json(partition.spec)


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

    def get_queryset(self, request: HttpRequest) -> QuerySet[Part]:
        """Return the parts with the state of their partition."""
        return with_partition_state(super().get_queryset(request))

    @admin.display(description="Run", ordering="run_id")
    def of_run(self, part: Part) -> SafeString:
        """Return a link to the run."""
        return link_to(part.run)

    @admin.display(description="Lane-link, number")
    def place(self, part: Part) -> str:
        """Return which partition it belongs to, and its number there."""
        return f"{part.lane}-{part.link}, {part.seq}"

    @admin.display(description="Size", ordering="size_bytes")
    def size(self, part: Part) -> str:
        """Return the object's size."""
        return show_size(part.size_bytes)

    @admin.display(description="Processing")
    def processing(self, part: Any) -> SafeString | str:
        """Return how far a raw part's records have come."""
        status = processing_status(part, partition_state=part.partition_state)
        return show_state(status) if status else "-"

    @admin.display(description="Pages")
    def shown_pages(self, part: Part) -> SafeString:
        """Return the page index of a raw part of an API."""
        return show_json(part.pages)


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

    @admin.display(description="Run", ordering="run_id")
    def of_run(self, event: RunEvent) -> SafeString:
        """Return a link to the run."""
        return link_to(event.run)

    @admin.display(description="Level", ordering="level")
    def shown_level(self, event: RunEvent) -> SafeString:
        """Return how serious it is."""
        return show_state(event.level)

    @admin.display(description="Values")
    def shown_values(self, event: RunEvent) -> SafeString:
        """Return the values that belong to the line."""
        return show_json(event.values)


@admin.register(Checkpoint)
class CheckpointAdmin(ReadOnly):
    """How far each pipeline has read."""

    list_display = ("pipeline", "stream", "cursor", "of_run", "updated_at")
    list_filter = ("pipeline",)
    list_select_related = ("pipeline", "run")
    search_fields = ("pipeline__name", "stream")
    fields = ("pipeline", "stream", "shown_cursor", "of_run", "updated_at")

    @admin.display(description="Run")
    def of_run(self, checkpoint: Checkpoint) -> SafeString:
        """Return a link to the run that moved it last."""
        return link_to(checkpoint.run)

    @admin.display(description="Cursor")
    def shown_cursor(self, checkpoint: Checkpoint) -> SafeString:
        """Return where the next run begins."""
        return show_json(checkpoint.cursor)
