"""Pipelines: set up, paused, resumed."""

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import NameOrId, Strict, View, nothing, operation, validated
from ingestion.api.bodies import NO_BODY
from ingestion.api.configured import ObjectField
from ingestion.api.pagination import PageQuery, keyset_page, page_answer, page_of
from ingestion.api.permissions import StaffWrites
from ingestion.models import Contract, Destination, Pipeline, Source
from ingestion.runs.start.contracts import latest_version
from ingestion.runs.start.pipelines import check_pipeline, set_dependencies
from ingestion.runs.start.schedules import pause_pipeline, resume_pipeline

MAX_SECONDS = 366 * 86_400


class QuestionSerializer(Strict):
    """What a source is asked for."""

    filter = serializers.CharField(required=False, allow_null=True, max_length=10_000)
    fields = serializers.ListField(  # type: ignore[assignment] # a field, that the metaclass takes out of the class
        child=serializers.CharField(max_length=200), required=False, max_length=1000
    )
    limit = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=10**12)
    options = ObjectField(required=False)


@extend_schema_field({"oneOf": [{"type": "integer"}, {"type": "string"}], "nullable": True})
class ContractField(serializers.Field[Any, Any, Any, Any]):
    """A contract by its name, or by the number of one of its versions; a pipeline follows the newest one."""

    def to_internal_value(self, data: Any) -> Contract:
        """Return the newest version of the contract; ValidationError where there is none."""
        found = None
        if type(data) is int:
            found = Contract.objects.filter(pk=data).first()
        elif isinstance(data, str):
            found = Contract.objects.filter(name=data).first()
        if found is None:
            raise serializers.ValidationError(f"There is no contract {str(data)[:100]!r}. Give its name or number.")
        return latest_version(found)

    def to_representation(self, value: Contract) -> str:
        """Return the contract's name."""
        return value.name


class DependencySerializer(Strict):
    """Another pipeline whose publication is waited for."""

    upstream = NameOrId(Pipeline.objects.all())
    timeout_s = serializers.IntegerField(min_value=1, max_value=MAX_SECONDS, default=24 * 3600)


class PipelineSerializer(Strict, serializers.ModelSerializer[Pipeline]):
    """Source + stream + query -> contract -> destinations."""

    source = NameOrId(Source.objects.all())  # type: ignore[assignment]
    query = QuestionSerializer(required=False)
    contract = ContractField(required=False, allow_null=True, default=None)
    contract_version = serializers.SerializerMethodField()
    destinations = serializers.ListField(child=NameOrId(Destination.objects.all()), required=False, max_length=100)
    dependencies = DependencySerializer(many=True, required=False)

    class Meta:
        model = Pipeline
        fields = (
            "id", "name", "source", "stream", "query", "contract", "contract_version", "destinations", "mode",
            "priority", "is_paused", "allow_partial", "max_active_runs", "run_timeout_s", "dependencies",
            "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields = ("id", "is_paused", "created_at", "updated_at")
        extra_kwargs = {
            "max_active_runs": {"min_value": 1, "max_value": 1000},
            "run_timeout_s": {"min_value": 1, "max_value": MAX_SECONDS},
        }

    def get_contract_version(self, pipeline: Pipeline) -> int | None:
        """Return the version that the next run is checked against."""
        return latest_version(pipeline.contract).version if pipeline.contract else None

    def validate_name(self, name: str) -> str:
        """Return the name; objects lie under it, so it stays what it was."""
        if self.instance is not None and self.instance.name != name:
            raise serializers.ValidationError("The name cannot be changed; stored objects lie under it.")
        return name

    def validate_query(self, query: Any) -> dict[str, Any]:
        """Return the question without what was left out."""
        return {name: value for name, value in query.items() if value is not None}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the settings; ConfigError where the source does not offer what is asked of it."""
        kept: Any = self.instance
        check_pipeline(
            source=attrs.get("source") or kept.source,
            stream=attrs.get("stream") or kept.stream,
            mode=attrs.get("mode") or (kept.mode if kept else Pipeline.Mode.FULL_REFRESH),
        )
        return attrs

    @transaction.atomic
    def create(self, validated_data: dict[str, Any]) -> Pipeline:
        """Return the new pipeline with its destinations and dependencies."""
        destinations, dependencies = validated_data.pop("destinations", []), validated_data.pop("dependencies", [])
        pipeline = Pipeline.objects.create(**validated_data)
        return self._connect(pipeline, destinations, dependencies)

    @transaction.atomic
    def update(self, instance: Pipeline, validated_data: dict[str, Any]) -> Pipeline:
        """Return the changed pipeline; lists that are given replace those there are."""
        destinations, dependencies = validated_data.pop("destinations", None), validated_data.pop("dependencies", None)
        for name, value in validated_data.items():
            setattr(instance, name, value)
        instance.save(update_fields=[*validated_data, "updated_at"])
        return self._connect(instance, destinations, dependencies)

    def to_representation(self, instance: Pipeline) -> dict[str, Any]:
        """Return the pipeline with the names of what it is connected with."""
        return super().to_representation(_Shown(instance))

    def _connect(self, pipeline: Pipeline, destinations: Any, dependencies: Any) -> Pipeline:
        if destinations is not None:
            pipeline.destinations.set(destinations)
        if dependencies is not None:
            set_dependencies(pipeline, [(item["upstream"], item["timeout_s"]) for item in dependencies])
        return Pipeline.objects.get(pk=pipeline.pk)


class _Shown:
    """A pipeline whose connections are lists, as they are shown."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.destinations = list(pipeline.destinations.all())
        self.dependencies = list(pipeline.dependencies.all())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)


