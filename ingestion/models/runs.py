"""The history: runs, their partitions, parts and events."""

from django.db import models
from django.db.models import Q

from ingestion.models.configuration import Contract, Pipeline, Priority, Schedule, Upload
from ingestion.models.leased import Leased


class RunState(models.TextChoices):
    """Place of a run in its life; the moves stand in `runs/work/states.py`."""

    PENDING = "pending"
    PLANNING = "planning"
    RUNNING = "running"
    COMPLETING = "completing"
    HELD = "held"
    DELIVERING = "delivering"
    LOADING = "loading"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


class PartitionState(models.TextChoices):
    """State of a partition, or of a delivery's part."""

    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


TERMINAL_RUN_STATES = frozenset({RunState.SUCCEEDED, RunState.PARTIAL, RunState.FAILED, RunState.CANCELLED})
SETTLED_RUN_STATES = TERMINAL_RUN_STATES | {RunState.HELD}
"""Nothing is worked on by itself: the run has ended, or a person decides about it."""
PUBLISHED_RUN_STATES = frozenset({RunState.SUCCEEDED, RunState.PARTIAL})
ACTIVE_RUN_STATES = frozenset(set(RunState) - SETTLED_RUN_STATES - {RunState.PENDING})
UNFINISHED_PARTITION_STATES = frozenset({PartitionState.PENDING, PartitionState.LEASED})


class Run(Leased):
    """One execution of a pipeline."""

    class Trigger(models.TextChoices):
        """The party that asked for the run."""

        API = "api"
        ADMIN = "admin"
        CLI = "cli"
        SCHEDULE = "schedule"
        UPLOAD = "upload"
        DEPENDENCY = "dependency"
        ROLLBACK = "rollback"

    pipeline = models.ForeignKey(Pipeline, on_delete=models.PROTECT, related_name="runs")
    contract = models.ForeignKey(Contract, on_delete=models.PROTECT, null=True, related_name="runs")
    state = models.CharField(max_length=12, choices=RunState.choices, default=RunState.PENDING)
    trigger = models.CharField(max_length=12, choices=Trigger.choices)
    slot = models.DateTimeField(null=True, blank=True, help_text="The schedule's time that this run is for.")
    schedule = models.ForeignKey(Schedule, on_delete=models.SET_NULL, null=True, blank=True, related_name="runs")
    idempotency_key = models.CharField(max_length=200, null=True, blank=True, unique=True)  # noqa: DJ001
    query = models.JSONField(default=dict, help_text="The question as it was asked, resolved at creation.")
    uploads = models.ManyToManyField(Upload, blank=True, related_name="runs")
    mode = models.CharField(max_length=20, choices=Pipeline.Mode.choices)
    since = models.JSONField(null=True, blank=True, help_text="The checkpoint this run reads from.")
    priority = models.PositiveSmallIntegerField(choices=Priority.choices, default=Priority.NORMAL)
    republishes = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="republished_by"
    )

    fetched = models.BigIntegerField(default=0)
    accepted = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0)
    duplicate = models.BigIntegerField(default=0)
    filtered = models.BigIntegerField(default=0)
    code = models.CharField(max_length=60, blank=True, help_text="Why it failed; empty when it did not.")
    message = models.TextField(blank=True)
    approved_at = models.DateTimeField(
        null=True, blank=True, help_text="When a person let it be published though a gate had held it."
    )
    manifest_key = models.CharField(max_length=500, blank=True)

    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    published_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["pipeline", "slot"], name="run_slot_once"),
            models.CheckConstraint(condition=Q(state__in=RunState.values), name="run_state_known"),
        ]
        indexes = [
            models.Index(fields=["pipeline", "-id"], name="run_by_pipeline"),
            # Not partial: SQLite takes a partial index for no question that binds its states as parameters.
            models.Index(fields=["state", "not_before"], name="run_by_state"),
            models.Index(fields=["pipeline", "state"], name="run_by_pipeline_and_state"),
            models.Index(fields=["pipeline", "published_at"], name="run_by_publication"),
            models.Index(fields=["created_at"], name="run_by_creation"),
            models.Index(fields=["finished_at"], name="run_by_end"),
        ]

    def __str__(self) -> str:
        return f"run {self.pk}"

    @property
    def is_terminal(self) -> bool:
        """Return whether the run has ended."""
        return self.state in TERMINAL_RUN_STATES

    @property
    def is_settled(self) -> bool:
        """Return whether nothing more will happen to this run by itself."""
        return self.state in SETTLED_RUN_STATES


