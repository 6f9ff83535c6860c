"""Pipelines: set up, paused, resumed."""

from typing import Any

from django.db import transaction
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from ingestion.api.base import NameOrId, Strict, validated
from ingestion.api.configured import ObjectField
from ingestion.api.pagination import PageQuery
from ingestion.api.resource import Resource, action, resource
from ingestion.models import Contract, Destination, Pipeline, Source
from ingestion.ports.errors import Refused
from ingestion.runs.start.contracts import latest_version
from ingestion.runs.start.pipelines import (
    change_destinations,
    check_new_name,
    check_pipeline,
    set_dependencies,
)
from ingestion.runs.start.schedules import pause_pipeline, resume_pipeline

MAX_SECONDS = 366 * 86_400


class QuestionSerializer(Strict):
    """Query to a source."""

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
            "priority", "is_paused", "allow_partial", "allow_empty", "max_active_runs", "run_timeout_s", "dependencies",
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
        return name if self.instance is not None else check_new_name(name)

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
        """Return the changed pipeline; the dependencies that are given replace those there are."""
        destinations, dependencies = validated_data.pop("destinations", None), validated_data.pop("dependencies", None)
        for name, value in validated_data.items():
            setattr(instance, name, value)
        instance.save(update_fields=[*validated_data, "updated_at"])
        if self.partial and destinations is not None:
            self._refuse_loss(instance, destinations)
        return self._connect(instance, destinations, dependencies)

    def to_representation(self, instance: Pipeline) -> dict[str, Any]:
        """Return the pipeline with the names of what it is connected with."""
        return super().to_representation(_Shown(instance))

    def _refuse_loss(self, pipeline: Pipeline, destinations: list[Destination]) -> None:
        """Raise Refused where a change that names some destinations would take others away."""
        lost = pipeline.destinations.exclude(pk__in=[destination.pk for destination in destinations])
        if names := sorted(lost.values_list("name", flat=True)):
            address = reverse("pipeline-destinations", kwargs={"id": pipeline.pk})
            raise Refused("pipeline.destinations_lost", pipeline=pipeline.name, lost=", ".join(names), address=address)

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


class AddedDestinationSerializer(Strict):
    """A destination by its name or number."""

    destination = NameOrId(Destination.objects.all())


class PipelinesQuery(PageQuery):
    """Choice of pipelines."""

    source = NameOrId(Source.objects.all(), required=False)  # type: ignore[assignment]
    is_paused = serializers.BooleanField(required=False, allow_null=True, default=None)


@resource(
    "pipelines",
    PipelineSerializer,
    query=PipelinesQuery,
    delete="Remove a pipeline without runs|Remove it, unless it has runs: pause it then.",
)
class Pipelines(Resource):
    """The pipelines."""

    rows = Pipeline.objects.select_related("source", "contract").prefetch_related(
        "destinations", "dependencies__upstream"
    )
    query_classes = {"list": PipelinesQuery}
    serializer_class = PipelineSerializer

    @action("pause", "pipelines_pause", "Let a pipeline start no more runs", responses=PipelineSerializer)
    def pause(self, request: Request, id: int) -> Response:
        """Pause it; runs under way go on."""
        pause_pipeline(self.find(id).pk)
        return self.retrieve(request, id)

    @action("resume", "pipelines_resume", "Let a pipeline start runs again", responses=PipelineSerializer)
    def resume(self, request: Request, id: int) -> Response:
        """Resume it; waiting runs begin."""
        resume_pipeline(self.find(id).pk)
        return self.retrieve(request, id)

    @action(
        "destinations",
        "pipelines_add_destination",
        "Deliver a pipeline's next runs to one more destination",
        request=AddedDestinationSerializer,
        responses=PipelineSerializer,
    )
    def add_destination(self, request: Request, id: int) -> Response:
        """Add it to those there are; what was published before is brought there with the next run."""
        change_destinations(self.find(id), add=[validated(AddedDestinationSerializer, request)["destination"]])
        return self.retrieve(request, id)

    @action(
        "destinations/<str:destination>",
        "pipelines_remove_destination",
        "Deliver a pipeline's next runs to a destination no more",
        method="delete",
        responses=PipelineSerializer,
    )
    def remove_destination(self, request: Request, id: int, destination: str) -> Response:
        """Take it away from those there are; what lies there stays."""
        found = AddedDestinationSerializer(data={"destination": destination})
        found.is_valid(raise_exception=True)
        change_destinations(self.find(id), remove=[found.validated_data["destination"]])
        return self.retrieve(request, id)
