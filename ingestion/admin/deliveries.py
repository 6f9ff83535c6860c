"""Deliveries: runs on their way into destinations, how they went, and made again."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from ingestion.admin.base import ReadOnly, WithButtons
from ingestion.admin.display import column, link_to, show_json, show_state
from ingestion.models import (
    OPEN_DELIVERY_STATES,
    PUBLISHED_RUN_STATES,
    UNDELIVERED_STATES,
    Delivery,
    DeliveryPart,
    RunState,
)
from ingestion.runs.deliver.redelivery import redeliver
from ingestion.runs.operate import housekeeping
from ingestion.runs.read.history import history_of, notes_of, task_of


@admin.register(Delivery)
class DeliveryAdmin(ReadOnly, WithButtons):
    """One run on its way into one destination."""

    change_form_template = "admin/ingestion/delivery/change_form.html"
    actions = ("deliver_again",)
    buttons = ("deliver_again",)
    list_display = (
        "__str__",
        "of_run",
        "destination",
        "shown_state",
        "inserted",
        "updated",
        "unchanged",
        "rejected",
        "counted",
        "code",
    )
    list_filter = ("state", "destination", "run__pipeline", "is_redelivery")
    list_select_related = ("run__pipeline", "destination")
    search_fields = ("=run__id", "destination__name", "=code")
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("is_redelivery", "needs_abort")}),
        ("Control totals", {"fields": ("inserted", "updated", "unchanged", "rejected", "counted")}),
        (
            "Work",
            {
                "fields": (
                    "attempt",
                    "polls",
                    "fence",
                    "lease_until",
                    "not_before",
                    "sent_at",
                    "created_at",
                    "finished_at",
                )
            },
        ),
        ("Notes of the destination", {"fields": ("shown_refs",)}),
    )
    of_run = column("Run", lambda row: link_to(row.run), ordering="run_id")
    shown_state = column("State", lambda row: show_state(row.state), ordering="state")
    shown_refs = column("Notes", lambda row: show_json(notes_of(row)))

    def may_act(self, obj: Any, name: str) -> bool:
        """Return whether the run was published, and its rows are not there."""
        return obj.run.state in PUBLISHED_RUN_STATES and obj.state in UNDELIVERED_STATES

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the delivery's page with how it went."""
        delivery = self.get_object(request, unquote(object_id))
        about = _describe(delivery) if delivery is not None and self.has_view_permission(request, delivery) else {}
        return super().change_view(request, object_id, form_url, {**about, **(extra_context or {})})

    @admin.action(description="Deliver again", permissions=["operate"])
    def deliver_again(self, request: HttpRequest, rows: Any) -> None:
        """Bring the rows there once more, from the lake."""

        def again(delivery: Any) -> str:
            redeliver(delivery.run_id, delivery.destination, by=str(request.user.get_username()))
            return "It is made again, from the lake."

        for delivery in rows.select_related("destination"):
            self.attempt(request, delivery, again)


def _describe(delivery: Delivery) -> dict[str, Any]:
    task = task_of(delivery)
    tasks = reverse("admin:ingestion_destination_tasks", args=(delivery.destination_id,))
    rejected = reverse("admin:ingestion_run_rejected", args=(delivery.run_id,))
    return {
        "delivery": delivery,
        "history": history_of(delivery),
        "task": task,
        "task_address": f"{tasks}?log={task}",
        "console": housekeeping.outside_task_link(delivery.destination, task) if task else "",
        "rejected_address": f"{rejected}?outcome=rejected_by_destination",
        "is_live": delivery.state in OPEN_DELIVERY_STATES,
        "is_retried_with_run": delivery.run.state == RunState.PARTIAL and delivery.state in UNDELIVERED_STATES,
    }


@admin.register(DeliveryPart)
class DeliveryPartAdmin(ReadOnly):
    """One clean part on its way into one destination."""

    list_display = ("__str__", "of_delivery", "of_part", "shown_state", "rows", "rejected", "attempt", "code")
    list_filter = ("state",)
    list_select_related = ("delivery__destination", "part")
    search_fields = ("=delivery__run__id", "=code")
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("of_delivery", "of_part", "shown_state", "rows", "rejected", "code", "message")}),
        ("Work", {"fields": ("attempt", "fence", "lease_until", "not_before", "sent_at")}),
    )
    of_delivery = column("Delivery", lambda row: link_to(row.delivery), ordering="delivery_id")
    of_part = column("Part", lambda row: link_to(row.part), ordering="part_id")
    shown_state = column("State", lambda row: show_state(row.state), ordering="state")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow what the run's page links to, too."""
        return lookup == "delivery__run__id__exact" or super().lookup_allowed(lookup, value, request)
