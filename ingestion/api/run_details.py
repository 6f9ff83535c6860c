"""What belongs to one run: its log, partitions, parts and deliveries."""

from typing import Any, ClassVar

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.api.base import View, operation
from ingestion.api.deliveries import STATES, DeliverySerializer
from ingestion.api.pagination import PageQuery, keyset_page, page_answer, page_of
from ingestion.models import Delivery, Part, Partition, PartitionState, Run, RunEvent


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
    """Which lines are shown."""

    level = serializers.ChoiceField(choices=("info", "warning", "error"), required=False)
    kind = serializers.CharField(required=False, max_length=60)


class PartitionsQuery(PageQuery):
    """Which partitions are shown."""

    state = serializers.ChoiceField(choices=PartitionState.choices, required=False)
    stage = serializers.ChoiceField(choices=Partition.Stage.choices, required=False)


class PartsQuery(PageQuery):
    """Which parts are shown."""

    zone = serializers.ChoiceField(choices=Part.Zone.choices, required=False)


class DeliveriesQuery(PageQuery):
    """Which deliveries are shown."""

    state = serializers.ChoiceField(choices=STATES, required=False)


class _BelowRun(View):
    rows: ClassVar[Any]
    serializer_class: ClassVar[type[serializers.ModelSerializer[Any]]]

    def get(self, request: Request, id: int) -> Response:
        """Return a page of them."""
        get_object_or_404(Run.objects.only("pk"), pk=id)
        wanted = {name: value for name, value in self.query.items() if name not in ("limit", "after")}
        rows: QuerySet[Any] = self.rows.filter(run_id=id, **wanted)
        page, following = keyset_page(request, self.query, rows)
        return page_answer(self.serializer_class(page, many=True).data, following)


@extend_schema_view(
    get=operation("runs_events", "Show a run's log", parameters=[EventsQuery], responses=page_of(EventSerializer))
)
class EventsView(_BelowRun):
    """The log of a run, in order."""

    rows = RunEvent.objects.all()
    query_class = EventsQuery
    serializer_class = EventSerializer


@extend_schema_view(
    get=operation(
        "runs_partitions",
        "Show a run's partitions",
        parameters=[PartitionsQuery],
        responses=page_of(PartitionSerializer),
    )
)
class PartitionsView(_BelowRun):
    """The partitions of a run."""

    rows = Partition.objects.all()
    query_class = PartitionsQuery
    serializer_class = PartitionSerializer


@extend_schema_view(
    get=operation("runs_parts", "Show a run's parts", parameters=[PartsQuery], responses=page_of(PartSerializer))
)
class PartsView(_BelowRun):
    """The objects of a run."""

    rows = Part.objects.all()
    query_class = PartsQuery
    serializer_class = PartSerializer


@extend_schema_view(
    get=operation(
        "runs_deliveries",
        "Show a run's deliveries",
        parameters=[DeliveriesQuery],
        responses=page_of(DeliverySerializer),
    )
)
class DeliveriesView(_BelowRun):
    """The deliveries of a run."""

    rows = Delivery.objects.select_related("destination", "run__pipeline")
    query_class = DeliveriesQuery
    serializer_class = DeliverySerializer
