"""The catalog: the accepted records of each pipeline's latest published state.

Rows are written invisibly and shown by one small update, so that a reader never sees half a publication and no
transaction is long: a record is visible while `publication <= current < coalesce(retired_by, infinity)` and
`publication >= floor`, with `current` and `floor` from its pipeline's `CatalogState`.

One publication of a pipeline is open at a time, so within a pipeline a later publication's rows have the greater
ids: each publication is a range of ids, and paging by id walks the publications in order.
"""

from django.db import models

from ingestion.models.configuration import Pipeline
from ingestion.models.runs import Run


class CatalogState(models.Model):
    """The publication that readers of one pipeline's records see now."""

    pipeline = models.OneToOneField(Pipeline, on_delete=models.CASCADE, primary_key=True, related_name="catalog_state")
    current = models.PositiveBigIntegerField(default=0)
    floor = models.PositiveBigIntegerField(
        default=0, help_text="Older publications than this were replaced as a whole."
    )
    floor_id = models.BigIntegerField(default=0, help_text="Every visible row has a greater id.")
    last_number = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.pipeline}: publication {self.current}"


class CatalogPublication(models.Model):
    """One passage of a run into the catalog; at most one of a pipeline is unfinished.

    A run has more than one where it was aborted and delivered again, or reopened after it was published in part.
    """

    class State(models.TextChoices):
        """Open rows are staged or merged, published ones are seen, aborting ones are being removed, aborted are gone."""

        OPEN = "open"
        PUBLISHED = "published"
        ABORTING = "aborting"
        ABORTED = "aborted"

    pipeline = models.ForeignKey(Pipeline, on_delete=models.CASCADE, related_name="catalog_publications")
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="catalog_publications")
    number = models.PositiveBigIntegerField()
    after_id = models.BigIntegerField(default=0, help_text="Every row of this publication has a greater id.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    merged_up_to = models.BigIntegerField(default=0, help_text="Staged rows up to this id are merged.")
    inserted = models.BigIntegerField(default=0)
    updated = models.BigIntegerField(default=0)
    unchanged = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["pipeline", "number"], name="publication_number_once"),
            models.UniqueConstraint(
                fields=["pipeline"], condition=models.Q(state__in=["open", "aborting"]), name="publication_one_open"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pipeline} publication {self.number}"


class CatalogPart(models.Model):
    """One clean part on its way into the catalog: who may load it, and whether it is whole.

    Every loader takes the next generation; a batch is written only while its loader's generation is still the
    last one, so a worker that was frozen and wakes up adds no row.
    """

    publication = models.ForeignKey(CatalogPublication, on_delete=models.CASCADE, related_name="parts")
    name = models.CharField(max_length=40)
    generation = models.PositiveIntegerField(default=0)
    row_count = models.BigIntegerField(default=0)
    is_complete = models.BooleanField(default=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["publication", "name"], name="catalog_part_once")]

    def __str__(self) -> str:
        return f"part {self.name} of {self.publication}"


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
            models.Index(fields=["pipeline", "id"], name="catalog_by_id"),
            models.Index(fields=["pipeline", "event_time", "id"], name="catalog_by_time"),
            models.Index(
                fields=["pipeline", "id"], name="catalog_retired", condition=models.Q(retired_by__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"record {self.pk}"
