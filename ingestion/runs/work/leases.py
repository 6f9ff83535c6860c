"""Leases, the right to work on a row: claims, fenced writes, and the watcher that keeps a lease alive while work goes on."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from ingestion.models import Delivery, DeliveryPart, Partition, PartitionState, Run, RunState
from ingestion.models.leased import Leased
from ingestion.ports.errors import Cancelled, DeadlineReached, LeaseLost, Signal
from ingestion.runs.work.states import check_move
from ingestion.toolkit.failpoints import is_switched

logger = logging.getLogger(__name__)


def is_free() -> Q:
    """Return the condition that nobody holds a live lease on the row."""
    return Q(lease_until__isnull=True) | Q(lease_until__lt=Now())


def is_due() -> Q:
    """Return the condition that the row does not wait for a time that is still to come."""
    return Q(not_before__isnull=True) | Q(not_before__lte=Now())


@dataclass(eq=False)
class Lease:
    """The right to work on one row; every write through it fails once somebody else has claimed the row."""

    model: type[Leased]
    pk: int
    run_id: int
    fence: int
    attempt: int
    state: str
    slot_ends: float
    """time.monotonic() after which the worker slot is due back."""
    _progress_at: float = field(default_factory=time.monotonic)
    _stop: Signal | None = None
    _on_stop: list[Callable[[Signal], None]] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def stalled_s(self) -> float:
        """Return the seconds since the last progress."""
        return time.monotonic() - self._progress_at

    def beat(self, *, is_resumed: bool = True) -> None:
        """Tell the watcher that work goes on, or raise the signal that says why it has to stop.

        Work that is not resumed where it stopped does not hear of the end of its worker slot: begun anew each time, it
        would never be done.
        """
        if self._stop is not None:
            raise self._stop
        if is_resumed and time.monotonic() >= self.slot_ends:
            raise DeadlineReached
        self._progress_at = time.monotonic()

    @contextmanager
    def on_stop(self, callback: Callable[[Signal], None]) -> Iterator[None]:
        """Have `callback` called, from the watcher's thread, if the block must be broken off; never after the block."""
        with self._lock:
            self._on_stop.append(callback)
            stopped = self._stop
        try:
            if stopped is not None:
                callback(stopped)
            yield
        finally:
            with self._lock:
                self._on_stop.remove(callback)

    def stop(self, signal: Signal) -> None:
        """Make the work stop at its next beat, and break off the calls in flight."""
        with self._lock:
            if self._stop is not None:
                return
            self._stop = signal
            for callback in self._on_stop:
                callback(signal)

    @property
    def was_revoked(self) -> bool:
        """Return whether somebody else decides about the row now."""
        return self._stop is not None

    def change(self, *, to: str | None = None, **changes: Any) -> None:
        """Write `changes` (and the state `to`) if the row is still ours; else raise LeaseLost and write nothing."""
        target = self.state if to is None else to
        check_move(self.model, expected=self.state, to=target)
        rows = _rows(self.model).filter(pk=self.pk)
        if not is_switched("unfenced"):
            rows = rows.filter(fence=self.fence, state=self.state)
        if rows.update(state=target, **changes) != 1:
            raise self._reason()
        self.state = target
        self._progress_at = time.monotonic()

    def reload(self) -> None:
        """Take the row's state and attempts from the table, after work that broke and may have rolled back.

        LeaseLost if it is not held. After progress this claim counts as the first one since.
        """
        rows = _rows(self.model).filter(pk=self.pk, fence=self.fence, lease_until__isnull=False)
        row = rows.values_list("state", "attempt").first()
        if row is None:
            raise self._reason()
        self.state, self.attempt = row[0], max(row[1], 1)

    def release(self, *, to: str | None = None, **changes: Any) -> None:
        """Write like `change` and give the row back, so that the next claim need not wait for the lease to end."""
        self.change(to=to, lease_until=None, **changes)

    def _reason(self) -> Signal:
        cancelled = Run.objects.filter(pk=self.run_id, state=RunState.CANCELLED).exists()
        return Cancelled() if cancelled else LeaseLost()