class Partition(Leased):
    """A bounded piece of a run's work, named by (lane, link)."""

    class Stage(models.TextChoices):
        """The task that comes next."""

        FETCH = "fetch"
        VALIDATE = "validate"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="partitions")
    lane = models.PositiveIntegerField()
    link = models.PositiveIntegerField(default=0)
    spec = models.JSONField(default=dict)
    label = models.CharField(max_length=255, blank=True)
    stage = models.CharField(max_length=8, choices=Stage.choices, default=Stage.FETCH)
    state = models.CharField(max_length=8, choices=PartitionState.choices, default=PartitionState.PENDING)
    cursor = models.JSONField(null=True, blank=True, help_text="Where the next page begins.")
    next_seq = models.PositiveIntegerField(default=0, help_text="Number of the next raw part.")
    raw_bytes = models.BigIntegerField(default=0)
    expected_records = models.BigIntegerField(null=True, blank=True)
    fetched = models.BigIntegerField(default=0)
    accepted = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0)
    duplicate = models.BigIntegerField(default=0)
    filtered = models.BigIntegerField(default=0)
    high_water = models.CharField(max_length=64, blank=True, help_text="Greatest accepted cursor_field value.")
    code = models.CharField(max_length=60, blank=True)
    message = models.TextField(blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["run", "lane", "link"]
        constraints = [
            models.UniqueConstraint(fields=["run", "lane", "link"], name="partition_once"),
            models.CheckConstraint(condition=Q(state__in=PartitionState.values), name="partition_state_known"),
        ]
        indexes = [
            models.Index(fields=["state", "not_before"], name="partition_by_state"),
            models.Index(fields=["run", "state"], name="partition_by_run_and_state"),
        ]

    def __str__(self) -> str:
        return f"{self.run_id}/{self.lane}-{self.link}"


class Part(models.Model):
    """One immutable object in the lake; the row decides which object counts."""

    class Zone(models.TextChoices):
        """The content of the object."""

        RAW = "raw"
        CLEAN = "clean"
        REJECTED = "rejected"
        REFUSED = "refused"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="parts")
    zone = models.CharField(max_length=8, choices=Zone.choices)
    lane = models.PositiveIntegerField()
    link = models.PositiveIntegerField()
    seq = models.PositiveIntegerField()
    key = models.CharField(max_length=500)
    offset = models.BigIntegerField(default=0, help_text="First byte, where the part is a span of a stored file.")
    size_bytes = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    rows = models.BigIntegerField(null=True, blank=True)
    pages = models.JSONField(
        default=list, blank=True, help_text="Page index of a raw part: url, status, headers, range."
    )
    hashes_key = models.CharField(max_length=500, blank=True, help_text="Sorted key hashes of a clean part.")
    delivery = models.ForeignKey(
        "Delivery",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="rejected_parts",
        help_text="The delivery whose destination rejected these rows.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["run", "zone", "lane", "link", "seq"]
        constraints = [
            models.UniqueConstraint(
                fields=["run", "zone", "lane", "link", "seq"], condition=Q(delivery__isnull=True), name="part_once"
            ),
            models.UniqueConstraint(
                fields=["delivery", "lane", "link", "seq"],
                condition=Q(delivery__isnull=False),
                name="refused_part_once",
            ),
        ]

    def __str__(self) -> str:
        return self.key


class RunEvent(models.Model):
    """One line of a run's log: what happened, in order."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events")
    kind = models.CharField(max_length=60)
    level = models.CharField(max_length=8, default="info")
    message = models.TextField(blank=True)
    values = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["run", "id"], name="event_by_run")]

    def __str__(self) -> str:
        return f"{self.kind} of run {self.run_id}"


class Checkpoint(models.Model):
    """The place up to which a pipeline has read; moves only when a run is published."""

    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="checkpoints")
    stream = models.CharField(max_length=100)
    cursor = models.JSONField()
    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="+")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pipeline", "stream"], name="checkpoint_once")]

    def __str__(self) -> str:
        return f"{self.pipeline}/{self.stream}"
