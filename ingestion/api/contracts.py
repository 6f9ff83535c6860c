"""Contracts: every version that there is, and new ones; a version never changes."""

from django.db.models import F, Max, Window
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import View, operation
from ingestion.api.bodies import (
    PlainYAMLParser,
    StrictJSONParser,
    TextYAMLParser,
    XYAMLParser,
    YAMLParser,
)
from ingestion.api.pagination import PageQuery, keyset_page, page_answer, page_of
from ingestion.api.permissions import StaffWrites
from ingestion.api.problems import invalid
from ingestion.models import Contract
from ingestion.runs.start.contracts import save_contract


class ContractSerializer(serializers.ModelSerializer[Contract]):
    """One version of a contract."""

    body = serializers.DictField()

    class Meta:
        model = Contract
        fields = ("id", "name", "version", "is_draft", "sha256", "body", "created_at")


class ContractsQuery(PageQuery):
    """Which versions are listed."""

    name = serializers.CharField(required=False, max_length=100)
    latest = serializers.BooleanField(default=False, help_text="Only the newest version of each name.")


class ContractsView(View):
    """All versions of all contracts."""

    permission_classes = (StaffWrites,)
    parser_classes = (StrictJSONParser, YAMLParser, XYAMLParser, TextYAMLParser, PlainYAMLParser)
    query_classes = {"GET": ContractsQuery}

    @operation(
        "contracts_list", "List the contracts", parameters=[ContractsQuery], responses=page_of(ContractSerializer)
    )
    def get(self, request: Request) -> Response:
        """Return a page of versions, in the order they were written."""
        rows = Contract.objects.all()
        if "name" in self.query:
            rows = rows.filter(name=self.query["name"])
        if self.query["latest"]:
            newest = Window(Max("version"), partition_by="name")
            rows = rows.alias(newest=newest).filter(version=F("newest"))
        page, following = keyset_page(request, self.query, rows)
        return page_answer(ContractSerializer(page, many=True).data, following)

    @operation(
        "contracts_create",
        "Write a new version of a contract",
        description="The body is the contract itself, as JSON or YAML. The same contract again changes nothing.",
        request={"application/json": OpenApiTypes.OBJECT, "application/yaml": OpenApiTypes.STR},
        responses={201: ContractSerializer, 200: ContractSerializer},
    )
    def post(self, request: Request) -> Response:
        """Return the version, 201 where it is new."""
        if not isinstance(request.data, dict | str):
            raise invalid("the body is no contract; write a mapping with name, key and columns")
        last = Contract.objects.aggregate(pk=Max("pk"))["pk"] or 0
        contract = save_contract(request.data)
        is_new = contract.pk > last
        return Response(
            ContractSerializer(contract).data, status=status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
        )


class ContractView(View):
    """One version of a contract."""

    @operation("contracts_read", "Show a version of a contract", responses=ContractSerializer)
    def get(self, request: Request, id: int) -> Response:  # noqa: A002 (the name in the address)
        """Return the version."""
        return Response(ContractSerializer(get_object_or_404(Contract, pk=id)).data)
