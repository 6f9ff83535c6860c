"""Actions of staff on a destination: redelivery, housekeeping, removal, its tables' columns, its tasks."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import NameOrId, Strict, nothing, validated
from ingestion.api.deliveries import LARGEST_ID, DeliverySerializer
from ingestion.api.resource import Resource, action
from ingestion.models import Delivery, Pipeline, Run
from ingestion.ports.housekeeping import Housekeeping
from ingestion.runs.deliver import redelivery
from ingestion.runs.operate import housekeeping
from ingestion.runs.read.history import deliveries_of_tasks

MOST_RUNS = 1_000_000
MOST_DAYS = 36_500
_TASK = OpenApiParameter("task", str, OpenApiParameter.PATH, description="Letters, digits and `. _ : -`.")


class OfPipelineSerializer(Strict):
    """Whose rows are meant."""

    pipeline = NameOrId(Pipeline.objects.select_related("contract"))


class CompactSerializer(OfPipelineSerializer):
    """Files to write together."""

    dry_run = serializers.BooleanField(default=False, help_text="Say what would be done, and do nothing.")


class RetainSerializer(CompactSerializer):
    """Publications to keep beside what readers see; without a rule every one."""

    keep_runs = serializers.IntegerField(
        required=False, min_value=0, max_value=MOST_RUNS, help_text="The newest publications, whatever their age."
    )
    keep_days = serializers.IntegerField(
        required=False, min_value=0, max_value=MOST_DAYS, help_text="Those of the last days."
    )


class DropSerializer(CompactSerializer):
    """Rows to remove, and that it is meant."""

    confirm = serializers.CharField(
        required=False, default="", max_length=63, help_text="The pipeline's name; a dry run needs none."
    )


class HousekeepingSerializer(serializers.Serializer[Any]):
    """Work that was done, or would be."""

    actions = serializers.ListField(child=serializers.CharField())
    object_count = serializers.IntegerField()
    size_bytes = serializers.IntegerField()
    is_dry_run = serializers.BooleanField()


class RedeliverRequestSerializer(Strict):
    """Runs to deliver: one, or everything of a pipeline that the destination lacks."""

    run = serializers.IntegerField(required=False, min_value=1, max_value=LARGEST_ID)
    pipeline = NameOrId(Pipeline.objects.select_related("contract"), required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the values; ValidationError where they do not say which."""
        if len(attrs) != 1:
            raise serializers.ValidationError({"run": ["Give either a run or a pipeline."]})
        return attrs


class RedeliveredSerializer(serializers.Serializer[Any]):
    """The deliveries that were begun."""

    deliveries = DeliverySerializer(many=True)


class SchemaChangeSerializer(serializers.Serializer[Any]):
    """One difference between a table and a contract."""

    column = serializers.CharField()
    what = serializers.CharField()
    statement = serializers.CharField()
    id = serializers.CharField(help_text="Names an applied change; empty in a plan.")
    revertible_until = serializers.CharField(help_text="ISO time; empty in a plan.")


class SchemaSerializer(serializers.Serializer[Any]):
    """Changes of a pipeline's table."""

    planned = SchemaChangeSerializer(many=True, help_text="What the next delivery would change, in order.")
    applied = SchemaChangeSerializer(many=True, help_text="What can still be reverted, newest first.")


class RevertSerializer(OfPipelineSerializer):
    """Change to undo."""

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
    """Number of tasks."""

    limit = serializers.IntegerField(min_value=1, max_value=housekeeping.MOST_TASKS, default=50)


class TailQuery(Strict):
    """Length of a log."""

    tail = serializers.IntegerField(
        min_value=1,
        max_value=housekeeping.MOST_LOG_BYTES,
        default=housekeeping.LOG_BYTES,
        help_text="Bytes from its end.",
    )


