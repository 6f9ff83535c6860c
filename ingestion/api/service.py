"""Description of this installation and its links; its numbers; and the answer to addresses that are none."""

from typing import Any

from django.conf import settings
from django.http import Http404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from ingestion import registry
from ingestion.api.base import Strict, View, operation
from ingestion.api.pagination import MAX_SIZE
from ingestion.api.settings import VERSION
from ingestion.runs.read.quarantine import FORMATS
from ingestion.runs.read.statistics import collect_statistics
from ingestion.toolkit.rows.formats import MEDIA_TYPES

RESOURCES = (
    "sources", "destinations", "connectors", "sinks", "contracts", "pipelines", "schedules", "uploads", "runs",
    "deliveries", "data", "stats", "health", "schema", "docs",
)  # fmt: skip


class ServiceSerializer(serializers.Serializer[Any]):
    """Description of this installation."""

    name = serializers.CharField()
    version = serializers.CharField()
    user = serializers.CharField()
    is_staff = serializers.BooleanField()
    capabilities = serializers.DictField()
    links = serializers.DictField(child=serializers.URLField())


class ServiceView(View):
    """The root of the API."""

    @operation("service_read", "What this installation is", responses=ServiceSerializer)
    def get(self, request: Request) -> Response:
        """Return version, capabilities and links."""
        return Response(
            {
                "name": "Headgate",
                "version": VERSION,
                "user": request.user.get_username(),
                "is_staff": request.user.is_staff,
                "capabilities": {
                    "connectors": registry.known_kinds("connector"),
                    "sinks": registry.known_kinds("sink"),
                    "upload_max_bytes": settings.HEADGATE_UPLOAD_MAX_BYTES,
                    "rejected_formats": sorted(FORMATS),
                    "export_formats": sorted(MEDIA_TYPES),
                    "page_max": MAX_SIZE,
                },
                "links": {name: reverse(name, request=request) for name in RESOURCES},
            }
        )


class StatsQuery(Strict):
    """Over which time."""

    days = serializers.IntegerField(min_value=1, max_value=366, default=30)


class StatsSerializer(serializers.Serializer[Any]):
    """Numbers over all runs of some days."""

    days = serializers.IntegerField()
    runs = serializers.DictField()
    success_rate = serializers.FloatField(allow_null=True)
    rows = serializers.DictField(child=serializers.IntegerField())
    by_day = serializers.ListField(child=serializers.DictField())
    by_source = serializers.ListField(child=serializers.DictField())
    by_destination = serializers.ListField(child=serializers.DictField())
    by_day_and_destination = serializers.ListField(child=serializers.DictField())
    deliveries = serializers.DictField(help_text="total, by_state, and by_destination: the states at each.")
    recent_runs = serializers.ListField(child=serializers.DictField())


class StatsView(View):
    """Numbers over all runs."""

    query_class = StatsQuery

    @operation("stats_read", "Numbers over all runs", parameters=[StatsQuery], responses=StatsSerializer)
    def get(self, request: Request) -> Response:
        """Return runs and deliveries by state, the success rate, and rows by day, source and destination."""
        return Response(collect_statistics(days=self.query["days"]))


class UnknownView(View):
    """Every address below /api/ that is none, so that whoever is not known learns nothing of them."""

    schema = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Let in whoever is known, and say that there is nothing."""
        super(View, self).initial(request, *args, **kwargs)
        raise Http404
