"""The one Django app."""

from django.apps import AppConfig


class IngestionConfig(AppConfig):
    """Headgate's tables, admin and commands."""

    name = "ingestion"
    default_auto_field = "django.db.models.BigAutoField"
