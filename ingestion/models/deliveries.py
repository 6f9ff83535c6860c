"""A run on its way into its destinations."""

from django.db import models

from ingestion.models.configuration import Destination
from ingestion.models.leased import Leased
from ingestion.models.runs import Part, PartitionState, Run
from ingestion.ports.publication import DeliveryState

GIVEN_UP_STATES = frozenset({DeliveryState.FAILED, DeliveryState.PUBLISHED_NOT_LOADED})
"""The run goes on without such a delivery; a retry takes it up again."""
UNDELIVERED_STATES = GIVEN_UP_STATES | {DeliveryState.REMOVED}
"""The destination does not show the rows; the delivery can be made again."""
OPEN_DELIVERY_STATES = frozenset(set(DeliveryState) - {DeliveryState.VERIFIED} - UNDELIVERED_STATES)


class Delivery(Leased):
    """One run x one destination."""

    State = DeliveryState

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="deliveries")
    destination = models.ForeignKey(Destination, on_delete=models.PROTECT, related_name="deliveries")
    state = models.CharField(
        max_length=20, choices=[(state.value, state.value) for state in DeliveryState], default=DeliveryState.PLANNED
    )
    refs = models.JSONField(default=dict, blank=True, help_text="The sink's own notes: task ids, keys.")
    polls = models.PositiveIntegerField(default=0, db_column="looks", help_text="How often the commit was polled.")
    inserted = models.BigIntegerField(default=0)
    updated = models.BigIntegerField(default=0)
    unchanged = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0, db_column="refused")
    counted = models.BigIntegerField(null=True, blank=True, help_text="Rows that a reader of the destination sees.")
    code = models.CharField(max_length=60, blank=True)
    message = models.TextField(blank=True)
    needs_abort = models.BooleanField(default=False, help_text="What was staged is still to be removed.")
    is_redelivery = models.BooleanField(
        default=False, help_text="Made after the run was published, from the lake; the run itself stays as it is."
    )
    lock = models.CharField(  # noqa: DJ001 (null where nothing is locked, so that it can be unique)
        max_length=60,
        null=True,
        blank=True,
        unique=True,
        editable=False,
        db_column="holds",
        help_text="What it loads alone: its pipeline at its destination.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["run", "id"]
        verbose_name_plural = "deliveries"
        constraints = [models.UniqueConstraint(fields=["run", "destination"], name="delivery_once")]
        indexes = [
            models.Index(fields=["state", "not_before"], name="delivery_by_state"),
            models.Index(fields=["needs_abort"], name="delivery_to_abort"),
        ]

    def __str__(self) -> str:
        return f"run {self.run_id} to {self.destination}"


class DeliveryPart(Leased):
    """One clean part on its way into one destination."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="parts")
    part = models.ForeignKey(Part, on_delete=models.CASCADE, related_name="deliveries")
    state = models.CharField(max_length=8, choices=PartitionState.choices, default=PartitionState.PENDING)
    rows = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0, db_column="refused")
    code = models.CharField(max_length=60, blank=True)
    message = models.TextField(blank=True)

    class Meta:
        ordering = ["delivery", "part"]
        constraints = [models.UniqueConstraint(fields=["delivery", "part"], name="delivery_part_once")]
        indexes = [models.Index(fields=["state", "not_before"], name="delivery_part_by_state")]

    def __str__(self) -> str:
        return f"{self.delivery_id}/{self.part_id}"
