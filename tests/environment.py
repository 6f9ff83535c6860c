"""Variables of a developer's environment that must not reach a test."""

import os
from collections.abc import MutableMapping

PREFIXES = ("HEADGATE_", "AWS_", "CELERY_", "FLOWER_", "DJANGO_", "DRUID_")
NAMES = frozenset({"DATABASE_URL", "BROKER_URL", "REDIS_URL", "ENV"})
PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
KEPT = frozenset({"DJANGO_SETTINGS_MODULE"})


def clean(variables: MutableMapping[str, str]) -> None:
    """Remove every variable that could change a result."""
    for name in list(variables):
        if name in KEPT:
            continue
        if name.startswith(PREFIXES) or name in NAMES or name.upper() in PROXIES:
            del variables[name]
    variables["HEADGATE_ENV_FILE"] = os.devnull
