"""Prepare real services for a first start, or for a new version."""

from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

from ingest_project.stack.login import make_operator
from ingest_project.stack.names import OPERATOR
from ingestion.runs.start.pipelines import move_druid_destination


class Command(BaseCommand):
    """`manage.py prepare`: tables, the lake's bucket and the first login; a second time changes nothing."""

    help = "Brings the tables up to date, makes the lake's bucket and the operator's login where they are missing."

    def handle(self, **_: Any) -> None:
        """Prepare the installation."""
        call_command("migrate", interactive=False, verbosity=0)
        self.stdout.write("The tables are up to date.")
        if settings.HEADGATE_DRUID is not None:
            move_druid_destination(settings.HEADGATE_DRUID, secrets=settings.HEADGATE_DRUID_SECRETS)
        if settings.HEADGATE_LAKE_URL.startswith("s3://"):
            from ingest_project.stack.bucket import make_bucket  # noqa: PLC0415 - loads boto3

            made = make_bucket(settings.HEADGATE_LAKE_URL)
            self.stdout.write("The lake's bucket was made." if made else "The lake's bucket is there.")
        if password := make_operator():
            self.stdout.write(f"Login: user {OPERATOR}, password {password} (shown this once).")
