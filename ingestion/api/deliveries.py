"""Deliveries: listed, looked at with their history, and made again from the lake."""

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers, status
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse

from ingestion.api.base import NameOrId, Strict, View, operation, validated
from ingestion.api.pagination import PageQuery
from ingestion.api.permissions import StaffWrites
from ingestion.api.resource import READ_ONLY, Resource, resource
from ingestion.models import Delivery, Destination, Pipeline, Run
from ingestion.ports.publication import DeliveryState
from ingestion.runs.deliver.redelivery import redeliver
from ingestion.runs.operate import housekeeping
from ingestion.runs.read.history import RENAMED_FIELDS, find_deliveries, history_of, notes_of, task_of

LARGEST_ID = 2**63 - 1
STATES = [(state.value, state.value) for state in DeliveryState]


@extend_schema_serializer(deprecate_fields=list(RENAMED_FIELDS))
class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    """A run on its way into a destination."""

    run = serializers.IntegerField(source="run_id")
    pipeline = serializers.CharField(source="run.pipeline.name")
    destination = serializers.CharField(source="destination.name")
    looks, refused = (
        serializers.IntegerField(source=new, read_only=True, help_text=f"The older name of `{new}`, for one release.")
        for new in RENAMED_FIELDS.values()
    )

    class Meta:
        model = Delivery
        fields: tuple[str, ...] = (
            "id", "run", "pipeline", "destination", "state", "is_redelivery", "attempt", "polls", "inserted", "updated",
            "unchanged", "rejected", "counted", "code", "message", "needs_abort", "not_before", "created_at",
            "finished_at", "looks", "refused",
        )  # fmt: skip


class HistoryLineSerializer(serializers.Serializer[Any]):
    """One line of a delivery's history."""

    at = serializers.DateTimeField(allow_null=True)
    state = serializers.CharField(help_text="The state it reached; empty where something happened that moved nothing.")
    message = serializers.CharField()
    level = serializers.CharField()
    by = serializers.CharField(help_text="Who asked for it, where a person did.")


class DeliveryDetailSerializer(DeliverySerializer):
    """A delivery with how it went and what its sink noted down."""

    history = serializers.SerializerMethodField(help_text="Which state it reached when, in order.")
    notes = serializers.SerializerMethodField(help_text="The sink's own, without secrets: task, datasource, way.")
    link = serializers.SerializerMethodField(help_text="Where the destination's console shows its task; else empty.")
    links = serializers.SerializerMethodField()

    class Meta(DeliverySerializer.Meta):
        fields = (*DeliverySerializer.Meta.fields, "history", "notes", "link", "links")

    @extend_schema_field(HistoryLineSerializer(many=True))
    def get_history(self, delivery: Delivery) -> Any:
        """Return what became of it, in order."""
        return HistoryLineSerializer(history_of(delivery), many=True).data

    @extend_schema_field({"type": "object", "additionalProperties": True})
    def get_notes(self, delivery: Delivery) -> dict[str, Any]:
        """Return what its sink noted down."""
        return notes_of(delivery)

    def get_link(self, delivery: Delivery) -> str:
        """Return where the destination's own console shows the task."""
        task = task_of(delivery)
        return housekeeping.outside_task_link(delivery.destination, task) if task else ""

    @extend_schema_field({"type": "object", "additionalProperties": {"type": "string", "format": "uri"}})
    def get_links(self, delivery: Delivery) -> dict[str, str]:
        """Return the addresses of what it belongs to."""
        request = self.context["request"]
        run = reverse("run", kwargs={"id": delivery.run_id}, request=request)
        return {
            "self": reverse("delivery", kwargs={"id": delivery.pk}, request=request),
            "run": run,
            "destination": reverse("destination", kwargs={"id": delivery.destination_id}, request=request),
            "rejected": f"{run}/rejected?outcome=rejected_by_destination",
            "refused": f"{run}/rejected?outcome=refused",
        }


class AllDeliveriesQuery(PageQuery):
    """Choice of deliveries."""

    run = serializers.IntegerField(required=False, min_value=1, max_value=LARGEST_ID)
    pipeline = NameOrId(Pipeline.objects.all(), required=False)
    destination = NameOrId(Destination.objects.all(), required=False)
    state = serializers.ChoiceField(choices=STATES, required=False)


@resource(
    "deliveries",
    DeliverySerializer,
    query=AllDeliveriesQuery,
    list="List the deliveries, newest first|Return a page of them.",
)
class Deliveries(Resource):
    """The deliveries."""

    http_method_names = READ_ONLY
    permission_classes = (IsAuthenticated,)
    rows = find_deliveries()
    order = "-id"
    query_classes = {"list": AllDeliveriesQuery}
    serializer_class = DeliverySerializer

    def wanted(self) -> QuerySet[Delivery]:
        """Return the deliveries that fit."""
        names = ("run", "pipeline", "destination", "state")
        return find_deliveries(**{name: self.query.get(name) for name in names})

    @operation(
        "deliveries_read", "Show a delivery, its history and its sink's notes", responses=DeliveryDetailSerializer
    )
    def retrieve(self, request: Request, id: int) -> Response:
        """Return it."""
        return Response(describe_delivery(request, id))


class RedeliverySerializer(Strict):
    """Destination of a delivery."""

    destination = NameOrId(Destination.objects.all())


class RedeliverView(View):
    """The address at which a run was delivered again before `redeliver` of a destination took its place."""

    renamed_to = "/api/v1/destinations/{id}/redeliver"
    permission_classes = (StaffWrites,)

    @operation(
        "runs_redeliver",
        "Deliver a published run to a destination, from the lake",
        description=(
            "The source is not asked and the run stays as it is. Asked for again while it is under way, or once it is "
            "verified, it is refused with `delivery.exists`: nothing is delivered twice."
        ),
        request=RedeliverySerializer,
        responses={202: DeliveryDetailSerializer},
        deprecated=True,
    )
    def post(self, request: Request, id: int) -> Response:
        """Return the delivery, which was begun."""
        get_object_or_404(Run.objects.only("pk"), pk=id)
        asked = validated(RedeliverySerializer, request)
        made = redeliver(id, asked["destination"], by=request.user.get_username())
        body = describe_delivery(request, made.pk)
        return Response(body, status=status.HTTP_202_ACCEPTED, headers={"Location": body["links"]["self"]})


def describe_delivery(request: Request, delivery_id: int) -> dict[str, Any]:
    """Return everything that is known of a delivery, as the API shows it."""
    delivery = get_object_or_404(find_deliveries(), pk=delivery_id)
    return dict(DeliveryDetailSerializer(delivery, context={"request": request}).data)
