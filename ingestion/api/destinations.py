"""Destinations: set up, tried out, and how they fare."""

from collections.abc import Sequence
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.configured import CONFIGURED, CheckSerializer, ConfiguredSerializer
from ingestion.api.housekeeping import DestinationActions
from ingestion.api.resource import action, resource
from ingestion.models import Destination
from ingestion.runs.operate import housekeeping
from ingestion.runs.read.destinations import DestinationHealth, health_of
from ingestion.runs.start import probing
from ingestion.runs.start.pipelines import check_destination_config


class FailingSerializer(serializers.Serializer[Any]):
    """A pipeline whose newest delivery there was given up."""

    pipeline = serializers.CharField()
    run = serializers.IntegerField(source="run_id")
    state = serializers.CharField()
    code = serializers.CharField()
    message = serializers.CharField()


class DestinationHealthSerializer(serializers.Serializer[Any]):
    """Health of a destination."""

    state = serializers.CharField(help_text="`ok`, `failing`, or `unused` where no delivery has ended yet.")
    open = serializers.IntegerField(help_text="Deliveries under way.")
    failed = serializers.IntegerField(help_text="Deliveries that were given up and not made again.")
    verified = serializers.IntegerField(help_text="Deliveries that came through.")
    rows = serializers.IntegerField(help_text="Rows that these brought.")
    last_verified_at = serializers.DateTimeField(allow_null=True)
    last_verified_run = serializers.IntegerField(allow_null=True)
    failing = FailingSerializer(many=True)


class DestinationSerializer(ConfiguredSerializer):
    """A configured place data go to."""

    port = "sink"
    check = staticmethod(check_destination_config)

    operations = serializers.SerializerMethodField(
        help_text="What can be done with it: of compact, retain, drop, schema and tasks."
    )
    health = serializers.SerializerMethodField()

    class Meta:
        model = Destination
        fields = ("id", "name", "kind", "config", "secrets", "operations", "health", "created_at", "updated_at")
        read_only_fields = ("id", "created_at", "updated_at")

    def get_operations(self, destination: Destination) -> list[str]:
        """Return what can be done with its kind."""
        return housekeeping.operations_of(destination.kind)

    @extend_schema_field(DestinationHealthSerializer)
    def get_health(self, destination: Destination) -> Any:
        """Return how it fares."""
        known: dict[int, DestinationHealth] = self.context.get("health") or health_of([destination])
        return DestinationHealthSerializer(known[destination.pk]).data


@resource("destinations", DestinationSerializer, **CONFIGURED)
class Destinations(DestinationActions):
    """The destinations."""

    rows = Destination.objects.all()
    serializer_class = DestinationSerializer

    def know(self, page: Sequence[Any]) -> dict[str, Any]:
        """Return how they all fare."""
        return {"health": health_of(page)}

    @action(
        "check",
        "destinations_check",
        "Try a destination out, layer by layer",
        permission_classes=(IsAuthenticated,),
        responses=CheckSerializer,
    )
    def check(self, request: Request, id: int) -> Response:
        """Return which layer answers and which does not."""
        return Response(CheckSerializer(probing.check_destination(self.find(id))).data)
