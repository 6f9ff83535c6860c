"""Legacy addresses, of an earlier system whose clients go on working: a file is sent, and its state is asked for."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from django.db.models import Max, QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import inline_serializer
from rest_framework import serializers, status
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from ingestion.api.base import View, operation
from ingestion.api.uploads import take_upload
from ingestion.models import Delivery, Run, RunState
from ingestion.ports.publication import DeliveryState
from ingestion.registry import own_kind
from ingestion.runs.read.progress import count_rows, measure_progress, percent_done
from ingestion.runs.start.admission import explain_waiting


class TaskStatus(StrEnum):
    """State words of the legacy addresses."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


_WORDS = {
    RunState.PENDING: TaskStatus.PENDING,
    RunState.SUCCEEDED: TaskStatus.SUCCESS,
    # Something is missing at a destination, which who waits for SUCCESS relies on.
    RunState.PARTIAL: TaskStatus.FAILED,
    RunState.FAILED: TaskStatus.FAILED,
    RunState.CANCELLED: TaskStatus.CANCELLED,
}
WORDS: dict[str, TaskStatus] = {state: _WORDS.get(state, TaskStatus.PROCESSING) for state in RunState}
"""The state of a run in the words of the legacy addresses."""
_SENTENCES = {
    TaskStatus.PENDING: "The file is stored and waits for a worker.",
    TaskStatus.PROCESSING: "The file is being worked on.",
    TaskStatus.SUCCESS: "The file was published to all its destinations.",
    TaskStatus.CANCELLED: "The run was cancelled.",
}
_SECTIONS = {"lake": "s3", "druid": "druid"}
"""Sections of their own, by the name of Headgate's own destination of that kind."""


class FieldsSerializer(serializers.Serializer[Any]):
    """Fields that come with a file. Those that are not known here are passed over: legacy clients may send more."""

    datasource_name = serializers.CharField(
        required=False,
        max_length=200,
        help_text="Finds or makes a pipeline of that name; may be left out with a contract.",
    )
    contract = serializers.CharField(
        required=False, max_length=1 << 20, help_text="A contract as YAML or JSON, or a file."
    )


class CompleteFieldsSerializer(FieldsSerializer):
    """The fields of the address and the form together."""

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the values; ValidationError where nothing names the data."""
        if not attrs.get("datasource_name") and not attrs.get("contract"):
            raise serializers.ValidationError({"datasource_name": ["Name the data source, or send a contract."]})
        return attrs


class TaskSerializer(serializers.Serializer[Any]):
    """An upload as a task."""

    task_id = serializers.CharField(help_text="The number of the run, as text.")
    status = serializers.ChoiceField(choices=[(word.value, word.value) for word in TaskStatus])
    message = serializers.CharField()
    datasource = serializers.CharField(help_text="The pipeline.")
    filename = serializers.CharField(allow_null=True)
    status_url = serializers.URLField()


class RowCountsSerializer(serializers.Serializer[Any]):
    """Rows so far; processed = accepted + rejected + duplicate + filtered."""

    total = serializers.IntegerField(allow_null=True, help_text="Null as long as nobody knows.")
    processed = serializers.IntegerField()
    accepted = serializers.IntegerField()
    rejected = serializers.IntegerField()
    duplicate = serializers.IntegerField()
    filtered = serializers.IntegerField()


class PlaceSerializer(serializers.Serializer[Any]):
    """Rows at one destination."""

    destination = serializers.CharField()
    kind = serializers.CharField()
    state = serializers.CharField()
    rows = serializers.IntegerField(help_text="Rows that the destination accounts for.")
    path = serializers.CharField(allow_null=True, help_text="The manifest that lists the published objects.")
    datasource = serializers.CharField(allow_null=True, help_text="The datasource in Druid.")
    task_id = serializers.CharField(allow_null=True, help_text="The task in Druid.")
    error = serializers.DictField(allow_null=True)


class StatusSerializer(TaskSerializer):
    """Everything about an upload's task."""

    run_state = serializers.ChoiceField(choices=RunState.choices)
    progress = serializers.IntegerField(help_text="0 to 100.")
    rows = RowCountsSerializer()
    s3 = PlaceSerializer(allow_null=True, help_text="The first destination of files.")
    druid = PlaceSerializer(allow_null=True, help_text="The first destination in Druid.")
    deliveries = PlaceSerializer(many=True)
    error = inline_serializer(
        "TaskError", {"code": serializers.CharField(), "message": serializers.CharField()}, allow_null=True
    )
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class UploadView(View):
    """Takes files."""

    query_class = FieldsSerializer  # type: ignore[assignment]

    @operation(
        "ingest_upload",
        "Send a file (legacy address)",
        description=(
            "Stores the file, finds or makes the pipeline that the fields name, with a contract drafted from the data, "
            "and runs it into all its destinations. `/api/v1/uploads` does the same and tells more."
        ),
        request={
            "multipart/form-data": inline_serializer(
                "IngestForm", {"file": serializers.FileField(), **FieldsSerializer().fields}
            )
        },
        responses={202: TaskSerializer, 200: TaskSerializer},
    )
    def post(self, request: Request) -> Response:
        """Return the task: 202 for new work, 200 where the same file was sent before."""
        if request._request.content_type != "multipart/form-data":
            raise UnsupportedMediaType(request._request.content_type or "")
        _, run, is_new = take_upload(request, CompleteFieldsSerializer)
        assert run is not None  # noqa: S101 (nobody can ask for a file to be stored alone)
        code = status.HTTP_202_ACCEPTED if is_new else status.HTTP_200_OK
        return Response(_task(request, _detailed().get(pk=run.pk)), status=code)


