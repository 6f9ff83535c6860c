"""The check of passwords, with limits that API and admin share: for each account and each address, slower the longer."""

import hashlib
import time
from contextlib import suppress
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.core.cache import cache
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.http import HttpRequest
from redis.exceptions import RedisError

LIMITS: dict[str, tuple[tuple[int, int], ...]] = {
    # One address can shut nobody out of their account elsewhere: it is stopped before it uses up the account's own.
    "account at an address": ((60, 10), (3600, 30), (86_400, 100)),
    "account": ((60, 20), (3600, 100), (86_400, 300)),
    "address": ((60, 30), (3600, 200), (86_400, 1000)),
}
"""Wrong passwords that are allowed: (seconds, attempts). The longer windows slow down whoever goes on."""

_OWN = LocMemCache("logins", {})


class TooManyAttempts(Exception):
    """Password not looked at: too many were wrong. It says nothing of the account, not even that there is one."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"Too many attempts. Try again in {wait_s} seconds.")
        self.wait_s = wait_s


class LimitedBackend(ModelBackend):
    """Django's own check, which takes as long for unknown users, behind the limits."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **given: Any
    ) -> Any:
        """Return the user, or None where name or password is wrong; TooManyAttempts once too many were."""
        if username is None or password is None:
            return None
        address = str(request.META.get("REMOTE_ADDR", "")) if request else ""
        counters = _counters(address, username)
        store: BaseCache = cache
        try:
            _admit(counters, store)
        except RedisError:
            # Whoever mends a broken Redis must be able to log in; each process counts for itself meanwhile.
            store = _OWN
            _admit(counters, store)
        user = super().authenticate(request, username=username, password=password, **given)
        if user is not None:
            with suppress(RedisError):
                _take_back(counters, store)
        return user


def _counters(address: str, username: str) -> list[tuple[str, int, int]]:
    account = username.casefold()
    whose = {"account at an address": f"{address}\n{account}", "account": account, "address": address}
    now = int(time.time())
    digests = {kind: hashlib.sha256(f"{kind}\n{who}".encode()).hexdigest() for kind, who in whose.items()}
    return [
        (f"login:{window_s}:{now // window_s}:{digests[kind]}", window_s, allowed)
        for kind, limits in LIMITS.items()
        for window_s, allowed in limits
    ]


def _admit(counters: list[tuple[str, int, int]], store: BaseCache) -> None:
    """Count an attempt before its hash, by the cache itself, so that guesses made at once are all counted."""
    for position, (name, window_s, allowed) in enumerate(counters):
        store.add(name, 0, timeout=2 * window_s)
        if store.incr(name) > allowed:
            # What is refused here must not use up what the account has elsewhere.
            _take_back(counters[: position + 1], store)
            raise TooManyAttempts(window_s - int(time.time()) % window_s)


def _take_back(counters: list[tuple[str, int, int]], store: BaseCache) -> None:
    for name, window_s, _ in counters:
        store.add(name, 1, timeout=2 * window_s)  # where the cache was emptied meanwhile
        store.decr(name)
