"""The configuration by people: sources, destinations, contracts, pipelines, schedules."""

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models

from ingestion.models.secrets import EncryptedJSONField

name_validator = RegexValidator(
    r"\A[a-z0-9][a-z0-9_-]{0,62}\Z",
    "Use lower case letters, digits, '-' and '_', at most 63, beginning with a letter or digit.",
)


class Configured(models.Model):
    """A named thing that a person sets up."""

    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Source(Configured):
    """A configured place data come from."""

    kind = models.CharField(max_length=40)
    config = models.JSONField(default=dict, blank=True)
    secrets = EncryptedJSONField(default=dict, blank=True)
    rate_per_s = models.FloatField(null=True, blank=True, help_text="Requests a second over all workers; empty: none.")
    burst = models.PositiveIntegerField(default=1, help_text="Requests that may go at once after a pause.")


class Destination(Configured):
    """A configured place data go to."""

    kind = models.CharField(max_length=40)
    config = models.JSONField(default=dict, blank=True)
    secrets = EncryptedJSONField(default=dict, blank=True)


class Contract(models.Model):
    """One version of the expected schema and rules of a stream; never changed once written."""

    name = models.CharField(max_length=100)
    version = models.PositiveIntegerField()
    body = models.JSONField()
    sha256 = models.CharField(max_length=64)
    is_draft = models.BooleanField(default=False, help_text="Inferred from data; nobody has confirmed it.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "-version"]
        constraints = [models.UniqueConstraint(fields=["name", "version"], name="contract_version_once")]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class Priority(models.IntegerChoices):
    """The order in which a run gets a worker slot; higher first."""

    LOW = 1
    NORMAL = 5
    HIGH = 8
    CRITICAL = 10


class Pipeline(Configured):
    """Source + stream + query -> contract -> destinations."""

    class Mode(models.TextChoices):
        """A run that reads everything replaces; one that reads what is new adds."""

        FULL_REFRESH = "full_refresh"
        INCREMENTAL = "incremental"

    source = models.ForeignKey(Source, on_delete=models.PROTECT, related_name="pipelines")
    stream = models.CharField(max_length=100)
    query = models.JSONField(default=dict, blank=True, help_text="filter, fields, limit, options of the connector.")
    contract = models.ForeignKey(
        Contract,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="pipelines",
        help_text="Empty: drafted from the first run's data.",
    )
    destinations = models.ManyToManyField(Destination, blank=True, related_name="pipelines")
    mode = models.CharField(max_length=20, choices=Mode.choices, default=Mode.FULL_REFRESH)
    priority = models.PositiveSmallIntegerField(choices=Priority.choices, default=Priority.NORMAL)
    is_paused = models.BooleanField(default=False)
    allow_partial = models.BooleanField(default=False, help_text="Publish what succeeded when a partition failed.")
    allow_empty = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Publish a run without a single accepted row, instead of holding it.",
    )
    max_active_runs = models.PositiveSmallIntegerField(default=1)
    run_timeout_s = models.PositiveIntegerField(default=24 * 3600)
    upstreams = models.ManyToManyField(
        "self", through="PipelineDependency", symmetrical=False, related_name="downstreams", blank=True
    )


class PipelineDependency(models.Model):
    """`pipeline` runs after a publication of `upstream` that is newer than its own last run."""

    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="dependencies")
    upstream = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="dependents")
    timeout_s = models.PositiveIntegerField(default=24 * 3600, help_text="How long a run waits before it fails.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["pipeline", "upstream"], name="dependency_once"),
            models.CheckConstraint(condition=~models.Q(pipeline=models.F("upstream")), name="dependency_not_on_itself"),
        ]

    def __str__(self) -> str:
        return f"{self.pipeline} after {self.upstream}"


class Schedule(models.Model):
    """Times at which a pipeline runs by itself; evaluated by one beat tick."""

    class MissedPolicy(models.TextChoices):
        """The fate of slots that passed while nothing ran."""

        SKIP = "skip"
        RUN_ONCE = "run_once"
        RUN_ALL = "run_all"

    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="schedules")
    cron = models.CharField(max_length=100, blank=True)
    interval_s = models.PositiveIntegerField(null=True, blank=True)
    timezone = models.CharField(max_length=60, default="UTC")
    jitter_s = models.PositiveIntegerField(
        default=0, help_text="Each slot starts up to this much later, evenly spread."
    )
    missed_policy = models.CharField(max_length=10, choices=MissedPolicy.choices, default=MissedPolicy.RUN_ONCE)
    max_runs = models.PositiveIntegerField(null=True, blank=True, help_text="Switch off after that many runs.")
    is_enabled = models.BooleanField(default=True)
    runs_created = models.PositiveIntegerField(default=0, editable=False)
    starts_at = models.DateTimeField(null=True, blank=True)
    last_slot = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=(models.Q(cron="") & models.Q(interval_s__isnull=False))
                | (~models.Q(cron="") & models.Q(interval_s__isnull=True)),
                name="schedule_cron_or_interval",
            )
        ]

    def __str__(self) -> str:
        return f"{self.pipeline}: {self.cron or f'every {self.interval_s} s'}"


class Upload(models.Model):
    """A file that a person or program sent; stored under its own id, unique by content."""

    name = models.CharField(max_length=255)
    key = models.CharField(max_length=500, blank=True)
    size_bytes = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, null=True, unique=True)  # noqa: DJ001 (null until the last byte came)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name
