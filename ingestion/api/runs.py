"""Runs: asked for, listed, looked at, cancelled, approved, discarded, retried, rolled back."""

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers, status
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from ingestion.api.base import Moment, NameOrId, Strict, operation, validated
from ingestion.api.pagination import PageQuery, keyset_page, page_answer
from ingestion.api.pipelines import QuestionSerializer
from ingestion.api.resource import APPEND_ONLY, action, resource
from ingestion.api.run_details import RunDetails
from ingestion.models import Pipeline, Priority, Run, RunState, Source, Upload
from ingestion.ports.errors import Refused
from ingestion.runs.deliver.cancellation import cancel_run
from ingestion.runs.operate.approval import approve_run, discard_run
from ingestion.runs.operate.retry import retry_run, roll_back
from ingestion.runs.read.progress import CONTROL_TOTALS, measure_progress, progress_as_dict, summarize
from ingestion.runs.start.admission import explain_waiting
from ingestion.runs.start.creation import create_run

MAX_KEY_CHARACTERS = 150
_TIMES = ("created_at", "started_at", "published_at", "finished_at")


class RunRequestSerializer(Strict):
    """A run that is asked for."""

    pipeline = NameOrId(Pipeline.objects.select_related("source", "contract"))
    query = QuestionSerializer(required=False, help_text="Replaces these parts of the pipeline's own query, this once.")
    uploads = serializers.PrimaryKeyRelatedField(
        many=True, required=False, queryset=Upload.objects.filter(sha256__isnull=False)
    )
    priority = serializers.ChoiceField(choices=Priority.choices, required=False)


class RunRowSerializer(serializers.Serializer[Any]):
    """A run in a list."""

    id = serializers.IntegerField()
    pipeline = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]
    state = serializers.ChoiceField(choices=RunState.choices)
    trigger = serializers.ChoiceField(choices=Run.Trigger.choices)
    mode = serializers.ChoiceField(choices=Pipeline.Mode.choices)
    priority = serializers.ChoiceField(choices=Priority.choices)
    fetched = serializers.IntegerField()
    accepted = serializers.IntegerField()
    rejected = serializers.IntegerField()
    duplicate = serializers.IntegerField()
    filtered = serializers.IntegerField()
    code = serializers.CharField(help_text="Why it failed; empty where it did not.")
    message = serializers.CharField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    published_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class StageSerializer(serializers.Serializer[Any]):
    """One stage of a run."""

    stage = serializers.CharField()
    done = serializers.IntegerField()
    total = serializers.IntegerField()
    failed = serializers.IntegerField()


class ProgressSerializer(serializers.Serializer[Any]):
    """Progress of a run."""

    state = serializers.ChoiceField(choices=RunState.choices)
    stages = StageSerializer(many=True)
    records = serializers.IntegerField()
    expected_records = serializers.IntegerField(allow_null=True, help_text="As its sources announce.")
    percent = serializers.IntegerField(allow_null=True, help_text="Of the expected records.")
    raw_bytes = serializers.IntegerField()
    elapsed_s = serializers.FloatField(allow_null=True)
    records_per_s = serializers.FloatField(allow_null=True)
    eta = serializers.DateTimeField(allow_null=True)


class WaitingSerializer(serializers.Serializer[Any]):
    """Cause for which a run waits, and until when."""

    cause = serializers.CharField()
    sentence = serializers.CharField()
    until = serializers.DateTimeField(allow_null=True)


class RunSerializer(RunRowSerializer):
    """A run with everything that is known of it."""

    run = serializers.IntegerField(help_text="Its number, as `id`.")
    contract = serializers.CharField(allow_null=True)
    contract_version = serializers.IntegerField(allow_null=True)
    query = serializers.DictField()
    uploads = serializers.ListField(child=serializers.IntegerField())
    slot = serializers.DateTimeField(allow_null=True)
    deadline_at = serializers.DateTimeField(allow_null=True)
    republishes = serializers.IntegerField(allow_null=True)
    destinations = serializers.DictField(child=serializers.IntegerField(), help_text="Rows each accounts for.")
    deliveries = serializers.ListField(child=serializers.DictField())
    progress = ProgressSerializer()
    waiting = WaitingSerializer(allow_null=True)
    links = serializers.DictField(child=serializers.URLField())


class RunsQuery(PageQuery):
    """Choice of runs."""

    pipeline = NameOrId(Pipeline.objects.all(), required=False)
    source = NameOrId(Source.objects.all(), required=False)  # type: ignore[assignment]
    state = serializers.ChoiceField(choices=RunState.choices, required=False)
    trigger = serializers.ChoiceField(choices=Run.Trigger.choices, required=False)
    priority = serializers.ChoiceField(choices=Priority.choices, required=False)
    since = Moment(required=False, help_text="Created at that time or later.")
    until = Moment(required=False, help_text="Created before that time.")


