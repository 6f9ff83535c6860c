"""Health of this installation; the only addresses that anybody may ask."""

from typing import Any

from rest_framework import serializers, status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import View, operation
from ingestion.runs.operate.health import check_readiness, last_run_state

STATUSES = ("ok", "degraded", "unavailable")


class AliveSerializer(serializers.Serializer[Any]):
    """The process answers."""

    status = serializers.CharField()


class PartHealthSerializer(serializers.Serializer[Any]):
    """One part of the installation."""

    part = serializers.CharField()
    is_ok = serializers.BooleanField()
    is_critical = serializers.BooleanField()
    elapsed_ms = serializers.FloatField()
    blocks = serializers.CharField(help_text="What waits for it; empty where it answers.")


class ReadySerializer(serializers.Serializer[Any]):
    """Health of the whole, and of each part."""

    status = serializers.ChoiceField(choices=STATUSES)
    parts = PartHealthSerializer(many=True)


class LastRunSerializer(serializers.Serializer[Any]):
    """The run that ended last."""

    id = serializers.IntegerField()
    state = serializers.CharField()
    finished_at = serializers.DateTimeField()


class HealthSerializer(ReadySerializer):
    """Readiness, and the run that ended last."""

    last_run = LastRunSerializer(allow_null=True)


class OpenView(View):
    """A view without authentication: it must answer when the database does not."""

    authentication_classes = ()
    permission_classes = (AllowAny,)


class LiveView(OpenView):
    """Answer of the process alone."""

    @operation("health_live", "Whether the process answers", responses=AliveSerializer)
    def get(self, request: Request) -> Response:
        """Return at once, without asking any part."""
        return Response({"status": "ok"})


class ReadyView(OpenView):
    """Readiness to serve requests."""

    @operation("health_ready", "Whether requests can be served", responses={200: ReadySerializer, 503: ReadySerializer})
    def get(self, request: Request) -> Response:
        """Return each part; 503 where the database does not answer."""
        return _answer(*_ready())


class HealthView(OpenView):
    """Readiness, and the run that ended last."""

    @operation("health_read", "Health of all parts", responses={200: HealthSerializer, 503: HealthSerializer})
    def get(self, request: Request) -> Response:
        """Return each part; 503 where the database does not answer."""
        is_ready, body = _ready()
        return _answer(is_ready, {**body, "last_run": last_run_state() if is_ready else None})


def _ready() -> tuple[bool, dict[str, Any]]:
    is_ready, parts = check_readiness()
    is_whole = all(part.is_ok for part in parts)
    state = "ok" if is_whole else "degraded" if is_ready else "unavailable"
    return is_ready, {"status": state, "parts": PartHealthSerializer(parts, many=True).data}


def _answer(is_ready: bool, body: dict[str, Any]) -> Response:
    return Response(body, status=status.HTTP_200_OK if is_ready else status.HTTP_503_SERVICE_UNAVAILABLE)
