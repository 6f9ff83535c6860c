"""Destinations: set up, tried out."""

from drf_spectacular.utils import extend_schema_view

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
from ingestion.runs import probing
from ingestion.runs.pipelines import check_destination_config


class DestinationSerializer(ConfiguredSerializer):
    """A configured place data go to."""

    port = "sink"
    check = staticmethod(check_destination_config)

    class Meta:
        model = Destination
        fields = ("id", "name", "kind", "config", "secrets", "created_at", "updated_at")
        read_only_fields = ("id", "created_at", "updated_at")


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
