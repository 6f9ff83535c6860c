"""Pieces of one run: its log, partitions, parts and deliveries."""

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.deliveries import STATES, DeliverySerializer
from ingestion.api.pagination import PageQuery, filtered, keyset_page, page_answer, page_of
from ingestion.api.resource import Resource, action
from ingestion.models import Part, Partition, PartitionState, Run, RunEvent
from ingestion.runs.read.history import find_deliveries


class EventSerializer(serializers.ModelSerializer[RunEvent]):
    """One line of a run's log."""

    values = serializers.DictField()

    class Meta:
        model = RunEvent
        fields = ("id", "kind", "level", "message", "values", "created_at")


class PartitionSerializer(serializers.ModelSerializer[Partition]):
    """A bounded piece of a run's work."""

    class Meta:
        model = Partition
        fields = (
            "id", "lane", "link", "label", "stage", "state", "attempt", "raw_bytes", "expected_records", "fetched",
            "accepted", "rejected", "duplicate", "filtered", "code", "message", "not_before", "finished_at",
        )  # fmt: skip


class PartSerializer(serializers.ModelSerializer[Part]):
    """One immutable object in the lake."""

    pages = serializers.ListField(child=serializers.DictField())

    class Meta:
        model = Part
        fields = (
            "id", "zone", "lane", "link", "seq", "key", "offset", "size_bytes", "sha256", "rows", "pages", "created_at",
        )  # fmt: skip


class EventsQuery(PageQuery):
    """Choice of lines."""

    level = serializers.ChoiceField(choices=("info", "warning", "error"), required=False)
    kind = serializers.CharField(required=False, max_length=60)


class PartitionsQuery(PageQuery):
    """Choice of partitions."""

    state = serializers.ChoiceField(choices=PartitionState.choices, required=False)
    stage = serializers.ChoiceField(choices=Partition.Stage.choices, required=False)


class PartsQuery(PageQuery):
    """Choice of parts."""

    zone = serializers.ChoiceField(choices=Part.Zone.choices, required=False)


class DeliveriesQuery(PageQuery):
    """Choice of deliveries."""

    state = serializers.ChoiceField(choices=STATES, required=False)


def _list_of_run(name: str, summary: str, rows: QuerySet[Any], query: type[PageQuery], serializer: Any) -> Any:
    def show(self: Resource, request: Request, id: int) -> Response:
        """Return a page of them."""
        get_object_or_404(Run.objects.only("pk"), pk=id)
        page, following = keyset_page(request, self.query, filtered(rows.filter(run_id=id), self.query))
        return page_answer(serializer(page, many=True).data, following)

    show.__name__ = name
    listed = action(name, f"runs_{name}", summary, method="get", query_class=query, responses=page_of(serializer))
    return listed(show)


class RunDetails(Resource):
    """Pieces of one run."""

    events = _list_of_run("events", "Show a run's log", RunEvent.objects.all(), EventsQuery, EventSerializer)
    partitions = _list_of_run(
        "partitions", "Show a run's partitions", Partition.objects.all(), PartitionsQuery, PartitionSerializer
    )
    parts = _list_of_run("parts", "Show a run's parts", Part.objects.all(), PartsQuery, PartSerializer)
    deliveries = _list_of_run(
        "deliveries", "Show a run's deliveries", find_deliveries(), DeliveriesQuery, DeliverySerializer
    )
