"""System checks: combinations of settings that lose or double work, or open a door, stop the start.

Ids: ingestion.E001-E019 the engine, ingestion.E020-E039 safety, ingestion.W001-W019 advice.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.fernet import Fernet
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's own name

from ingest_project.env import RENAMED, renamed_variables
from ingest_project.queues import QUEUES, TASK_QUEUES, visibility_timeout_s


@register()
def check_delivery(**_: Any) -> list[CheckMessage]:
    """Return what would make the broker lose messages or hand them out while they are worked on."""
    return [*_visibility_timeouts(), *_late_acks(), *_queues()]


def _visibility_timeouts() -> Iterable[CheckMessage]:
    if not settings.CELERY_BROKER_URL.startswith("redis"):
        return
    needed_s = visibility_timeout_s(settings.HEADGATE_QUEUES)
    places: Mapping[str, Any] = {
        "CELERY_BROKER_TRANSPORT_OPTIONS": settings.CELERY_BROKER_TRANSPORT_OPTIONS.get("visibility_timeout"),
        "CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS": settings.CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS.get(
            "visibility_timeout"
        ),
        "CELERY_VISIBILITY_TIMEOUT": settings.CELERY_VISIBILITY_TIMEOUT,
    }
    for place, value in places.items():
        if value is None or value < needed_s:
            yield Error(
                f"The visibility timeout in {place} is {value} s, shorter than {needed_s} s: "
                "a long task would be started a second time while it runs.",
                hint="It must be at least twice the longest hard limit plus the longest countdown (queues.py).",
                id="ingestion.E001",
            )


def _late_acks() -> Iterable[CheckMessage]:
    if not settings.CELERY_TASK_ACKS_LATE:
        yield Error(
            "Messages are acknowledged before their work is done.",
            hint="Set CELERY_TASK_ACKS_LATE = True.",
            id="ingestion.E002",
        )
    if settings.CELERY_TASK_REJECT_ON_WORKER_LOST:
        yield Error(
            "A message whose worker died would come back before its lease has run out, for ever.",
            hint="Set CELERY_TASK_REJECT_ON_WORKER_LOST = False; the reconciler brings the work back.",
            id="ingestion.E003",
        )
    if not settings.CELERY_RESULT_BACKEND:
        yield Error(
            "No result backend is configured, so no chord would ever end.",
            hint="Set REDIS_URL; results cannot lie in RabbitMQ or in the database.",
            id="ingestion.E004",
        )
    elif not str(settings.CELERY_RESULT_BACKEND).startswith(("redis", "unix")):
        yield Error(
            "Results must lie in Redis: other backends lose the end of a chord when a result is reported twice.",
            hint="Set REDIS_URL.",
            id="ingestion.E005",
        )
    if settings.CELERY_ACCEPT_CONTENT != ["json"] or settings.CELERY_TASK_SERIALIZER != "json":
        yield Error("Messages may hold other things than JSON.", hint="Accept JSON only.", id="ingestion.E006")
    if settings.CELERY_WORKER_PREFETCH_MULTIPLIER != 1:
        yield Error(
            "A worker takes more messages than it works on, so they wait behind it.",
            hint="Set CELERY_WORKER_PREFETCH_MULTIPLIER = 1.",
            id="ingestion.E007",
        )


def _queues() -> Iterable[CheckMessage]:
    if settings.CELERY_TASK_CREATE_MISSING_QUEUES:
        yield Error(
            "A misspelt queue name would create a queue that nobody reads.",
            hint="Set CELERY_TASK_CREATE_MISSING_QUEUES = False.",
            id="ingestion.E008",
        )
    for task, queue in TASK_QUEUES.items():
        if queue not in QUEUES:
            yield Error(f"Task {task} is routed to the unknown queue {queue!r}.", id="ingestion.E009")


@register(Tags.security)
def check_doors(**_: Any) -> list[CheckMessage]:
    """Return what would let strangers in or leave stored secrets unreadable."""
    findings: list[CheckMessage] = []
    if settings.DEBUG and (open_hosts := [host for host in settings.ALLOWED_HOSTS if not _is_loopback(host)]):
        findings.append(
            Error(
                f"Debug pages are on while others may reach the server as {', '.join(open_hosts)}.",
                hint="Unset HEADGATE_DEBUG, or name loopback addresses only in HEADGATE_ALLOWED_HOSTS.",
                id="ingestion.E020",
            )
        )
    if len(settings.SECRET_KEY) < 32 or settings.SECRET_KEY.startswith(("django-insecure", "change")):
        findings.append(
            Error(
                "HEADGATE_SECRET_KEY is a default or too short.",
                hint="Unset it, and one is made in <data>/secrets, or set 50 random characters.",
                id="ingestion.E021",
            )
        )
    findings.extend(_secret_keys(settings.HEADGATE_SECRET_KEYS))
    return findings


def _secret_keys(keys: Iterable[str]) -> Iterable[CheckMessage]:
    keys = list(keys)
    if not keys:
        yield Error(
            "HEADGATE_SECRET_KEYS holds no key, so no stored secret can be read.",
            hint="Unset it, and a key is made in <data>/secrets.",
            id="ingestion.E022",
        )
    for number, key in enumerate(keys, start=1):
        try:
            Fernet(key)
        except ValueError:
            yield Error(
                f"Key {number} of HEADGATE_SECRET_KEYS is no Fernet key.",
                hint="A Fernet key is 32 random bytes in URL-safe base64.",
                id="ingestion.E023",
            )


@register(Tags.security, deploy=True)
def check_production(**_: Any) -> list[CheckMessage]:
    """Return the parts that suit one machine only, where others are served."""
    findings: list[CheckMessage] = []
    embedded = list(settings.HEADGATE_EMBEDDED)
    if settings.HEADGATE_ENV == "production" and embedded and not settings.HEADGATE_ALLOW_EMBEDDED:
        findings.append(
            Error(
                f"These parts are embedded in production: {', '.join(embedded)}.",
                hint="Set DATABASE_URL, BROKER_URL and HEADGATE_LAKE_URL, DRUID_URL where Druid is among them, "
                "or HEADGATE_ALLOW_EMBEDDED=1 on one machine.",
                id="ingestion.E030",
            )
        )
    if settings.HEADGATE_FAILPOINTS or settings.HEADGATE_SWITCH_OFF:
        findings.append(
            Warning(
                "Failpoints are set or safety nets are switched off.",
                hint="Unset HEADGATE_FAILPOINTS and HEADGATE_SWITCH_OFF.",
                id="ingestion.W001",
            )
        )
    return findings


@register()
def check_names(**_: Any) -> list[CheckMessage]:
    """Return the variables that are set under an older name."""
    return [
        Warning(f"{old} is now {RENAMED[old]}; the old name is read until the next release.", id="ingestion.W002")
        for old in renamed_variables()
    ]


def _is_loopback(host: str) -> bool:
    name = host.strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