class StatusView(View):
    """Tells how far a file is."""

    @operation("ingest_status", "Show a task (legacy address)", responses=StatusSerializer)
    def get(self, request: Request, id: int) -> Response:
        """Return the task's state, counts and deliveries."""
        run = get_object_or_404(_detailed(), pk=id)
        return Response(_everything(request, run))


def _detailed() -> QuerySet[Run]:
    return Run.objects.select_related("pipeline").prefetch_related("uploads")


def _task(request: Request, run: Run) -> dict[str, Any]:
    word = WORDS[run.state]
    waiting = explain_waiting(run) if word in (TaskStatus.PENDING, TaskStatus.PROCESSING) else None
    uploads = list(run.uploads.all())
    return {
        "task_id": str(run.pk),
        "status": word,
        "message": run.message or (waiting.sentence if waiting else _SENTENCES.get(word, "")),
        "datasource": run.pipeline.name,
        "filename": uploads[0].name if uploads else None,
        "status_url": reverse("ingest-status", kwargs={"id": run.pk}, request=request),
    }


def _everything(request: Request, run: Run) -> dict[str, Any]:
    progress = measure_progress(run)
    totals = count_rows(run)
    fetched = totals.pop("fetched")
    places = [
        _place(delivery)
        for delivery in Delivery.objects.filter(run=run).select_related("destination").order_by("destination__name")
    ]
    last_event_at = run.events.aggregate(at=Max("created_at"))["at"]
    sections = {
        section: next((place for place in places if place["kind"] == own_kind(name)), None)
        for name, section in _SECTIONS.items()
    }
    return {
        **_task(request, run),
        "run_state": run.state,
        "progress": percent_done(run, progress),
        "rows": {
            "total": fetched if run.is_terminal else progress.expected_records,
            "processed": sum(totals.values()),
            **totals,
        },
        **sections,
        "deliveries": places,
        "error": {"code": run.code, "message": run.message} if run.code else None,
        "created_at": run.created_at,
        "updated_at": max(filter(None, (run.created_at, last_event_at, run.finished_at))),
        "finished_at": run.finished_at,
    }


def _place(delivery: Delivery) -> dict[str, Any]:
    refs: Mapping[str, Any] = {} if delivery.state == DeliveryState.REMOVED else delivery.refs
    destination = delivery.destination
    base = urlsplit(str(destination.config.get("url", "")))._replace(query="").geturl().rstrip("/")
    return {
        "destination": destination.name,
        "kind": destination.kind,
        "state": delivery.state,
        "rows": delivery.inserted + delivery.updated + delivery.unchanged,
        "path": f"{base}/{refs['manifest']}" if "manifest" in refs else None,
        "datasource": refs.get("datasource"),
        "task_id": refs.get("task") or None,
        "error": {"code": delivery.code, "message": delivery.message} if delivery.code else None,
    }
