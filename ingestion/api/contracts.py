"""Contracts: every version that there is, and new ones; a version never changes."""

from typing import Any

from django.db.models import F, Max, QuerySet, Window
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import operation
from ingestion.api.bodies import (
    PlainYAMLParser,
    StrictJSONParser,
    TextYAMLParser,
    XYAMLParser,
    YAMLParser,
)
from ingestion.api.pagination import PageQuery
from ingestion.api.problems import invalid
from ingestion.api.resource import APPEND_ONLY, Resource, resource
from ingestion.models import Contract
from ingestion.runs.start.contracts import full_refreshes, save_contract


class ContractSerializer(serializers.ModelSerializer[Contract]):
    """One version of a contract."""

    body = serializers.DictField()

    class Meta:
        model = Contract
        fields = ("id", "name", "version", "is_draft", "sha256", "body", "created_at")


class FullRefreshSerializer(serializers.Serializer[Any]):
    """A pipeline whose next run reads everything anew, and why."""

    pipeline = serializers.CharField()
    reason = serializers.CharField()


class WrittenContractSerializer(ContractSerializer):
    """A version that was written, and what it will cause."""

    full_refreshes = serializers.SerializerMethodField()

    class Meta(ContractSerializer.Meta):
        fields = (*ContractSerializer.Meta.fields, "full_refreshes")

    @extend_schema_field(FullRefreshSerializer(many=True))
    def get_full_refreshes(self, contract: Contract) -> list[dict[str, str]]:
        """Return the pipelines whose key is another now."""
        return [{"pipeline": pipeline.name, "reason": reason} for pipeline, reason in full_refreshes(contract)]


class ContractsQuery(PageQuery):
    """Choice of versions."""

    name = serializers.CharField(required=False, max_length=100)
    latest = serializers.BooleanField(default=False, help_text="Only the newest version of each name.")


@resource(
    "contracts",
    ContractSerializer,
    query=ContractsQuery,
    list="List the contracts|Return a page of versions, in the order they were written.",
    read="Show a version of a contract|Return the version.",
)
class Contracts(Resource):
    """The versions of all contracts, none of which is ever changed."""

    http_method_names = APPEND_ONLY
    parser_classes = (StrictJSONParser, YAMLParser, XYAMLParser, TextYAMLParser, PlainYAMLParser)
    rows = Contract.objects.all()
    query_classes = {"list": ContractsQuery}
    serializer_class = ContractSerializer

    def wanted(self) -> QuerySet[Contract]:
        """Return the versions of a name, or the newest ones."""
        latest = self.query.pop("latest")
        rows = super().wanted()
        if latest:
            newest = Window(Max("version"), partition_by="name")
            rows = rows.alias(newest=newest).filter(version=F("newest"))
        return rows

    @operation(
        "contracts_create",
        "Write a new version of a contract",
        description="The body is the contract itself, as JSON or YAML. The same contract again changes nothing. "
        "`full_refreshes` names the pipelines whose key it changes: their next run reads everything anew.",
        request={"application/json": OpenApiTypes.OBJECT, "application/yaml": OpenApiTypes.STR},
        responses={201: WrittenContractSerializer, 200: WrittenContractSerializer},
    )
    def create(self, request: Request) -> Response:
        """Return the version, 201 where it is new."""
        if not isinstance(request.data, dict | str):
            raise invalid("the body is no contract; write a mapping with name, key and columns")
        last = Contract.objects.aggregate(pk=Max("pk"))["pk"] or 0
        contract = save_contract(request.data)
        is_new = contract.pk > last
        answer = WrittenContractSerializer(contract).data
        return Response(answer, status=status.HTTP_201_CREATED if is_new else status.HTTP_200_OK)
