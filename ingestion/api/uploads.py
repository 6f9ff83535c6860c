"""Uploads: a file comes in, and with it a run."""

import json
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import inline_serializer
from rest_framework import serializers, status
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from ingestion.api.base import NameOrId, Strict, operation, validate
from ingestion.api.bodies import check_value
from ingestion.api.pagination import PageQuery
from ingestion.api.problems import describe
from ingestion.api.resource import APPEND_ONLY, Resource, resource
from ingestion.api.upload_stream import Received, receive_upload
from ingestion.models import Pipeline, Priority, Run, Upload
from ingestion.runs.start.uploads import ingest_upload


class OptionsField(serializers.JSONField):
    """A JSON object, written as text in a form."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the object; ValidationError for anything else."""
        try:
            value = json.loads(data) if isinstance(data, str) else data
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise serializers.ValidationError("Write a JSON object.")
        check_value(value)
        return value


class UploadFieldsSerializer(Strict):
    """Fields that come with a file: as fields of the form, or as parameters of the address."""

    name = serializers.CharField(required=False, max_length=1000, help_text="The file's name, where the body is bare.")
    pipeline = NameOrId(Pipeline.objects.select_related("source", "contract"), required=False)
    datasource_name = serializers.CharField(
        required=False, max_length=200, help_text="Finds or makes a pipeline of that name; enough by itself."
    )
    contract = serializers.CharField(
        required=False, max_length=1 << 20, help_text="A contract as YAML or JSON; in a form it may be a file."
    )
    options = OptionsField(required=False, help_text="How to read the file, as JSON.")
    run = serializers.BooleanField(default=True, help_text="false only stores the file.")
    priority = serializers.ChoiceField(choices=Priority.choices, required=False)


class UploadSerializer(serializers.ModelSerializer[Upload]):
    """A file that was sent."""

    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True)
    runs = serializers.SerializerMethodField()

    class Meta:
        model = Upload
        fields = ("id", "name", "size_bytes", "sha256", "created_by", "created_at", "runs")

    def get_runs(self, upload: Upload) -> list[int]:
        """Return the numbers of the runs that read it."""
        return sorted(run.pk for run in upload.runs.all())


class AcceptedSerializer(serializers.Serializer[Any]):
    """Outcome of an upload."""

    id = serializers.IntegerField(help_text="The upload's number.")
    upload = UploadSerializer()
    run = serializers.IntegerField(allow_null=True)
    pipeline = serializers.CharField(allow_null=True)
    links = serializers.DictField(child=serializers.URLField())


class UploadsQuery(PageQuery):
    """Choice of uploads."""

    name = serializers.CharField(required=False, max_length=255)
    sha256 = serializers.RegexField(r"\A[0-9a-f]{64}\Z", required=False)


def _complete() -> QuerySet[Upload]:
    return Upload.objects.filter(sha256__isnull=False).select_related("created_by").prefetch_related("runs")


@resource(
    "uploads",
    UploadSerializer,
    query=UploadsQuery,
    list="List the uploads, newest first|Return a page of them.",
    read="Show an upload|Return it, with the runs that read it.",
)
class Uploads(Resource):
    """The uploads; every user may send one."""

    http_method_names = APPEND_ONLY
    permission_classes = (IsAuthenticated,)
    rows = _complete()
    order = "-id"
    query_classes = {"list": UploadsQuery, "create": UploadFieldsSerializer}
    serializer_class = UploadSerializer

    @operation(
        "uploads_create",
        "Send a file",
        description=(
            "The body is a form with the field `file`, or the bare file. It is stored while it arrives. The same file "
            "again is the same upload, and the same run unless the contract has changed."
        ),
        parameters=[UploadFieldsSerializer],
        request={
            "multipart/form-data": inline_serializer(
                "UploadForm",
                {"file": serializers.FileField(), **UploadFieldsSerializer().fields},
            ),
            "application/octet-stream": OpenApiTypes.BINARY,
        },
        responses={202: AcceptedSerializer, 201: AcceptedSerializer, 200: AcceptedSerializer},
    )
    def create(self, request: Request) -> Response:
        """Store the file and start its run: 202 for new work, 201 for a file that is only stored, 200 if all is known."""
        received, run, is_new_run = take_upload(request, UploadFieldsSerializer, name=self.query.get("name"))
        return Response(
            _accepted(request, received.upload, run), status=_status(is_new=received.is_new, is_new_run=is_new_run)
        )


def take_upload(
    request: Request, fields: type[serializers.Serializer[Any]], *, name: str | None = None
) -> tuple[Received, Run | None, bool]:
    """Return the stored file of the request's body, its run, and whether that is new; `fields` reads what came with it.

    A file that could be stored but not run is kept, and the problem says where: it need not be sent again.
    """
    received = receive_upload(request._request, name=name)
    try:
        check_value(received.fields)
        given = validate(fields, {**request.query_params.dict(), **received.fields})
        if not given.get("run", True):
            return received, None, False
        run, is_new = ingest_upload(
            received.upload,
            trigger=Run.Trigger.UPLOAD,
            pipeline=given.get("pipeline"),
            datasource_name=given.get("datasource_name"),
            contract=given.get("contract"),
            options=given.get("options"),
            priority=given.get("priority"),
            may_configure=request.user.is_staff,
        )
    except Exception as error:
        problem = describe(error)
        if problem is None:
            raise
        problem.members["upload"] = received.upload.pk
        raise problem from error
    return received, run, is_new


def _status(*, is_new: bool, is_new_run: bool) -> int:
    if is_new_run:
        return status.HTTP_202_ACCEPTED
    return status.HTTP_201_CREATED if is_new else status.HTTP_200_OK


def _accepted(request: Request, upload: Upload, run: Run | None) -> dict[str, Any]:
    links = {"upload": reverse("upload", kwargs={"id": upload.pk}, request=request)}
    if run is not None:
        links["run"] = reverse("run", kwargs={"id": run.pk}, request=request)
    return {
        "id": upload.pk,
        "upload": UploadSerializer(_complete().get(pk=upload.pk)).data,
        "run": run.pk if run else None,
        "pipeline": run.pipeline.name if run else None,
        "links": links,
    }
