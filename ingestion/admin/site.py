"""The site of the operators: Django's admin under our name, with an overview as its first page."""

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse

from ingestion.admin.overview import describe_installation


class HeadgateSite(AdminSite):
    """The admin whose index says first how things are."""

    site_header = "Headgate"
    site_title = "Headgate"
    index_title = "Overview"
    index_template = "admin/ingestion/overview.html"

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Return the overview: health, freshness, failures, throughput, then the list of models."""
        return super().index(request, {**describe_installation(), **(extra_context or {})})
