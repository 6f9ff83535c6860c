"""The shared rate limiter: exact over all worker processes, one call to Redis for each permission."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ingestion.ports.errors import RateLimited, Signal, SourceUnavailable
from ingestion.ratelimit.rule import Rate

_SCRIPT = (Path(__file__).parent / "bucket.lua").read_text(encoding="utf-8")
_PREFIX = "hg:limit:"
_SECOND_US = 1_000_000
# A worker that is told to stop notices within this time.
_NAP_S = 0.25
_CONNECT_TIMEOUT_S, _ANSWER_TIMEOUT_S = 2.0, 2.0


@dataclass(frozen=True, slots=True)
class _Reservation:
    """A place in the queue: `wait_s` from now, recognised later by the time it was granted for."""

    wait_s: float
    grant: str


class RedisLimiter:
    """Implements `ports.context.Limiter` on Redis or Valkey.

    `rates` names the limit of a key, asked at every call so that a change applies at once; None: no limit of ours, but
    a silence that the source asked for still holds. A permission is reserved, so that waiting costs no further call
    and all processes get their share. Where the wait would pass `max_wait_s` nothing is reserved. Without Redis
    nothing is granted: SourceUnavailable.
    """

    def __init__(
        self,
        redis_url: str,
        rates: Callable[[str], Rate | None],
        *,
        max_wait_s: float = 2.0,
        sleep: Callable[[float], None] = time.sleep,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._rates = rates
        self._max_wait_s = max_wait_s
        self._sleep = sleep
        self._beat = beat
        # Called by its hash; sent again by itself where the server has forgotten it (NOSCRIPT).
        self._script = _connected(redis_url).register_script(_SCRIPT)

    def acquire(self, key: str, *, tokens: int = 1) -> float:
        """Wait for permission and return the seconds waited.

        RateLimited where the wait would pass `max_wait_s`, the signal where the work is to stop meanwhile; nothing is
        used up then.
        """
        rate = self._rates(key)
        reservation = self._reserve(key, rate=rate, tokens=tokens)
        left_s = reservation.wait_s
        while left_s > 0:
            try:
                self._beat()
            except Signal:
                self._give_back(key, rate=rate, tokens=tokens, reservation=reservation)
                raise
            nap_s = min(left_s, _NAP_S)
            self._sleep(nap_s)
            left_s -= nap_s
        return reservation.wait_s

    def slow_down(self, key: str, *, seconds: float) -> None:
        """Grant nothing on `key` for that long, to any process; a silence already longer stays."""
        if seconds > 0:
            self._call(key, "slow_down", seconds * _SECOND_US)

    def _reserve(self, key: str, *, rate: Rate | None, tokens: int) -> _Reservation:
        interval_us, burst = (rate.interval_us, rate.burst) if rate is not None else (0.0, 0)
        answer = self._call(key, "acquire", interval_us, burst, tokens, self._max_wait_s * _SECOND_US)
        is_taken, wait_us, grant = cast(tuple[int, int, bytes | int], answer)
        wait_s = int(wait_us) / _SECOND_US
        if not is_taken:
            raise _waiting(key, wait_s)
        return _Reservation(wait_s=wait_s, grant=grant.decode() if isinstance(grant, bytes) else str(grant))

    def _give_back(self, key: str, *, rate: Rate | None, tokens: int, reservation: _Reservation) -> None:
        if rate is not None:
            self._call(key, "give_back", rate.interval_us, tokens, reservation.grant)

    def _call(self, key: str, command: str, *arguments: float | str) -> object:
        try:
            return self._script(keys=[f"{_PREFIX}{key}"], args=[command, *arguments])
        except redis.RedisError as error:
            # The kind alone: the message of a connection error may hold the password of the URL.
            raise SourceUnavailable("limiter.unavailable", detail=type(error).__name__, key=key) from error


@lru_cache(maxsize=16)
def _connected(redis_url: str) -> redis.Redis:
    """Return the process's one client of a server: limiters come and go with each piece of work."""
    return redis.Redis.from_url(
        redis_url,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        socket_timeout=_ANSWER_TIMEOUT_S,
        # Once, for a connection that died while it was idle. redis-py's own choice waits for seconds in between.
        retry=Retry(NoBackoff(), 1),
    )


def _waiting(key: str, wait_s: float) -> RateLimited:
    return RateLimited("limiter.waiting", key=key, retry_after_s=round(wait_s, 3))
