"""The composition as a Django app: it brings the system checks and the commands that run a stack."""

from django.apps import AppConfig


class IngestProjectConfig(AppConfig):
    """Checks and commands of the installation."""

    name = "ingest_project"

    def ready(self) -> None:
        """Register the system checks."""
        from ingest_project import checks  # noqa: F401, PLC0415 - importing registers them
