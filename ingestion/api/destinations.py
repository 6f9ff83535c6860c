"""Destinations: set up, tried out, and how they fare."""

from collections.abc import Sequence
from typing import Any

from drf_spectacular.utils import extend_schema_field, extend_schema_view
from rest_framework import serializers

from ingestion.api.base import nothing, operation
from ingestion.api.configured import (
    CheckSerializer,
    CheckView,
    CollectionView,
    ConfiguredSerializer,
    ItemView,
)
from ingestion.api.pagination import PageQuery, page_of
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
    """How a destination fares."""

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


@extend_schema_view(
    get=operation(
        "destinations_list", "List the destinations", parameters=[PageQuery], responses=page_of(DestinationSerializer)
    ),
    post=operation(
        "destinations_create",
        "Set a destination up",
        request=DestinationSerializer,
        responses={201: DestinationSerializer},
    ),
)
class DestinationsView(CollectionView):
    """All destinations."""

    model = Destination
    serializer_class = DestinationSerializer

    def know(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return how they all fare."""
        return {"health": health_of(rows)}


@extend_schema_view(
    get=operation("destinations_read", "Show a destination", responses=DestinationSerializer),
    put=operation(
        "destinations_replace",
        "Replace a destination's settings",
        request=DestinationSerializer,
        responses=DestinationSerializer,
    ),
    patch=operation(
        "destinations_change",
        "Change a destination",
        request=DestinationSerializer(partial=True),
        responses=DestinationSerializer,
    ),
    delete=operation("destinations_delete", "Remove a destination", responses={204: nothing("It is removed.")}),
)
class DestinationView(ItemView):
    """One destination."""

    model = Destination
    serializer_class = DestinationSerializer


@extend_schema_view(
    post=operation(
        "destinations_check", "Try a destination out, layer by layer", request=None, responses=CheckSerializer
    )
)
class DestinationCheckView(CheckView):
    """Tries one destination out."""

    model = Destination
    check = staticmethod(probing.check_destination)