class DestinationActions(Resource):
    """Actions of staff on a destination beside setting it up."""

    @action(
        "redeliver",
        "destinations_redeliver",
        "Deliver a published run to a destination, or everything of a pipeline that it lacks, from the lake",
        description=(
            "With `pipeline` everything that it has published and the destination lacks, the oldest run first; what is "
            "there, or under way, is left out. With `run` that one, which is refused with `delivery.exists` while it "
            "is under way and once it is verified: nothing is delivered twice. The source is not asked."
        ),
        request=RedeliverRequestSerializer,
        responses={202: RedeliveredSerializer},
    )
    def redeliver(self, request: Request, id: int) -> Response:
        """Return the deliveries, which were begun; none where nothing is missing."""
        destination, by = self.find(id), request.user.get_username()
        asked = validated(RedeliverRequestSerializer, request)
        if "pipeline" in asked:
            return _redelivered(redelivery.redeliver_everything(asked["pipeline"], destination, by=by))
        run = get_object_or_404(Run.objects.only("pk"), pk=asked["run"])
        return _redelivered([redelivery.redeliver(run.pk, destination, by=by)])

    @action(
        "fill",
        "destinations_fill",
        "Bring what a pipeline has published, and the destination lacks, there",
        description="From the lake, the oldest run first. What is there, or under way, is left out.",
        request=OfPipelineSerializer,
        responses={202: RedeliveredSerializer},
        deprecated=True,
        renamed_to="/api/v1/destinations/{id}/redeliver",
    )
    def fill(self, request: Request, id: int) -> Response:
        """Return the deliveries, which were begun; none where nothing is missing."""
        destination = self.find(id)
        asked = validated(OfPipelineSerializer, request)
        return _redelivered(
            redelivery.redeliver_everything(asked["pipeline"], destination, by=request.user.get_username())
        )

    @action(
        "compact",
        "destinations_compact",
        "Write the small files of a pipeline's published state together",
        request=CompactSerializer,
        responses=HousekeepingSerializer,
    )
    def compact(self, request: Request, id: int) -> Response:
        """Return what was done, or in a dry run would be."""
        return self._keep(id, CompactSerializer, housekeeping.compact)

    @action(
        "retain",
        "destinations_retain",
        "Remove a pipeline's old publications",
        request=RetainSerializer,
        responses=HousekeepingSerializer,
    )
    def retain(self, request: Request, id: int) -> Response:
        """Return what was done, or in a dry run would be."""
        return self._keep(id, RetainSerializer, housekeeping.retain)

    @action(
        "drop",
        "destinations_drop",
        "Remove all rows of a pipeline from a destination",
        description="`confirm` is the pipeline's name. The lake keeps the rows; `redeliver` brings them back.",
        request=DropSerializer,
        responses=HousekeepingSerializer,
    )
    def drop(self, request: Request, id: int) -> Response:
        """Remove it, if it was confirmed."""
        return self._keep(id, DropSerializer, partial(housekeeping.drop, by=request.user.get_username()))

    def _keep(self, destination_id: int, body: type[Strict], act: Callable[..., Housekeeping]) -> Response:
        destination = self.find(destination_id)
        asked = validated(body, self.request)
        return Response(HousekeepingSerializer(act(destination, asked.pop("pipeline"), **asked)).data)

    @action(
        "schema",
        "destinations_schema",
        "Show what a pipeline's next delivery would change, and what can be reverted",
        method="get",
        query_class=OfPipelineSerializer,
        responses=SchemaSerializer,
    )
    def show_schema(self, request: Request, id: int) -> Response:
        """Return the plan and the applied changes."""
        destination, pipeline = self.find(id), self.query["pipeline"]
        changes = {
            "planned": housekeeping.plan_schema(destination, pipeline),
            "applied": housekeeping.schema_changes(destination, pipeline),
        }
        return Response(SchemaSerializer(changes).data)

    @action(
        "schema/revert",
        "destinations_schema_revert",
        "Undo one change of a pipeline's table",
        request=RevertSerializer,
        responses=SchemaChangeSerializer,
    )
    def revert_schema(self, request: Request, id: int) -> Response:
        """Return the change, undone with the data it had set aside."""
        destination = self.find(id)
        asked = validated(RevertSerializer, request)
        undone = housekeeping.revert_schema(destination, asked["pipeline"], asked["change"])
        return Response(SchemaChangeSerializer(undone).data)

    @action(
        "tasks",
        "destinations_tasks",
        "List Headgate's tasks at a destination, newest first",
        method="get",
        query_class=TasksQuery,
        responses=OutsideTasksSerializer,
    )
    def tasks(self, request: Request, id: int) -> Response:
        """Return them, each with the delivery it works for."""
        destination = self.find(id)
        found = housekeeping.outside_tasks(destination, limit=self.query["limit"])
        deliveries = deliveries_of_tasks(destination, [task.id for task in found])
        rows = []
        for task in found:
            delivery = deliveries.get(task.id)
            rows.append({**asdict(task), "delivery": delivery and delivery.pk, "run": delivery and delivery.run_id})
        return Response(OutsideTasksSerializer({"results": rows}).data)

    @action(
        "tasks/<task:task>/log",
        "destinations_task_log",
        "Show the end of a task's log",
        method="get",
        query_class=TailQuery,
        parameters=[_TASK, TailQuery],
        responses=TaskLogSerializer,
    )
    def task_log(self, request: Request, id: int, task: str) -> Response:
        """Return the end of the log."""
        log = housekeeping.outside_task_log(self.find(id), task, tail_bytes=self.query["tail"])
        return Response(TaskLogSerializer({"task": task, "log": log}).data)

    @action(
        "tasks/<task:task>/cancel",
        "destinations_task_cancel",
        "Stop one of Headgate's tasks at a destination",
        description="The delivery that it works for finds that out by itself.",
        parameters=[_TASK],
        responses={204: nothing("The destination was told to stop it.")},
    )
    def cancel_task(self, request: Request, id: int, task: str) -> Response:
        """Tell the destination to stop it."""
        housekeeping.cancel_outside_task(self.find(id), task)
        return Response(status=status.HTTP_204_NO_CONTENT)


def _redelivered(made: list[Delivery]) -> Response:
    return Response(RedeliveredSerializer({"deliveries": made}).data, status=status.HTTP_202_ACCEPTED)
