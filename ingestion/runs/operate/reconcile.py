"""The reconciler: compares what the tables say is to be done with what is being done, and repairs the difference.

It is the only way back for lost messages and dead workers. Every repair is a compare-and-set or a message that may
come twice, so that two reconcilers at once do no harm.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, Max, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from ingestion import dispatch
from ingestion.dispatch import TaskMessage
from ingestion.models import (
    ACTIVE_RUN_STATES,
    OPEN_DELIVERY_STATES,
    UNFINISHED_PARTITION_STATES,
    Delivery,
    DeliveryPart,
    Partition,
    PartitionState,
    Pipeline,
    Run,
    RunState,
)
from ingestion.ports.messages import sentence
from ingestion.runs.deliver import loading
from ingestion.runs.deliver.deliveries import LOADING_STATES, is_under_way, withdraw_deliveries
from ingestion.runs.ingest import completion
from ingestion.runs.record import events
from ingestion.runs.start import admission, dependencies
from ingestion.runs.work.leases import is_due, is_free
from ingestion.runs.work.states import move
from ingestion.runs.work.task_messages import (
    abort_message,
    complete_message,
    deliver_message,
    fetch_message,
    load_message,
    plan_message,
    publish_message,
    validate_message,
)

logger = logging.getLogger(__name__)

_AGEING_COPIES = 2
"""Partitions of one long-waiting run that are sent a step higher."""

_WOKEN_AT_ONCE = 20
_MESSAGE_OF_STAGE: dict[str, Callable[..., TaskMessage]] = {
    Partition.Stage.FETCH: fetch_message,
    Partition.Stage.VALIDATE: validate_message,
}
"""A stage's queue has its name."""


@dataclass(frozen=True, slots=True)
class Repair:
    """One difference that was found and repaired: what it was, and of which run."""

    kind: str
    run_id: int
    detail: str = ""


def reconcile() -> list[Repair]:
    """Repair every difference that can be seen now and return the repairs; an empty list means all is well."""
    repairs: list[Repair] = []
    for step in (
        _end_overdue_runs,
        _wake_pending_runs,
        _resume_run_stages,
        _send_unsent_partitions,
        _resend_partitions,
        _resend_delivery_parts,
        _resend_deliveries,
        _age_waiting_runs,
        _abort_deliveries,
        _start_dependents,
    ):
        repairs.extend(step())
    for repair in repairs:
        logger.info("Repaired %s of run %s %s", repair.kind, repair.run_id, repair.detail)
    return repairs


def _not_sent_lately() -> Q:
    again = Now() - timedelta(seconds=settings.HEADGATE_RESEND_AFTER_S)
    return Q(sent_at__isnull=True) | Q(sent_at__lt=again)


def _stale(rows: "QuerySet[Any]") -> "QuerySet[Any]":
    """Return those of the rows that are due, that nobody works on, and that no message was sent for lately.

    A row whose lease ran out is stale at once: its holder is dead or has lost it.
    """
    expired = Q(lease_until__lt=Now())
    return rows.filter(is_free(), is_due()).filter(expired | _not_sent_lately())


def _end_overdue_runs() -> Iterator[Repair]:
    overdue = Run.objects.filter(deadline_at__lt=Now(), state__in=ACTIVE_RUN_STATES - {RunState.PUBLISHING})
    for run in overdue.select_related("pipeline"):
        message = sentence("run.deadline", {"seconds": run.pipeline.run_timeout_s})
        with transaction.atomic():
            if not move(
                Run.objects.filter(pk=run.pk),
                expected=run.state,
                to=RunState.FAILED,
                fence=F("fence") + 1,
                code="run.deadline",
                message=message,
                finished_at=Now(),
                lease_until=None,
            ):
                continue
            Partition.objects.filter(run=run, lease_until__isnull=False).update(fence=F("fence") + 1)
            # What a destination does for a run that is over must end, or it would keep later runs out.
            deliveries = Delivery.objects.filter(run=run)
            withdraw_deliveries(deliveries, code="run.deadline", seconds=run.pipeline.run_timeout_s)
            events.record(run.pk, "run.failed", level="error", code="run.deadline", message=message)
        yield Repair("overdue", run.pk)


