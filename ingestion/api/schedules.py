"""Schedules: checked and previewed before they are saved."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import Moment, NameOrId, Strict, validated
from ingestion.api.pagination import PageQuery
from ingestion.api.resource import Resource, action, resource
from ingestion.models import Pipeline, Schedule
from ingestion.ports.errors import ConfigError
from ingestion.runs.start.schedules import check_schedule, next_slots

_RULE = ("cron", "interval_s", "timezone", "jitter_s", "missed_policy", "max_runs", "is_enabled", "starts_at")
_LARGEST = 2**31 - 1
_LIMITS = {name: {"max_value": _LARGEST} for name in ("interval_s", "jitter_s", "max_runs")}


class _RuleSerializer(Strict, serializers.ModelSerializer[Schedule]):
    starts_at = Moment(required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the rule; ConfigError where it cannot be evaluated."""
        rule = {name: getattr(self.instance, name) for name in _RULE} if self.instance is not None else {}
        check_schedule(Schedule(**{**rule, **{name: value for name, value in attrs.items() if name in _RULE}}))
        return attrs


class ScheduleSerializer(_RuleSerializer):
    """Times at which a pipeline runs by itself: a cron expression, or an interval."""

    pipeline = NameOrId(Pipeline.objects.all())
    next_times = serializers.SerializerMethodField(help_text="The next ten times, without jitter, in UTC.")

    class Meta:
        model = Schedule
        fields = ("id", "pipeline", *_RULE, "runs_created", "last_slot", "next_times", "created_at")
        read_only_fields = ("id", "runs_created", "last_slot", "created_at")
        extra_kwargs = _LIMITS

    @extend_schema_field(serializers.ListField(child=serializers.DateTimeField()))
    def get_next_times(self, schedule: Schedule) -> list[Any]:
        """Return the next ten times; none where the schedule is off, or was broken since it was saved."""
        if not schedule.is_enabled:
            return []
        try:
            return next_slots(schedule)
        except ConfigError:
            return []


class PreviewSerializer(_RuleSerializer):
    """A schedule that is not saved."""

    class Meta:
        model = Schedule
        fields = _RULE
        extra_kwargs = _LIMITS


class TimesSerializer(serializers.Serializer[Any]):
    """Times at which a schedule would run."""

    next_times = serializers.ListField(child=serializers.DateTimeField())


class SchedulesQuery(PageQuery):
    """Choice of schedules."""

    pipeline = NameOrId(Pipeline.objects.all(), required=False)


@resource(
    "schedules",
    ScheduleSerializer,
    query=SchedulesQuery,
    replace="Replace a schedule|Replace its rule.",
    change="Change a schedule|Change what is given.",
    delete="Remove a schedule|Remove it; the runs it has created stay.",
)
class Schedules(Resource):
    """The schedules."""

    rows = Schedule.objects.select_related("pipeline")
    query_classes = {"list": SchedulesQuery}
    serializer_class = ScheduleSerializer

    @action(
        "preview",
        "schedules_preview",
        "Show the next ten times before saving",
        of_all=True,
        request=PreviewSerializer,
        responses=TimesSerializer,
    )
    def preview(self, request: Request) -> Response:
        """Return the next ten times; nothing is saved."""
        return Response({"next_times": next_slots(Schedule(**validated(PreviewSerializer, request)))})
