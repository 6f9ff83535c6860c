"""The addresses of the API. Each is also understood with a slash at its end."""

from typing import Any

from django.urls import URLPattern, path, re_path, register_converter
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerView

from ingestion.api import (
    bulk,
    contracts,
    data,
    deliveries,
    destinations,
    health,
    housekeeping,
    kinds,
    legacy,
    pipelines,
    queries,
    records,
    rejected,
    run_details,
    runs,
    schedules,
    schema,
    service,
    sources,
    tokens,
    uploads,
)

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
    ("docs", SpectacularSwaggerView, "docs"),
    ("redoc", SpectacularRedocView, "redoc"),
    ("v1", service.ServiceView, "service"),
    ("v1/stats", service.StatsView, "stats"),
    ("v1/tokens", tokens.TokensView, "tokens"),
    ("v1/tokens/rotate", tokens.RotateView, "tokens-rotate"),
    ("v1/tokens/current", tokens.CurrentTokenView, "tokens-current"),
    ("v1/connectors", kinds.ConnectorsView, "connectors"),
    ("v1/sinks", kinds.SinksView, "sinks"),
    ("v1/sources", sources.SourcesView, "sources"),
    ("v1/sources/<int:id>", sources.SourceView, "source"),
    ("v1/sources/<int:id>/check", sources.SourceCheckView, "source-check"),
    ("v1/destinations", destinations.DestinationsView, "destinations"),
    ("v1/destinations/<int:id>", destinations.DestinationView, "destination"),
    ("v1/destinations/<int:id>/check", destinations.DestinationCheckView, "destination-check"),
    ("v1/destinations/<int:id>/fill", housekeeping.FillView, "destination-fill"),
    ("v1/destinations/<int:id>/compact", housekeeping.CompactView, "destination-compact"),
    ("v1/destinations/<int:id>/retain", housekeeping.RetainView, "destination-retain"),
    ("v1/destinations/<int:id>/drop", housekeeping.DropView, "destination-drop"),
    ("v1/destinations/<int:id>/schema", housekeeping.SchemaView, "destination-schema"),
    ("v1/destinations/<int:id>/schema/revert", housekeeping.SchemaRevertView, "destination-schema-revert"),
    ("v1/destinations/<int:id>/tasks", housekeeping.TasksView, "destination-tasks"),
    ("v1/destinations/<int:id>/tasks/<task:task>/log", housekeeping.TaskLogView, "destination-task-log"),
    ("v1/destinations/<int:id>/tasks/<task:task>/cancel", housekeeping.TaskCancelView, "destination-task-cancel"),
    ("v1/deliveries", deliveries.AllDeliveriesView, "deliveries"),
    ("v1/deliveries/<int:id>", deliveries.DeliveryView, "delivery"),
    ("v1/contracts", contracts.ContractsView, "contracts"),
    ("v1/contracts/<int:id>", contracts.ContractView, "contract"),
    ("v1/pipelines", pipelines.PipelinesView, "pipelines"),
    ("v1/pipelines/<int:id>", pipelines.PipelineView, "pipeline"),
    ("v1/pipelines/<int:id>/pause", pipelines.PauseView, "pipeline-pause"),
    ("v1/pipelines/<int:id>/resume", pipelines.ResumeView, "pipeline-resume"),
    ("v1/schedules", schedules.SchedulesView, "schedules"),
    ("v1/schedules/preview", schedules.PreviewView, "schedules-preview"),
    ("v1/schedules/<int:id>", schedules.ScheduleView, "schedule"),
    ("v1/uploads", uploads.UploadsView, "uploads"),
    ("v1/uploads/<int:id>", uploads.UploadView, "upload"),
    ("v1/runs", runs.RunsView, "runs"),
    ("v1/runs/bulk", bulk.BulkCreateView, "runs-bulk"),
    ("v1/runs/cancel", bulk.BulkCancelView, "runs-cancel"),
    ("v1/runs/<int:id>", runs.RunView, "run"),
    ("v1/runs/<int:id>/cancel", runs.CancelView, "run-cancel"),
    ("v1/runs/<int:id>/retry", runs.RetryView, "run-retry"),
    ("v1/runs/<int:id>/rollback", runs.RollBackView, "run-rollback"),
    ("v1/runs/<int:id>/redeliver", deliveries.RedeliverView, "run-redeliver"),
    ("v1/runs/<int:id>/events", run_details.EventsView, "run-events"),
    ("v1/runs/<int:id>/partitions", run_details.PartitionsView, "run-partitions"),
    ("v1/runs/<int:id>/parts", run_details.PartsView, "run-parts"),
    ("v1/runs/<int:id>/deliveries", run_details.DeliveriesView, "run-deliveries"),
    ("v1/runs/<int:id>/rejected", rejected.RejectedView, "run-rejected"),
    ("v1/runs/<int:id>/records", records.RecordsView, "run-records"),
    ("v1/data", data.DataView, "data"),
    ("v1/data/export", records.ExportView, "data-export"),
    ("v1/query", queries.QueryView, "query"),
    ("ingest/upload", legacy.UploadView, "ingest-upload"),
    ("ingest/status/<int:id>", legacy.StatusView, "ingest-status"),
)


def _patterns() -> list[URLPattern]:
    found = []
    for address, view, name in _ADDRESSES:
        options = {"url_name": "schema"} if name in ("docs", "redoc") else {}
        callback = view.as_view(**options)
        # The one without a slash comes last, so that links are made of it.
        found += [path(f"{address}/", callback, name=name), path(address, callback, name=name)]
    return [*found, re_path(r"^(?P<rest>.*)$", service.UnknownView.as_view(), name="unknown")]


urlpatterns = _patterns()