def _wake_pending_runs() -> Iterator[Repair]:
    waiting = admission.next_in_line(_stale(Run.objects.all()), limit=_WOKEN_AT_ONCE)
    rows = Run.objects.filter(pk__in=[run.pk for run in waiting]).order_by(F("priority").desc(), "pk")
    for run in _lost(rows, "plan", plan_message):
        if not _stamp(run):
            continue
        step = _steps(run.created_at)
        if dispatch.send(plan_message(run.pk, priority=run.priority, step=step)) and run.not_before is None:
            yield Repair("pending", run.pk)


def _resume_run_stages() -> Iterator[Repair]:
    for state, queue, make in (
        (RunState.PLANNING, "plan", plan_message),
        (RunState.COMPLETING, "plan", complete_message),
        (RunState.PUBLISHING, "load", publish_message),
    ):
        for run in _lost(_stale(Run.objects.filter(state=state)), queue, make):
            if _stamp(run):
                dispatch.send(make(run.pk, priority=run.priority))
                yield Repair(state, run.pk)
    unfinished = Partition.objects.filter(run=OuterRef("pk"), state__in=UNFINISHED_PARTITION_STATES)
    for run in Run.objects.filter(~Exists(unfinished), state=RunState.RUNNING)[: settings.HEADGATE_CHORD_SIZE]:
        # Whoever moves it on completes it: a last partition that is only just about to do so gets no message.
        if completion.begin_completion(run.pk):
            dispatch.send(complete_message(run.pk, priority=run.priority))
            yield Repair("fan_in", run.pk)
    for state in LOADING_STATES:
        for run in Run.objects.filter(state=state):
            before = run.state
            loading.go_on_if_loaded(run)
            run.refresh_from_db(fields=["state"])
            if run.state != before:
                yield Repair("loaded", run.pk)


def _send_unsent_partitions() -> Iterator[Repair]:
    unsent = Partition.objects.filter(run=OuterRef("pk"), state=PartitionState.PENDING, sent_at__isnull=True)
    under_way = Partition.objects.filter(
        run=OuterRef("pk"), state__in=UNFINISHED_PARTITION_STATES, sent_at__isnull=False
    )
    for run in Run.objects.filter(Exists(unsent), ~Exists(under_way), state=RunState.RUNNING):
        sent = completion.send_next_partitions(run.pk)
        if sent:
            yield Repair("unsent", run.pk, f"{sent} partitions")


def _resend_partitions() -> Iterator[Repair]:
    open_rows = Partition.objects.filter(
        run__state=RunState.RUNNING, state__in=UNFINISHED_PARTITION_STATES, sent_at__isnull=False
    )
    for stage, make in _MESSAGE_OF_STAGE.items():
        rows = _stale(open_rows.filter(stage=stage)).select_related("run").order_by("-run__priority", "pk")
        yield from _resend(rows, stage, make)


def _resend_delivery_parts() -> Iterator[Repair]:
    rows = _stale(
        DeliveryPart.objects.filter(
            is_under_way((RunState.DELIVERING,), through="delivery__"), state__in=UNFINISHED_PARTITION_STATES
        )
    )
    ordered = rows.select_related("delivery__run").order_by("-delivery__run__priority", "pk")
    yield from _resend(ordered, "deliver", deliver_message)


def _resend_deliveries() -> Iterator[Repair]:
    unfinished = DeliveryPart.objects.filter(delivery=OuterRef("pk"), state__in=UNFINISHED_PARTITION_STATES)
    rows = _stale(
        Delivery.objects.filter(is_under_way(LOADING_STATES), ~Exists(unfinished), state__in=OPEN_DELIVERY_STATES)
    )
    yield from _resend(rows.select_related("run").order_by("pk"), "load", load_message)


def _resend(rows: "QuerySet[Any]", queue: str, make: Callable[..., TaskMessage]) -> Iterator[Repair]:
    """Send again what is stale."""
    for row in _lost(rows, queue, make):
        run = row.delivery.run if isinstance(row, DeliveryPart) else row.run
        lease_lost = row.lease_until is not None
        if _stamp(row) and dispatch.send(make(row.pk, priority=run.priority)):
            detail = f"{row._meta.model_name} {row.pk}{' (its worker is gone)' if lease_lost else ''}"
            yield Repair("lease" if lease_lost else "message", run.pk, detail)


