"""The columns that say who may work on a row, until when, and when it is due."""

from django.db import models


class Leased(models.Model):
    """A row that is worked on by one owner at a time; written only by `runs.work.leases` and `runs.work.states`.

    `fence` grows with every claim and every revocation; a write that names an older number changes nothing.
    `attempt` counts claims since the last progress. All times are the database's.
    """

    fence = models.BigIntegerField(default=0, editable=False)
    attempt = models.PositiveIntegerField(default=0, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    not_before = models.DateTimeField(null=True, blank=True, editable=False, help_text="Earliest time of the next try.")
    sent_at = models.DateTimeField(
        null=True, blank=True, editable=False, db_column="nudged_at", help_text="When a task message was last sent."
    )

    class Meta:
        abstract = True