class PipelinesQuery(PageQuery):
    """Which pipelines are listed."""

    source = NameOrId(Source.objects.all(), required=False)  # type: ignore[assignment]
    is_paused = serializers.BooleanField(required=False, allow_null=True, default=None)


def _pipelines() -> QuerySet[Pipeline]:
    return Pipeline.objects.select_related("source", "contract").prefetch_related(
        "destinations", "dependencies__upstream"
    )


class PipelinesView(View):
    """All pipelines."""

    permission_classes = (StaffWrites,)
    query_classes = {"GET": PipelinesQuery}

    @operation(
        "pipelines_list", "List the pipelines", parameters=[PipelinesQuery], responses=page_of(PipelineSerializer)
    )
    def get(self, request: Request) -> Response:
        """Return a page of them."""
        rows = _pipelines()
        if "source" in self.query:
            rows = rows.filter(source=self.query["source"])
        if self.query["is_paused"] is not None:
            rows = rows.filter(is_paused=self.query["is_paused"])
        page, following = keyset_page(request, self.query, rows)
        return page_answer(PipelineSerializer(page, many=True).data, following)

    @operation("pipelines_create", "Set a pipeline up", request=PipelineSerializer, responses={201: PipelineSerializer})
    def post(self, request: Request) -> Response:
        """Set a new one up."""
        serializer = PipelineSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data, status=status.HTTP_201_CREATED)


class PipelineView(View):
    """One pipeline."""

    permission_classes = (StaffWrites,)

    @operation("pipelines_read", "Show a pipeline", responses=PipelineSerializer)
    def get(self, request: Request, id: int) -> Response:  # noqa: A002 (the name in the address)
        """Return it."""
        return Response(PipelineSerializer(get_object_or_404(_pipelines(), pk=id)).data)

    @operation(
        "pipelines_replace", "Replace a pipeline's settings", request=PipelineSerializer, responses=PipelineSerializer
    )
    def put(self, request: Request, id: int) -> Response:  # noqa: A002
        """Replace its settings."""
        return self._change(request, id, partial=False)

    @operation(
        "pipelines_change",
        "Change a pipeline",
        request=PipelineSerializer(partial=True),
        responses=PipelineSerializer,
    )
    def patch(self, request: Request, id: int) -> Response:  # noqa: A002
        """Change the settings that are given."""
        return self._change(request, id, partial=True)

    @operation("pipelines_delete", "Remove a pipeline without runs", responses={204: nothing("It is removed.")})
    def delete(self, request: Request, id: int) -> Response:  # noqa: A002
        """Remove it, unless it has runs: pause it then."""
        get_object_or_404(Pipeline, pk=id).delete()
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _change(self, request: Request, pipeline_id: int, *, partial: bool) -> Response:
        pipeline = get_object_or_404(_pipelines(), pk=pipeline_id)
        serializer = PipelineSerializer(pipeline, data=request.data, partial=partial)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(serializer.data)


class PauseView(View):
    """Stops a pipeline from starting runs."""

    parser_classes = NO_BODY
    permission_classes = (StaffWrites,)

    @operation("pipelines_pause", "Let a pipeline start no more runs", request=None, responses=PipelineSerializer)
    def post(self, request: Request, id: int) -> Response:  # noqa: A002
        """Pause it; runs under way go on."""
        validated(Strict, request)
        pause_pipeline(get_object_or_404(Pipeline, pk=id).pk)
        return Response(PipelineSerializer(_pipelines().get(pk=id)).data)


class ResumeView(View):
    """Lets a pipeline start runs again."""

    parser_classes = NO_BODY
    permission_classes = (StaffWrites,)

    @operation("pipelines_resume", "Let a pipeline start runs again", request=None, responses=PipelineSerializer)
    def post(self, request: Request, id: int) -> Response:  # noqa: A002
        """Resume it; waiting runs begin."""
        validated(Strict, request)
        resume_pipeline(get_object_or_404(Pipeline, pk=id).pk)
        return Response(PipelineSerializer(_pipelines().get(pk=id)).data)
