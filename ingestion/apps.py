"""The one Django app."""

from django.apps import AppConfig
from django.conf import settings

from ingestion.toolkit import failpoints


class IngestionConfig(AppConfig):
    """Headgate's tables, admin and commands."""

    name = "ingestion"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Arm the failpoints that a test asked for; none in use."""
        failpoints.arm(settings.HEADGATE_FAILPOINTS)
