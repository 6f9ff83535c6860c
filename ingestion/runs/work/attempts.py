"""One policy for everything that can go wrong while work is done under a lease."""

import logging
import random
import uuid
from collections.abc import Callable
from datetime import timedelta
from enum import Enum

from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, connection
from django.db.models.functions import Now

from ingestion import dispatch
from ingestion.dispatch import TaskMessage, TimeLimitReached
from ingestion.ports.errors import (
    Cancelled,
    DeadlineReached,
    IngestError,
    LeaseLost,
    RateLimited,
    Retryable,
    SinkUnavailable,
)
from ingestion.runs.record import events
from ingestion.runs.work.leases import Lease, watched
from ingestion.telemetry.binding import bind
from ingestion.toolkit.redact import redact

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 3600.0
Fail = Callable[[Lease, str, str], None]
"""Ends the work for good: lease, code, sentence."""


class Outcome(Enum):
    """The end of one piece of work; `NOT_MINE` did nothing, because nothing was to be done or another does it."""

    DONE = "done"
    PUT_BACK = "put_back"
    FAILED = "failed"
    STOPPED = "stopped"
    NOT_MINE = "not_mine"


def attempt(lease: Lease, call: TaskMessage, work: Callable[[], None], *, back_to: str | None, fail: Fail) -> Outcome:
    """Do `work` under the lease, decide how it ends, and return that.

    A signal stops it without a trace; a retryable error puts the row back to `back_to` (None: to the state that the
    work has brought it to) with a time, an expected one ends in `fail`; anything else is a defect, tried once more and
    then failed with an incident id. `call` is the message that resumes the work.
    """
    try:
        if lease.attempt > settings.HEADGATE_MAX_ATTEMPTS:
            lost = IngestError("worker.lost", attempts=lease.attempt - 1, where=lease.pk)
            fail(lease, lost.code, str(lost))
            return Outcome.FAILED
        with bind(run=lease.run_id, task=call.name, **call.ids), watched(lease):
            work()
    except (DataError, IntegrityError) as error:
        # The database works, but not with these values; nor will it when the lease has run out.
        return _end(lease, call, error, back_to=back_to, fail=fail)
    except (DatabaseError, InterfaceError):
        # Nothing can be written now; the lease runs out and the reconciler starts the work again.
        logger.warning("The database failed during %s %s", call.name, call.ids, exc_info=True)
        connection.close()
        return Outcome.STOPPED
    except Exception as error:  # noqa: BLE001 (the task boundary: every end of the work is decided here)
        return _end(lease, call, error, back_to=back_to, fail=fail)
    return Outcome.DONE


def _end(lease: Lease, call: TaskMessage, error: Exception, *, back_to: str | None, fail: Fail) -> Outcome:
    try:
        return _decide(lease, call, error, back_to=back_to, fail=fail)
    except (LeaseLost, Cancelled):
        logger.info("%s %s is not ours to decide on", call.name, call.ids, exc_info=error)
        return Outcome.STOPPED
    except (DatabaseError, InterfaceError):
        logger.info("%s %s could not be put back; its lease runs out", call.name, call.ids)
        connection.close()
        return Outcome.STOPPED


def _decide(lease: Lease, call: TaskMessage, error: Exception, *, back_to: str | None, fail: Fail) -> Outcome:
    """Return what becomes of the work after `error`, written."""
    if isinstance(error, LeaseLost) or lease.was_revoked:
        logger.info("%s %s was stopped: %s", call.name, call.ids, type(error).__name__)
        return Outcome.STOPPED
    lease.reload()
    terms = _terms_of_retry(lease, call, error)
    if terms is not None:
        wait_s, counts = terms
        return _put_back(lease, call, back_to=back_to, wait_s=wait_s, counts=counts)
    if isinstance(error, IngestError):
        fail(lease, error.code, redact(str(error)))
        return Outcome.FAILED
    return _retry_or_fail_defect(lease, call, error, back_to=back_to, fail=fail)


def _terms_of_retry(lease: Lease, call: TaskMessage, error: Exception) -> tuple[float, bool] | None:
    """Return the seconds to wait and whether the attempt counts, or None where the work is not tried again."""
    # A plugin that was told to stop may say Cancelled when it was the worker slot that ended.
    if isinstance(error, Cancelled | DeadlineReached):
        return 0.0, False
    # A destination that takes another run first has not failed: the run's deadline ends that wait.
    if isinstance(error, RateLimited) or (isinstance(error, SinkUnavailable) and error.code == "sink.busy"):
        return error.retry_after_s or 1.0, False
    if isinstance(error, TimeLimitReached):
        return 0.0, True
    if isinstance(error, Retryable) and lease.attempt < settings.HEADGATE_MAX_ATTEMPTS:
        events.record(
            lease.run_id,
            "attempt.failed",
            level="warning",
            message=str(error),
            code=error.code,
            attempt=lease.attempt,
            **call.ids,
        )
        return error.retry_after_s or next_wait_s(lease.attempt), True
    return None


def _retry_or_fail_defect(
    lease: Lease, call: TaskMessage, error: Exception, *, back_to: str | None, fail: Fail
) -> Outcome:
    incident = uuid.uuid4().hex[:12]
    logger.error("Incident %s in %s %s", incident, call.name, call.ids, exc_info=error)
    if lease.attempt <= 1:
        return _put_back(lease, call, back_to=back_to, wait_s=1.0)
    defect = IngestError("worker.errored", incident=incident, error=type(error).__name__)
    fail(lease, defect.code, str(defect))
    return Outcome.FAILED


def _put_back(lease: Lease, call: TaskMessage, *, back_to: str | None, wait_s: float, counts: bool = True) -> Outcome:
    wait_s = min(wait_s, LONGEST_WAIT_S)
    due_at = Now() + timedelta(seconds=wait_s)
    # A longer wait than a message may have is a column; the reconciler sends it when it is over.
    has_message = wait_s <= dispatch.LONGEST_COUNTDOWN_S
    lease.release(
        to=back_to,
        not_before=due_at,
        # The message is on its way until it is due.
        sent_at=due_at if has_message else Now(),
        attempt=lease.attempt if counts else lease.attempt - 1,
    )
    if has_message:
        dispatch.send(call, countdown_s=wait_s or None)
    return Outcome.PUT_BACK


def next_wait_s(attempt: int) -> float:
    """Return the seconds before attempt + 1: 2, 4, 8 ... up to five minutes, spread by a quarter."""
    return min(300.0, 2.0**attempt) * random.uniform(0.75, 1.25)  # noqa: S311 (spreading load, not a secret)
