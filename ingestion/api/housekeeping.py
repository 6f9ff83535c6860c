"""What staff may do with a destination beyond deliveries: fill it, tidy it up, empty it, change its tables back."""

from collections.abc import Callable
from typing import Any, ClassVar

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema_view
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import NameOrId, Strict, View, nothing, operation, validated
from ingestion.api.bodies import NO_BODY
from ingestion.api.deliveries import DeliverySerializer
from ingestion.api.permissions import StaffWrites
from ingestion.models import Destination, Pipeline
from ingestion.ports.housekeeping import Housekeeping
from ingestion.runs.deliver.redelivery import fill_destination
from ingestion.runs.operate import housekeeping
from ingestion.runs.read.history import deliveries_of_tasks

MOST_RUNS = 1_000_000
MOST_DAYS = 36_500
_TASK = OpenApiParameter("task", str, OpenApiParameter.PATH, description="Letters, digits and `. _ : -`.")


class OfPipelineSerializer(Strict):
    """Whose rows are meant."""

    pipeline = NameOrId(Pipeline.objects.select_related("contract"))


class CompactSerializer(OfPipelineSerializer):
    """What is to be written together."""

    dry_run = serializers.BooleanField(default=False, help_text="Say what would be done, and do nothing.")


class RetainSerializer(CompactSerializer):
    """What is to be kept beside what readers see; without a rule every publication is."""

    keep_runs = serializers.IntegerField(
        required=False, min_value=0, max_value=MOST_RUNS, help_text="The newest publications, whatever their age."
    )
    keep_days = serializers.IntegerField(
        required=False, min_value=0, max_value=MOST_DAYS, help_text="Those of the last days."
    )


class DropSerializer(CompactSerializer):
    """What is to be removed, and that it is meant."""

    confirm = serializers.CharField(
        required=False, default="", max_length=63, help_text="The pipeline's name; a dry run needs none."
    )


class HousekeepingSerializer(serializers.Serializer[Any]):
    """What was done, or would be."""

    actions = serializers.ListField(child=serializers.CharField())
    object_count = serializers.IntegerField()
    size_bytes = serializers.IntegerField()
    is_dry_run = serializers.BooleanField()


class FilledSerializer(serializers.Serializer[Any]):
    """What a destination is being filled with."""

    deliveries = DeliverySerializer(many=True)


class SchemaChangeSerializer(serializers.Serializer[Any]):
    """One difference between a table and a contract."""

    column = serializers.CharField()
    what = serializers.CharField()
    statement = serializers.CharField()
    id = serializers.CharField(help_text="Names an applied change; empty in a plan.")
    revertible_until = serializers.CharField(help_text="ISO time; empty in a plan.")


class SchemaSerializer(serializers.Serializer[Any]):
    """How a pipeline's table changes."""

    planned = SchemaChangeSerializer(many=True, help_text="What the next delivery would change, in order.")
    applied = SchemaChangeSerializer(many=True, help_text="What can still be reverted, newest first.")


class RevertSerializer(OfPipelineSerializer):
    """Which change is to be undone."""

    change = serializers.CharField(max_length=200, help_text="The `id` of an applied change.")


class OutsideTaskSerializer(serializers.Serializer[Any]):
    """A task that the destination runs for us."""

    id = serializers.CharField()
    state = serializers.CharField(help_text="In the destination's own words.")
    dataset = serializers.CharField()
    created_at = serializers.CharField()
    duration_ms = serializers.IntegerField(allow_null=True, help_text="Null while it is at work.")
    message = serializers.CharField()
    link = serializers.CharField(help_text="Where the destination's own console shows it.")
    delivery = serializers.IntegerField(allow_null=True, help_text="The delivery it works for.")
    run = serializers.IntegerField(allow_null=True)


class OutsideTasksSerializer(serializers.Serializer[Any]):
    """Our tasks at a destination, newest first."""

    results = OutsideTaskSerializer(many=True)


class TaskLogSerializer(serializers.Serializer[Any]):
    """The end of a task's log."""

    task = serializers.CharField()
    log = serializers.CharField(help_text="Without secrets; empty where there is none, or none yet.")


class TasksQuery(Strict):
    """How many tasks are listed."""

    limit = serializers.IntegerField(min_value=1, max_value=housekeeping.MOST_TASKS, default=50)


class TailQuery(Strict):
    """How much of a log is shown."""

    tail = serializers.IntegerField(
        min_value=1,
        max_value=housekeeping.MOST_LOG_BYTES,
        default=housekeeping.LOG_BYTES,
        help_text="Bytes from its end.",
    )


class _OfDestination(View):
    permission_classes = (StaffWrites,)

    def find(self, destination_id: int) -> Destination:
        """Return the destination of the address."""
        found: Destination = get_object_or_404(Destination, pk=destination_id)
        return found


class FillView(_OfDestination):
    """Brings a pipeline's published state into a destination."""

    @operation(
        "destinations_fill",
        "Bring what a pipeline has published, and the destination lacks, there",
        description="From the lake, the oldest run first. What is there, or under way, is left out.",
        request=OfPipelineSerializer,
        responses={202: FilledSerializer},
    )
    def post(self, request: Request, id: int) -> Response:  # noqa: A002 (the name in the address)
        """Return the deliveries, which were begun; none where nothing is missing."""
        destination = self.find(id)
        asked = validated(OfPipelineSerializer, request)
        made = fill_destination(asked["pipeline"], destination, by=request.user.get_username())
        return Response(FilledSerializer({"deliveries": made}).data, status=status.HTTP_202_ACCEPTED)


