"""The catalog: the accepted records of each pipeline's latest published state.

Rows are written invisibly and shown by one small update, so that a reader never sees half a publication and no
transaction is long: a record is visible while `publication <= current < coalesce(retired_by, infinity)` and
`publication >= floor`, with `current` and `floor` from its pipeline's `CatalogState`.
"""

from django.db import models

from ingestion.models.configuration import Pipeline
from ingestion.models.runs import Run


class CatalogState(models.Model):
    """What readers of one pipeline's records see now."""

    pipeline = models.OneToOneField(Pipeline, on_delete=models.CASCADE, primary_key=True, related_name="catalog_state")
    current = models.PositiveBigIntegerField(default=0)
    floor = models.PositiveBigIntegerField(default=0, help_text="Older publications than this were replaced as a whole.")
    last_number = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.pipeline}: publication {self.current}"


class CatalogPublication(models.Model):
    """One run's passage into the catalog; at most one of a pipeline is open."""

    class State(models.TextChoices):
        """Open rows are staged or merged, published ones are seen, aborted ones are gone."""

        OPEN = "open"
        PUBLISHED = "published"
        ABORTED = "aborted"

    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="catalog_publications")
    run = models.OneToOneField(Run, on_delete=models.CASCADE, related_name="catalog_publication")
    number = models.PositiveBigIntegerField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    merged_up_to = models.BigIntegerField(default=0, help_text="Staged rows up to this id are merged.")
    inserted = models.BigIntegerField(default=0)
    updated = models.BigIntegerField(default=0)
    unchanged = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["pipeline", "number"], name="publication_number_once"),
            models.UniqueConstraint(fields=["pipeline"], condition=models.Q(state="open"), name="publication_one_open"),
        ]

    def __str__(self) -> str:
        return f"{self.pipeline} publication {self.number}"


class CatalogRecord(models.Model):
    """One version of one accepted record."""

    id = models.BigAutoField(primary_key=True)
    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="+", db_index=False)
    publication = models.PositiveBigIntegerField()
    retired_by = models.PositiveBigIntegerField(null=True)
    run = models.ForeignKey(Run, on_delete=models.DO_NOTHING, related_name="+", db_index=False, db_constraint=False)
    key_hash = models.CharField(max_length=32, help_text="First 128 bits of SHA-256 over the key's JSON, as hex.")
    record_hash = models.CharField(max_length=32)
    event_time = models.DateTimeField(null=True)
    part = models.CharField(max_length=40)
    record = models.TextField(help_text="The record's own columns as one JSON object.")

    class Meta:
        indexes = [
            models.Index(fields=["pipeline", "key_hash"], name="catalog_by_key"),
            models.Index(fields=["pipeline", "publication", "id"], name="catalog_by_publication"),
            models.Index(fields=["pipeline", "event_time", "id"], name="catalog_by_time"),
        ]

    def __str__(self) -> str:
        return f"record {self.pk}"
