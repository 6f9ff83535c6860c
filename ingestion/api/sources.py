"""Sources: set up, tried out."""

from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.configured import CONFIGURED, CheckSerializer, ConfiguredSerializer
from ingestion.api.resource import Resource, action, resource
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


@resource("sources", SourceSerializer, **CONFIGURED)
class Sources(Resource):
    """The sources."""

    rows = Source.objects.all()
    serializer_class = SourceSerializer

    @action(
        "check",
        "sources_check",
        "Try a source out, layer by layer",
        permission_classes=(IsAuthenticated,),
        responses=CheckSerializer,
    )
    def check(self, request: Request, id: int) -> Response:
        """Return which layer answers and which does not."""
        return Response(CheckSerializer(probing.check_source(self.find(id))).data)
