"""Attempts within one request: for seconds, with jitter; what takes longer is the engine's to wait for."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from ingestion.ports.errors import Retryable

T = TypeVar("T")

LONGEST_SLEEP_S = 2.0
"""A wait above this is handed to the engine, which gives the worker slot to somebody else meanwhile."""
LONGEST_RETRY_AFTER_S = 3600.0
"""No source is believed that asks for more silence than this."""
DEFAULT_RETRY_AFTER_S = 30.0
"""The wait after a 429 that names none, once the short attempts are used up."""


class TransientError(Exception):
    """An attempt failed in a way that another one may not; `wait_s` is what the other side asked for."""

    def __init__(self, error: Retryable, *, wait_s: float | None = None) -> None:
        self.error = error
        self.wait_s = wait_s
        super().__init__(str(error))


def run_attempts(
    attempt: Callable[[], T],
    *,
    attempts: int,
    deadline_at: float,
    sleep: Callable[[float], None],
) -> T:
    """Return what `attempt` returns, called again after a TransientError, at most `attempts` times in all.

    Raises the error inside the last TransientError when attempts or time are used up; any other error ends it at once.
    `deadline_at` is a time of `time.monotonic()`: no wait begins that would pass it.
    """
    backoff = wait_random_exponential(multiplier=0.25, max=LONGEST_SLEEP_S)

    def wait(state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked_s = failure.wait_s if isinstance(failure, TransientError) else None
        return backoff(state) if asked_s is None else asked_s

    def is_over(state: RetryCallState) -> bool:
        is_late = time.monotonic() + state.upcoming_sleep >= deadline_at
        return is_late or stop_after_attempt(attempts)(state)

    retrying = Retrying(
        retry=retry_if_exception_type(TransientError), wait=wait, stop=is_over, sleep=sleep, reraise=True
    )
    try:
        return retrying(attempt)
    except TransientError as failure:
        raise failure.error from failure.__cause__


def parse_retry_after(value: str | None, *, date: str | None = None, now: datetime | None = None) -> float | None:
    """Return the seconds a Retry-After header asks for, at most an hour; None where it asks for nothing usable.

    Takes seconds or an HTTP date, which counts from the answer's own `date` so that a wrong clock does no harm.
    Zero, a past date, a negative number and anything unreadable are None: the caller's own backoff decides.
    Source: RFC 9110 section 10.2.3.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(min(int(text[:12]), LONGEST_RETRY_AFTER_S))
    else:
        until = _http_date(text)
        since = _http_date(date) or now or datetime.now(UTC)
        if until is None:
            return None
        seconds = min((until - since).total_seconds(), LONGEST_RETRY_AFTER_S)
    return seconds if seconds > 0 else None


def _http_date(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        parsed = parsedate_to_datetime(value)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
