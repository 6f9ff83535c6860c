"""The addresses of the API. Each is also understood with a slash at its end."""

from collections.abc import Iterator
from typing import Any

from django.urls import URLPattern, path, re_path, register_converter
from drf_spectacular.views import SpectacularAPIView

from ingestion.api import (
    bulk,
    contracts,
    data,
    deliveries,
    destinations,
    docs,
    health,
    kinds,
    legacy,
    pipelines,
    queries,
    records,
    rejected,
    runs,
    schedules,
    schema,
    service,
    sources,
    tokens,
    uploads,
)
from ingestion.api.resource import Resource, singular

SCHEMES = (schema.TokenScheme, schema.SessionScheme)
"""Named here, so that the OpenAPI document finds them."""


class TaskConverter:
    """The id of a task at a destination, as a segment of an address."""

    regex = r"[A-Za-z0-9._:-]{1,255}"

    def to_python(self, value: str) -> str:
        """Return the id."""
        return value

    def to_url(self, value: str) -> str:
        """Return the id."""
        return value


register_converter(TaskConverter, "task")

_ADDRESSES: tuple[tuple[str, Any, str], ...] = (
    ("health/live", health.LiveView, "health-live"),
    ("health/ready", health.ReadyView, "health-ready"),
    ("v1/health", health.HealthView, "health"),
    ("schema", SpectacularAPIView, "schema"),
    ("docs", docs.SwaggerView, "docs"),
    ("redoc", docs.RedocView, "redoc"),
    ("v1", service.ServiceView, "service"),
    ("v1/stats", service.StatsView, "stats"),
    ("v1/tokens", tokens.TokensView, "tokens"),
    ("v1/tokens/rotate", tokens.RotateView, "tokens-rotate"),
    ("v1/tokens/current", tokens.CurrentTokenView, "tokens-current"),
    ("v1/connectors", kinds.ConnectorsView, "connectors"),
    ("v1/sinks", kinds.SinksView, "sinks"),
    ("v1/runs/bulk", bulk.BulkCreateView, "runs-bulk"),
    ("v1/runs/cancel", bulk.BulkCancelView, "runs-cancel"),
    ("v1/runs/<int:id>/redeliver", deliveries.RedeliverView, "run-redeliver"),
    ("v1/runs/<int:id>/rejected", rejected.RejectedView, "run-rejected"),
    ("v1/runs/<int:id>/records", records.RecordsView, "run-records"),
    ("v1/data", data.DataView, "data"),
    ("v1/data/export", records.ExportView, "data-export"),
    ("v1/query", queries.QueryView, "query"),
    ("ingest/upload", legacy.UploadView, "ingest-upload"),
    ("ingest/status/<int:id>", legacy.StatusView, "ingest-status"),
)


_RESOURCES: dict[str, type[Resource]] = {
    "sources": sources.Sources,
    "destinations": destinations.Destinations,
    "contracts": contracts.Contracts,
    "pipelines": pipelines.Pipelines,
    "schedules": schedules.Schedules,
    "uploads": uploads.Uploads,
    "runs": runs.Runs,
    "deliveries": deliveries.Deliveries,
}
_ROW = {"get": "retrieve", "put": "update", "patch": "partial_update", "delete": "destroy"}


def _resource(many: str, resource: type[Resource]) -> Iterator[tuple[str, Any, str]]:
    one = singular(many)
    yield f"v1/{many}", resource.as_view({"get": "list", "post": "create"}), many
    yield f"v1/{many}/<int:id>", resource.as_view(_ROW), one
    for act in resource.get_extra_actions():
        start, name = (f"v1/{many}/<int:id>", one) if act.detail else (f"v1/{many}", many)
        yield f"{start}/{act.url_path}", resource.as_view(dict(act.mapping), **act.kwargs), f"{name}-{act.url_name}"


def _addresses() -> Iterator[tuple[str, Any, str]]:
    for address, view, name in _ADDRESSES:
        options = {"url_name": "schema"} if name in ("docs", "redoc") else {}
        yield address, view.as_view(**options), name
    for many, resource in _RESOURCES.items():
        yield from _resource(many, resource)


def _patterns() -> list[URLPattern]:
    found = []
    for address, callback, name in _addresses():
        # The one without a slash comes last, so that links are made of it.
        found += [path(f"{address}/", callback, name=name), path(address, callback, name=name)]
    return [*found, re_path(r"^(?P<rest>.*)$", service.UnknownView.as_view(), name="unknown")]


urlpatterns = _patterns()