def _stamp(row: Any) -> bool:
    """Note that a message is sent for the row now; return whether nobody has taken the row up since it was read.

    A lease that ran out is taken away, so that the row is not stale again before its message was waited for.
    """
    rows = row._meta.default_manager.filter(is_free(), pk=row.pk, fence=row.fence, state=row.state)
    return bool(rows.update(sent_at=Now(), lease_until=None))


def _lost(rows: "QuerySet[Any]", queue: str, make: Callable[..., TaskMessage]) -> list[Any]:
    """Return those of the rows whose message is neither in the queue nor in the hands of a worker.

    Where the broker cannot tell, as many as the queue is short of: so a broken worker floods nothing.
    """
    count = rows.count()
    short = min(count - dispatch.queue_depth(queue), settings.HEADGATE_CHORD_SIZE) if count else 0
    if short <= 0:
        return []
    found = list(rows[: settings.HEADGATE_CHORD_SIZE])
    # Twice: a message that a worker is just taking is in neither place for an instant.
    for _ in range(2):
        under_way = dispatch.messages_under_way(queue)
        if under_way is None:
            return found[:short]
        found = [row for row in found if not _is_under_way(row, make(row.pk), under_way)]
    return found


def _is_under_way(row: Any, message: TaskMessage, under_way: dispatch.UnderWay) -> bool:
    sought = (message.name, row.pk)
    # What a worker took before it lost its lease will not be acted upon.
    return sought in under_way.waiting or (row.lease_until is None and sought in under_way.taken)


def _age_waiting_runs() -> Iterator[Repair]:
    """Send a long-waiting run's next partitions once more for every HEADGATE_AGEING_S it waited, a step higher."""
    leased = Partition.objects.filter(run=OuterRef("pk"), lease_until__gte=Now())
    waiting = Run.objects.filter(~Exists(leased), state=RunState.RUNNING).annotate(
        moved_at=Coalesce(Max("partitions__finished_at"), F("started_at"))
    )
    before = Now() - timedelta(seconds=settings.HEADGATE_AGEING_S)
    for run in waiting.filter(moved_at__lt=before):
        rows = Partition.objects.filter(is_free(), is_due(), run=run, state=PartitionState.PENDING)
        for row in rows.filter(sent_at__isnull=False).order_by("lane", "link")[:_AGEING_COPIES]:
            if not Partition.objects.filter(pk=row.pk, sent_at__lt=before).update(sent_at=Now()):
                continue
            message = _MESSAGE_OF_STAGE[row.stage](row.pk, priority=run.priority, step=_steps(run.moved_at))
            dispatch.send(message)
    return iter(())


def _steps(since: datetime) -> int:
    waited_s: float = (timezone.now() - since).total_seconds()
    return int(waited_s // settings.HEADGATE_AGEING_S)


def _abort_deliveries() -> Iterator[Repair]:
    # Compared with a value: SQLite takes no index for a column that is a condition by itself.
    waiting = Delivery.objects.filter(is_free(), is_due(), needs_abort__in=(True,)).filter(_not_sent_lately())
    for delivery in _lost(waiting, "load", abort_message):
        if _stamp(delivery):
            dispatch.send(abort_message(delivery.pk))
            yield Repair("abort", delivery.run_id)


def _start_dependents() -> Iterator[Repair]:
    """Start what a lost call left out; only the newest publication counts, older ones were looked after before."""
    published = Run.objects.filter(pipeline=OuterRef("pk"), published_at__gte=Now() - timedelta(days=7))
    newest = Pipeline.objects.filter(dependents__isnull=False).values(
        run=Subquery(published.order_by("-published_at").values("pk")[:1])
    )
    for run in Run.objects.filter(pk__in=newest).order_by("pk"):
        for dependent in dependencies.start_dependents(run):
            yield Repair("dependent", dependent.pk)
