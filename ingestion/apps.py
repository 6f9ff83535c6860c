"""The one Django app."""

from importlib import import_module

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


class HeadgateAdminConfig(admin_apps.AdminConfig):
    """Django's admin with our site as the one that every model registers with."""

    default = False
    default_site = "ingestion.admin.site.HeadgateSite"

    def ready(self) -> None:
        """Register the models of every app, then ours."""
        super().ready()
        import_module("ingestion.admin.registration")
