"""Schedules: checked and previewed before they are saved."""

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import Moment, NameOrId, Strict, View, nothing, operation
from ingestion.api.pagination import PageQuery, keyset_page, page_answer, page_of
from ingestion.api.permissions import StaffWrites
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
    """When a pipeline runs by itself: a cron expression, or an interval."""

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
    """When a schedule would run."""

    next_times = serializers.ListField(child=serializers.DateTimeField())


class SchedulesQuery(PageQuery):
    """Which schedules are listed."""

    pipeline = NameOrId(Pipeline.objects.all(), required=False)


class SchedulesView(View):
    """All schedules."""

    permission_classes = (StaffWrites,)
    query_classes = {"GET": SchedulesQuery}

    @operation(
        "schedules_list", "List the schedules", parameters=[SchedulesQuery], responses=page_of(ScheduleSerializer)
    )
    def get(self, request: Request) -> Response:
        """Return a page of them."""
        rows = Schedule.objects.select_related("pipeline")
        if "pipeline" in self.query:
            rows = rows.filter(pipeline=self.query["pipeline"])
        page, following = keyset_page(request, self.query, rows)
        return page_answer(ScheduleSerializer(page, many=True).data, following)

    @operation("schedules_create", "Set a schedule up", request=ScheduleSerializer, responses={201: ScheduleSerializer})
    def post(self, request: Request) -> Response:
        """Set a new one up."""
        serializer = ScheduleSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=status.HTTP_201_CREATED)


class ScheduleView(View):
    """One schedule."""

    permission_classes = (StaffWrites,)

    @operation("schedules_read", "Show a schedule", responses=ScheduleSerializer)
    def get(self, request: Request, id: int) -> Response:  # noqa: A002 (the name in the address)
        """Return it."""
        return Response(ScheduleSerializer(_find(id)).data)

    @operation("schedules_replace", "Replace a schedule", request=ScheduleSerializer, responses=ScheduleSerializer)
    def put(self, request: Request, id: int) -> Response:  # noqa: A002
        """Replace its rule."""
        return self._change(request, id, partial=False)

    @operation(
        "schedules_change",
        "Change a schedule",
        request=ScheduleSerializer(partial=True),
        responses=ScheduleSerializer,
    )
    def patch(self, request: Request, id: int) -> Response:  # noqa: A002
        """Change what is given."""
        return self._change(request, id, partial=True)

    @operation("schedules_delete", "Remove a schedule", responses={204: nothing("It is removed.")})
    def delete(self, request: Request, id: int) -> Response:  # noqa: A002
        """Remove it; the runs it has created stay."""
        _find(id).delete()
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _change(self, request: Request, schedule_id: int, *, partial: bool) -> Response:
        serializer = ScheduleSerializer(_find(schedule_id), data=request.data, partial=partial)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data)


class PreviewView(View):
    """Shows when a schedule would run."""

    permission_classes = (StaffWrites,)

    @operation(
        "schedules_preview",
        "Show the next ten times before saving",
        request=PreviewSerializer,
        responses=TimesSerializer,
    )
    def post(self, request: Request) -> Response:
        """Return the next ten times; nothing is saved."""
        serializer = PreviewSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return Response({"next_times": next_slots(Schedule(**serializer.validated_data))})


def _find(schedule_id: int) -> Schedule:
    return get_object_or_404(Schedule.objects.select_related("pipeline"), pk=schedule_id)