class _HousekeepingView(_OfDestination):
    body_class: ClassVar[type[Strict]]
    act: ClassVar[Callable[..., Housekeeping]]

    def post(self, request: Request, id: int) -> Response:  # noqa: A002
        """Return what was done, or in a dry run would be."""
        destination = self.find(id)
        asked = validated(self.body_class, request)
        return Response(HousekeepingSerializer(self.done(destination, asked, by=request.user.get_username())).data)

    def done(self, destination: Destination, asked: dict[str, Any], *, by: str) -> Housekeeping:
        """Do what is asked for."""
        return type(self).act(destination, asked.pop("pipeline"), **asked)


@extend_schema_view(
    post=operation(
        "destinations_compact",
        "Write the small files of a pipeline's published state together",
        request=CompactSerializer,
        responses=HousekeepingSerializer,
    )
)
class CompactView(_HousekeepingView):
    """Compacts what a destination holds of a pipeline."""

    body_class = CompactSerializer
    act = staticmethod(housekeeping.compact)


@extend_schema_view(
    post=operation(
        "destinations_retain",
        "Remove a pipeline's old publications",
        request=RetainSerializer,
        responses=HousekeepingSerializer,
    )
)
class RetainView(_HousekeepingView):
    """Removes old publications from a destination."""

    body_class = RetainSerializer
    act = staticmethod(housekeeping.retain)


@extend_schema_view(
    post=operation(
        "destinations_drop",
        "Remove all rows of a pipeline from a destination",
        description="`confirm` is the pipeline's name. The lake keeps the rows; `fill` brings them back.",
        request=DropSerializer,
        responses=HousekeepingSerializer,
    )
)
class DropView(_HousekeepingView):
    """Empties a destination of a pipeline."""

    body_class = DropSerializer

    def done(self, destination: Destination, asked: dict[str, Any], *, by: str) -> Housekeeping:
        """Remove it, if it was confirmed."""
        return housekeeping.drop(destination, asked.pop("pipeline"), by=by, **asked)


class SchemaView(_OfDestination):
    """How a pipeline's table at a destination changes."""

    query_class = OfPipelineSerializer

    @operation(
        "destinations_schema",
        "Show what a pipeline's next delivery would change, and what can be reverted",
        parameters=[OfPipelineSerializer],
        responses=SchemaSerializer,
    )
    def get(self, request: Request, id: int) -> Response:  # noqa: A002
        """Return the plan and the applied changes."""
        destination, pipeline = self.find(id), self.query["pipeline"]
        changes = {
            "planned": housekeeping.plan_schema(destination, pipeline),
            "applied": housekeeping.schema_changes(destination, pipeline),
        }
        return Response(SchemaSerializer(changes).data)


class SchemaRevertView(_OfDestination):
    """Undoes one change of a table."""

    @operation(
        "destinations_schema_revert",
        "Undo one change of a pipeline's table",
        request=RevertSerializer,
        responses=SchemaChangeSerializer,
    )
    def post(self, request: Request, id: int) -> Response:  # noqa: A002
        """Return the change, undone with the data it had set aside."""
        destination = self.find(id)
        asked = validated(RevertSerializer, request)
        return Response(
            SchemaChangeSerializer(housekeeping.revert_schema(destination, asked["pipeline"], asked["change"])).data
        )


class TasksView(_OfDestination):
    """Our tasks at a destination."""

    query_class = TasksQuery

    @operation(
        "destinations_tasks",
        "List Headgate's tasks at a destination, newest first",
        parameters=[TasksQuery],
        responses=OutsideTasksSerializer,
    )
    def get(self, request: Request, id: int) -> Response:  # noqa: A002
        """Return them, each with the delivery it works for."""
        destination = self.find(id)
        found = housekeeping.outside_tasks(destination, limit=self.query["limit"])
        deliveries = deliveries_of_tasks(destination, [task.id for task in found])
        rows = []
        for task in found:
            delivery = deliveries.get(task.id)
            names = ("id", "state", "dataset", "created_at", "duration_ms", "message", "link")
            row = {name: getattr(task, name) for name in names}
            rows.append({**row, "delivery": delivery and delivery.pk, "run": delivery and delivery.run_id})
        return Response(OutsideTasksSerializer({"results": rows}).data)


class TaskLogView(_OfDestination):
    """The log of one task."""

    query_class = TailQuery

    @operation(
        "destinations_task_log",
        "Show the end of a task's log",
        parameters=[_TASK, TailQuery],
        responses=TaskLogSerializer,
    )
    def get(self, request: Request, id: int, task: str) -> Response:  # noqa: A002
        """Return the end of the log."""
        log = housekeeping.outside_task_log(self.find(id), task, tail_bytes=self.query["tail"])
        return Response(TaskLogSerializer({"task": task, "log": log}).data)


class TaskCancelView(_OfDestination):
    """Stops one task."""

    parser_classes = NO_BODY

    @operation(
        "destinations_task_cancel",
        "Stop one of Headgate's tasks at a destination",
        description="The delivery that it works for finds that out by itself.",
        parameters=[_TASK],
        request=None,
        responses={204: nothing("The destination was told to stop it.")},
    )
    def post(self, request: Request, id: int, task: str) -> Response:  # noqa: A002
        """Tell the destination to stop it."""
        destination = self.find(id)
        validated(Strict, request)
        housekeeping.cancel_outside_task(destination, task)
        return Response(status=status.HTTP_204_NO_CONTENT)