def claim(
    model: type[Leased],
    pk: int,
    *,
    expected: Collection[str],
    to: str | None = None,
    only_if: Any = None,
    **conditions: Any,
) -> Lease | None:
    """Return a lease on the row if it is in `expected`, due and free, moved to `to`; else None.

    `conditions` are columns of the row and hold in the write too; `only_if` may look at other tables and is
    checked once, before. The attempt is counted before the work starts, so that work that kills its worker comes to an end.
    """
    row = (
        _rows(model)
        .filter(only_if or Q(), is_free(), is_due(), pk=pk, state__in=tuple(expected), **conditions)
        .values("fence", "attempt", "state", *(() if model is Run else (_RUN_ID[model],)))
        .first()
    )
    if row is None:
        return None
    target = row["state"] if to is None else to
    check_move(model, expected=row["state"], to=target)
    claimed = (
        _rows(model)
        .filter(is_free(), is_due(), pk=pk, fence=row["fence"], state=row["state"], **conditions)
        .update(
            state=target,
            fence=F("fence") + 1,
            attempt=F("attempt") + 1,
            lease_until=Now() + timedelta(seconds=settings.HEADGATE_LEASE_S),
        )
    )
    if claimed != 1:
        return None
    return Lease(
        model=model,
        pk=pk,
        run_id=pk if model is Run else row[_RUN_ID[model]],
        fence=row["fence"] + 1,
        attempt=row["attempt"] + 1,
        state=target,
        slot_ends=time.monotonic() + settings.HEADGATE_SLOT_S,
    )


def claim_partition(partition_id: int, *, stage: str) -> Lease | None:
    """Return a lease on the partition if that stage of it is to be done and its run is running; else None."""
    return claim(
        Partition,
        partition_id,
        expected=(PartitionState.PENDING, PartitionState.LEASED),
        to=PartitionState.LEASED,
        stage=stage,
        only_if=Q(run__state=RunState.RUNNING),
    )


def _rows(model: type[Leased]) -> "QuerySet[Any]":
    """Return the rows of a leased model; each of them has a `state`, which the abstract model cannot declare."""
    return model._default_manager.all()


_RUN_ID: dict[type[Leased], str] = {
    Partition: "run_id",
    Delivery: "run_id",
    DeliveryPart: "delivery__run_id",
}


@contextmanager
def watched(lease: Lease) -> Iterator[Lease]:
    """Keep the lease alive while the block works and shows progress; stop the block when the row was taken away."""
    _watcher.add(lease)
    try:
        yield lease
    finally:
        _watcher.remove(lease)


class Watcher:
    """One thread a process; it looks at every lease held here once in HEADGATE_WATCH_S."""

    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        """Start to look after the lease; the thread is started at first use, so after the fork."""
        with self._lock:
            self._leases.add(lease)
            self._wake.set()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="lease-watcher", daemon=True)
                self._thread.start()

    def remove(self, lease: Lease) -> None:
        """Stop to look after the lease."""
        with self._lock:
            self._leases.discard(lease)
            if not self._leases:
                self._wake.clear()

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            if not self._wake.is_set():
                # Nothing to look after: an idle process keeps no connection for it.
                connection.close()
            self._wake.wait()
            pause.wait(settings.HEADGATE_WATCH_S)
            with self._lock:
                leases = tuple(self._leases)
            try:
                for lease in leases:
                    renew_or_stop(lease)
            except (DatabaseError, InterfaceError):
                # The database is restarting or the connection is gone: a new one is made next time, and
                # a lease that cannot be renewed meanwhile expires, which is what it is for.
                logger.warning("The watcher could not look after its leases", exc_info=True)
                connection.close()


def renew_or_stop(lease: Lease) -> None:
    """Renew the lease if its work goes on, or stop the work if the row is no longer ours.

    A row that its owner has just given back keeps its fence until the next claim, but has no lease to renew.
    """
    rows = _rows(lease.model).filter(pk=lease.pk, fence=lease.fence, lease_until__isnull=False)
    if lease.stalled_s > settings.HEADGATE_STALL_S:
        if not rows.exists():
            lease.stop(lease._reason())
        return
    renewed = rows.update(lease_until=Now() + timedelta(seconds=settings.HEADGATE_LEASE_S))
    if renewed != 1:
        lease.stop(lease._reason())


_watcher = Watcher()
