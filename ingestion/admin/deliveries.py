"""Deliveries: runs on their way into destinations."""

from django.contrib import admin
from django.utils.safestring import SafeString

from ingestion.admin.base import ReadOnly
from ingestion.admin.display import link_to, show_json, show_state
from ingestion.models import Delivery, DeliveryPart


@admin.register(Delivery)
class DeliveryAdmin(ReadOnly):
    """One run on its way into one destination."""

    list_display = (
        "__str__",
        "of_run",
        "destination",
        "shown_state",
        "inserted",
        "updated",
        "unchanged",
        "refused",
        "counted",
        "code",
    )
    list_filter = ("state", "destination")
    list_select_related = ("run", "destination")
    search_fields = ("=run__id", "destination__name", "=code")
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("of_run", "destination", "shown_state", "code", "message", "needs_abort")}),
        ("Books", {"fields": ("inserted", "updated", "unchanged", "refused", "counted")}),
        (
            "Work",
            {
                "fields": (
                    "attempt",
                    "looks",
                    "fence",
                    "lease_until",
                    "not_before",
                    "nudged_at",
                    "created_at",
                    "finished_at",
                )
            },
        ),
        ("Notes of the destination", {"fields": ("shown_refs",)}),
    )

    @admin.display(description="Run", ordering="run_id")
    def of_run(self, delivery: Delivery) -> SafeString:
        """Return a link to the run."""
        return link_to(delivery.run)

    @admin.display(description="State", ordering="state")
    def shown_state(self, delivery: Delivery) -> SafeString:
        """Return the state."""
        return show_state(delivery.state)

    @admin.display(description="Notes")
    def shown_refs(self, delivery: Delivery) -> SafeString:
        """Return what the sink noted down: task ids, keys."""
        return show_json(delivery.refs)


@admin.register(DeliveryPart)
class DeliveryPartAdmin(ReadOnly):
    """One clean part on its way into one destination."""

    list_display = ("__str__", "of_delivery", "of_part", "shown_state", "rows", "refused", "attempt", "code")
    list_filter = ("state",)
    list_select_related = ("delivery__destination", "part")
    search_fields = ("=delivery__run__id", "=code")
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("of_delivery", "of_part", "shown_state", "rows", "refused", "code", "message")}),
        ("Work", {"fields": ("attempt", "fence", "lease_until", "not_before", "nudged_at")}),
    )

    @admin.display(description="Delivery", ordering="delivery_id")
    def of_delivery(self, row: DeliveryPart) -> SafeString:
        """Return a link to the delivery."""
        return link_to(row.delivery)

    @admin.display(description="Part", ordering="part_id")
    def of_part(self, row: DeliveryPart) -> SafeString:
        """Return a link to the part."""
        return link_to(row.part)

    @admin.display(description="State", ordering="state")
    def shown_state(self, row: DeliveryPart) -> SafeString:
        """Return the state."""
        return show_state(row.state)
