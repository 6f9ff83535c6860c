"""The kinds of connectors and sinks that can be configured here, with the schema of their settings."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion import registry
from ingestion.api.base import View, operation


class ConnectorKindSerializer(serializers.Serializer[Any]):
    """A kind of source."""

    kind = serializers.CharField()
    description = serializers.CharField()
    secrets = serializers.ListField(child=serializers.CharField(), help_text="Fields that belong under secrets.")
    schema = serializers.DictField(help_text="JSON schema of config and secrets together.")


class SinkKindSerializer(ConnectorKindSerializer):
    """A kind of destination."""

    write_modes = serializers.ListField(child=serializers.CharField())
    formats = serializers.ListField(child=serializers.CharField())
    is_transactional = serializers.BooleanField()
    needs_lake = serializers.BooleanField()


class ConnectorKindsSerializer(serializers.Serializer[Any]):
    """All kinds of sources."""

    results = ConnectorKindSerializer(many=True)


class SinkKindsSerializer(serializers.Serializer[Any]):
    """All kinds of destinations."""

    results = SinkKindSerializer(many=True)


class ConnectorsView(View):
    """The kinds of sources."""

    @operation("connectors_list", "List the kinds of sources", responses=ConnectorKindsSerializer)
    def get(self, request: Request) -> Response:
        """Return every kind with the schema of its settings."""
        return Response({"results": [_describe("connector", kind) for kind in registry.known_kinds("connector")]})


class SinksView(View):
    """The kinds of destinations."""

    @operation("sinks_list", "List the kinds of destinations", responses=SinkKindsSerializer)
    def get(self, request: Request) -> Response:
        """Return every kind with the schema of its settings and what it can do."""
        return Response({"results": [_describe_sink(kind) for kind in registry.known_kinds("sink")]})


def _describe(port: str, kind: str) -> dict[str, Any]:
    plugin = registry.plugin_class(port, kind)
    return {
        "kind": kind,
        "description": (plugin.__doc__ or "").strip().partition("\n")[0],
        "secrets": sorted(registry.secret_fields(port, kind)),
        "schema": plugin.Config.model_json_schema(),
    }


def _describe_sink(kind: str) -> dict[str, Any]:
    can = registry.plugin_class("sink", kind).capabilities
    return {
        **_describe("sink", kind),
        "write_modes": sorted(can.write_modes),
        "formats": sorted(can.formats),
        "is_transactional": can.is_transactional,
        "needs_lake": can.needs_lake,
    }
