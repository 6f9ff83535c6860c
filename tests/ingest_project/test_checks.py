"""System checks: each wrong combination has its id."""

from typing import Any

import pytest
from django.core.checks import CheckMessage
from pytest_django import Settings

from ingest_project import checks
from ingest_project.management.commands.up import Command


def ids(messages: list[CheckMessage]) -> list[str | None]:
    """Return the ids of findings."""
    return [message.id for message in messages]


def test_the_settings_as_delivered_have_no_findings() -> None:
    assert ids(checks.check_delivery()) == []
    assert ids(checks.check_doors()) == []


@pytest.mark.parametrize(
    ("name", "value", "identity"),
    [
        ("CELERY_VISIBILITY_TIMEOUT", 3600, "ingestion.E001"),
        ("CELERY_BROKER_TRANSPORT_OPTIONS", {"visibility_timeout": 600}, "ingestion.E001"),
        ("CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS", {}, "ingestion.E001"),
        ("CELERY_TASK_ACKS_LATE", False, "ingestion.E002"),
        ("CELERY_TASK_REJECT_ON_WORKER_LOST", True, "ingestion.E003"),
        ("CELERY_RESULT_BACKEND", None, "ingestion.E004"),
        ("CELERY_RESULT_BACKEND", "django-db", "ingestion.E005"),
        ("CELERY_ACCEPT_CONTENT", ["json", "pickle"], "ingestion.E006"),
        ("CELERY_WORKER_PREFETCH_MULTIPLIER", 4, "ingestion.E007"),
        ("CELERY_TASK_CREATE_MISSING_QUEUES", True, "ingestion.E008"),
    ],
)
def test_what_would_lose_or_double_work_is_an_error(settings: Settings, name: str, value: Any, identity: str) -> None:
    setattr(settings, name, value)

    assert ids(checks.check_delivery()) == [identity]


@pytest.mark.parametrize(
    ("changes", "identity"),
    [
        ({"DEBUG": True, "ALLOWED_HOSTS": ["localhost", "headgate.example.org"]}, "ingestion.E020"),
        ({"SECRET_KEY": "short"}, "ingestion.E021"),
        ({"SECRET_KEY": "django-insecure-" + "x" * 50}, "ingestion.E021"),
        ({"HEADGATE_SECRET_KEYS": []}, "ingestion.E022"),
        ({"HEADGATE_SECRET_KEYS": ["no key"]}, "ingestion.E023"),
    ],
)
def test_an_open_door_is_an_error(settings: Settings, changes: dict[str, Any], identity: str) -> None:
    for name, value in changes.items():
        setattr(settings, name, value)

    assert ids(checks.check_doors()) == [identity]


def test_debug_pages_are_allowed_on_loopback(settings: Settings) -> None:
    settings.DEBUG = True
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

    assert ids(checks.check_doors()) == []


def test_embedded_parts_are_refused_in_production(settings: Settings) -> None:
    settings.HEADGATE_ENV = "production"
    settings.HEADGATE_EMBEDDED = ["database", "lake"]

    findings = checks.check_production()

    assert ids(findings) == ["ingestion.E030"]
    assert "database, lake" in findings[0].msg


def test_embedded_parts_are_accepted_where_the_administrator_says_so(settings: Settings) -> None:
    settings.HEADGATE_ENV = "production"
    settings.HEADGATE_EMBEDDED = ["database"]
    settings.HEADGATE_ALLOW_EMBEDDED = True

    assert ids(checks.check_production()) == []


def test_failpoints_in_use_are_warned_of(settings: Settings) -> None:
    settings.HEADGATE_FAILPOINTS = "fetch.after_page=kill"

    assert ids(checks.check_production()) == ["ingestion.W001"]


def test_an_option_under_its_older_name_answers_and_says_the_newer_one(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Command().create_parser("manage.py", "up")

    assert parser.parse_args(["--parts", "broker"]).services == "broker"
    assert "--parts is now --services" in capsys.readouterr().err
    assert (parser.parse_args([]).services, capsys.readouterr().err) == ("", "")
