"""The one Django app."""

from django.apps import AppConfig
from django.conf import settings
from django.contrib.admin import apps as admin_apps

from ingestion.toolkit import failpoints


class IngestionConfig(AppConfig):
    """Headgate's tables, admin and commands."""

    name = "ingestion"
    default = True
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Arm the failpoints that a test asked for; none in use."""
        failpoints.arm(settings.HEADGATE_FAILPOINTS)


class HeadgateAdminConfig(admin_apps.SimpleAdminConfig):
    """Django's admin with our site as the one that every model registers with.

    Its pages are registered by the addresses (`ingest_project.urls`): a worker, beat and the command line have none, and
    would need 0.5 s of CPU and 20 MB for them.
    """

    default = False
    default_site = "ingestion.admin.site.HeadgateSite"
