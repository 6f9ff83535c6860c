"""Sources: set up, tried out."""

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
from ingestion.models import Source
from ingestion.runs.start import probing
from ingestion.runs.start.pipelines import check_source_config


class SourceSerializer(ConfiguredSerializer):
    """A configured place data come from."""

    port = "connector"
    check = staticmethod(check_source_config)

    class Meta:
        model = Source
        fields = ("id", "name", "kind", "config", "secrets", "rate_per_s", "burst", "created_at", "updated_at")
        read_only_fields = ("id", "created_at", "updated_at")
        extra_kwargs = {
            "rate_per_s": {"min_value": 0.001, "max_value": 1e6},
            "burst": {"min_value": 1, "max_value": 100_000},
        }


@extend_schema_view(
    get=operation("sources_list", "List the sources", parameters=[PageQuery], responses=page_of(SourceSerializer)),
    post=operation("sources_create", "Set a source up", request=SourceSerializer, responses={201: SourceSerializer}),
)
class SourcesView(CollectionView):
    """All sources."""

    model = Source
    serializer_class = SourceSerializer


@extend_schema_view(
    get=operation("sources_read", "Show a source", responses=SourceSerializer),
    put=operation(
        "sources_replace", "Replace a source's settings", request=SourceSerializer, responses=SourceSerializer
    ),
    patch=operation(
        "sources_change", "Change a source", request=SourceSerializer(partial=True), responses=SourceSerializer
    ),
    delete=operation("sources_delete", "Remove a source", responses={204: nothing("It is removed.")}),
)
class SourceView(ItemView):
    """One source."""

    model = Source
    serializer_class = SourceSerializer


@extend_schema_view(
    post=operation("sources_check", "Try a source out, layer by layer", request=None, responses=CheckSerializer)
)
class SourceCheckView(CheckView):
    """Tries one source out."""

    model = Source
    check = staticmethod(probing.check_source)
