"""Destinations: how each fares, what can be done with its kind, and the pages that do it."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path, reverse
from django.views.generic import RedirectView

from ingestion.admin.configured import ConfiguredAdmin
from ingestion.admin.display import column, list_address, show_state
from ingestion.admin.housekeeping import OPERATIONS, operate
from ingestion.admin.outside import show_schema, show_tasks
from ingestion.models import GIVEN_UP_STATES, OPEN_DELIVERY_STATES, Delivery, Destination
from ingestion.ports.check import CheckReport
from ingestion.runs.operate import housekeeping
from ingestion.runs.read.destinations import DestinationHealth, address_of, health_of
from ingestion.runs.start import probing

_LABELS = {
    "redeliver": "Redeliver",
    "compact": "Compact",
    "retain": "Retain",
    "schema": "Schema",
    "tasks": "Tasks",
    "drop": "Drop",
}


class DestinationChangeList(ChangeList):
    """A page of destinations; how they fare is asked for all of them at once."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, and how its destinations fare."""
        super().get_results(request)
        self.result_list = list(self.result_list)
        health = health_of(self.result_list)
        for destination in self.result_list:
            destination.health = health[destination.pk]


@admin.register(Destination)
class DestinationAdmin(ConfiguredAdmin):
    """Places that data go to."""

    port = "sink"
    change_form_template = "admin/ingestion/destination/change_form.html"
    list_display = ("name", "kind", "address", "condition", "deliveries", "last_verified", "pipeline_count")
    address = column("Address", lambda row: address_of(row.config) or "-")
    condition = column("State", lambda row: show_state(_health(row).state))
    deliveries = column("Under way, given up", lambda row: f"{_health(row).open}, {_health(row).failed}")

    def probe(self, row: Any) -> CheckReport:
        """Return what a test of the destination finds."""
        return probing.check_destination(row)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the list that knows how each destination fares."""
        return DestinationChangeList

    def get_urls(self) -> list[Any]:
        """Return the pages, and one for each thing that can be done."""
        own = [
            path(
                f"<path:object_id>/{name}/",
                self.admin_site.admin_view(self.operation_view),
                {"operation": name},
                name=f"ingestion_destination_{name}",
            )
            for name in _LABELS
        ]
        fill = RedirectView.as_view(pattern_name="admin:ingestion_destination_redeliver")  # its older name
        return [*own, path("<path:object_id>/fill/", fill), *super().get_urls()]

    def operation_view(self, request: HttpRequest, object_id: str, operation: str) -> HttpResponse:
        """Return the page on which the operation is planned, confirmed and done."""
        destination = self.get_object(request, unquote(object_id))
        if destination is None:
            raise Http404
        may_change = self.has_operate_permission(request)
        is_harmless = operation not in OPERATIONS and request.method == "GET"
        if not (may_change or (is_harmless and self.has_view_permission(request, destination))):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "original": destination,
            "media": self.media,
            "may_change": may_change,
        }
        if operation in OPERATIONS:
            chosen = OPERATIONS[operation]
            return operate(request, site=self, destination=destination, operation=chosen, context=context)
        show = show_schema if operation == "schema" else show_tasks
        return show(request, site=self, destination=destination, context=context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the destination's page with how it fares and what can be done."""
        destination = self.get_object(request, unquote(object_id))
        about: dict[str, Any] = {}
        if destination is not None and self.has_view_permission(request, destination):
            about = _describe(destination, may_change=self.has_operate_permission(request))
        return super().change_view(request, object_id, form_url, {**about, **(extra_context or {})})

    @admin.display(description="Last verified")
    def last_verified(self, row: Any) -> str:
        """Return when a delivery last came through."""
        at = _health(row).last_verified_at
        return f"{at:%Y-%m-%d %H:%M}" if at else "-"


def _health(row: Any) -> DestinationHealth:
    found: DestinationHealth = row.health
    return found


def _describe(destination: Destination, *, may_change: bool) -> dict[str, Any]:
    own = {"destination__id__exact": destination.pk}
    possible = {"redeliver", *housekeeping.operations_of(destination.kind)}
    shown = {"schema", "tasks"} if not may_change else set(_LABELS)
    return {
        "destination": destination,
        "address": address_of(destination.config),
        "health": health_of([destination])[destination.pk],
        "deliveries_address": list_address(Delivery, **own),
        "open_address": list_address(Delivery, **own, state__in=",".join(sorted(OPEN_DELIVERY_STATES))),
        "failed_address": list_address(Delivery, **own, state__in=",".join(sorted(GIVEN_UP_STATES))),
        "links": [
            (label, reverse(f"admin:ingestion_destination_{name}", args=(destination.pk,)))
            for name, label in _LABELS.items()
            if name in possible & shown
        ],
    }