@resource("runs", RunRowSerializer, query=RunsQuery, list="List the runs, newest first|Return a page of them.")
class Runs(RunDetails):
    """The runs; every user may ask for one."""

    http_method_names = APPEND_ONLY
    permission_classes = (IsAuthenticated,)
    order = "-id"
    query_classes = {"list": RunsQuery}

    def list(self, request: Request) -> Response:
        """Return a page of rows."""
        # Plain values instead of a serializer: a list of runs is what dashboards ask for every few seconds.
        page, following = keyset_page(request, self.query, _filtered(self.query), order=self.order)
        return page_answer([_row(values) for values in page], following)

    @operation(
        "runs_create",
        "Ask for a run",
        description="With an Idempotency-Key the same request gives the same run, however often it is sent.",
        parameters=[OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER)],
        request=RunRequestSerializer,
        responses={201: RunSerializer, 200: RunSerializer},
    )
    def create(self, request: Request) -> Response:
        """Create the run, or return the one that this key has created before."""
        asked = validated(RunRequestSerializer, request)
        run, is_new = start_run(asked, request=request, key=request.headers.get("Idempotency-Key"))
        return run_answer(request, run, status_code=status.HTTP_201_CREATED if is_new else status.HTTP_200_OK)

    @operation("runs_read", "Show a run", responses=RunSerializer)
    def retrieve(self, request: Request, id: int) -> Response:
        """Return the run, how far it is, and why it waits."""
        return Response(describe_run(request, get_object_or_404(_detailed(), pk=id)))

    @action("cancel", "runs_cancel", "Cancel a run", responses=RunSerializer)
    def cancel(self, request: Request, id: int) -> Response:
        """Cancel it; refused once it is publishing."""
        return run_answer(request, cancel_run(id, by=request.user.get_username()))

    @action("retry", "runs_retry", "Retry a run where it stopped", responses=RunSerializer)
    def retry(self, request: Request, id: int) -> Response:
        """Reopen it; what it has fetched is not fetched again."""
        return run_answer(request, retry_run(id, by=request.user.get_username()))

    @action("approve", "runs_approve", "Publish a held run all the same", responses=RunSerializer)
    def approve(self, request: Request, id: int) -> Response:
        """Let it go on; refused once a later run was published."""
        return run_answer(request, approve_run(id, by=request.user.get_username()))

    @action("discard", "runs_discard", "Give a held run up", responses=RunSerializer)
    def discard(self, request: Request, id: int) -> Response:
        """End it without publishing anything."""
        return run_answer(request, discard_run(id, by=request.user.get_username()))

    @action("rollback", "runs_rollback", "Publish an earlier run again, as a new run", responses={201: RunSerializer})
    def roll_back(self, request: Request, id: int) -> Response:
        """Return the new run."""
        return run_answer(request, roll_back(id), status_code=status.HTTP_201_CREATED)


def start_run(asked: Mapping[str, Any], *, request: Request, key: str | None) -> tuple[Run, bool]:
    """Return the run that was asked for, and whether it is new; keys of two users never meet."""
    if key is not None and not (0 < len(key) <= MAX_KEY_CHARACTERS and key.isprintable()):
        message = f"Write 1 to {MAX_KEY_CHARACTERS} printable characters."
        raise serializers.ValidationError({"Idempotency-Key": [message]})
    pipeline, priority = asked["pipeline"], asked.get("priority")
    try:
        run, is_new = create_run(
            pipeline,
            trigger=Run.Trigger.API,
            idempotency_key=None if key is None else f"api:{request.user.pk}:{key}",
            query=asked.get("query"),
            uploads=asked.get("uploads", ()),
            priority=priority,
        )
    except Refused as error:
        if error.code == "run.idempotency_mismatch":
            raise Refused(error.code, key=key) from error
        raise
    if not is_new and run.priority != (priority or pipeline.priority):
        raise Refused("run.idempotency_mismatch", key=key)
    return run, is_new


def run_answer(request: Request, run: Run, *, status_code: int = status.HTTP_200_OK) -> Response:
    """Return the answer that shows a run, with its address where it is new."""
    body = describe_run(request, _detailed().get(pk=run.pk))
    headers = {"Location": body["links"]["self"]} if status_code == status.HTTP_201_CREATED else None
    return Response(body, status=status_code, headers=headers)


def describe_run(request: Request, run: Run) -> dict[str, Any]:
    """Return everything that is known of a run, as the API shows it."""
    waiting = explain_waiting(run)
    here = reverse("run", kwargs={"id": run.pk}, request=request)
    below = ("events", "partitions", "parts", "deliveries", "rejected", "records")
    return {
        "id": run.pk,
        **summarize(run),
        "source": run.pipeline.source.name,
        "trigger": run.trigger,
        "mode": run.mode,
        "priority": run.priority,
        "contract": run.contract.name if run.contract else None,
        "contract_version": run.contract.version if run.contract else None,
        "query": run.query,
        "uploads": [upload.pk for upload in run.uploads.all()],
        "slot": run.slot,
        "deadline_at": run.deadline_at,
        "republishes": run.republishes_id,
        **{name: getattr(run, name) for name in _TIMES},
        "progress": progress_as_dict(measure_progress(run)),
        "waiting": WaitingSerializer(waiting).data if waiting else None,
        "links": {"self": here, **{name: f"{here}/{name}" for name in below}},
    }


def _detailed() -> QuerySet[Run]:
    return Run.objects.select_related("pipeline__source", "contract").prefetch_related("uploads")


def _filtered(query: Mapping[str, Any]) -> QuerySet[Run, dict[str, Any]]:
    names = {
        "pipeline": "pipeline",
        "source": "pipeline__source",
        "state": "state",
        "trigger": "trigger",
        "priority": "priority",
        "since": "created_at__gte",
        "until": "created_at__lt",
    }
    wanted = {lookup: query[name] for name, lookup in names.items() if name in query}
    return Run.objects.filter(**wanted).values(
        "id", "pipeline__name", "pipeline__source__name", "state", "trigger", "mode", "priority", *CONTROL_TOTALS, "code",
        "message", *_TIMES,
    )  # fmt: skip


def _row(values: dict[str, Any]) -> dict[str, Any]:
    pipeline, source = values.pop("pipeline__name"), values.pop("pipeline__source__name")
    return {"id": values.pop("id"), "pipeline": pipeline, "source": source, **values}
