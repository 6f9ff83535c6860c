"""One delivery on its way through Druid: planned, submitted, published, available; each step can be repeated.

Exactly once. The task's id and the hash of what it does are stored before the task is handed over, and Druid takes an
id once; so a submission whose answer was lost is resolved by asking for that id. A new attempt, with a new id, is made
only after the earlier one is over for good, its id used up where Druid knows none, and after the Broker, with
everything loaded that was published, shows no row of the run: a task can fail after it has published.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from ingestion.ports.errors import SinkRejected, SinkUnavailable, StoreCorrupt, count_mismatch
from ingestion.ports.publication import DeliveryState, Receipt
from ingestion.ports.sink import CommitStep
from ingestion.toolkit.failpoints import failpoint
from sinks.druid.datasource_state import UnclearError, count_run, is_dropped, shows_rows, unloaded_of
from sinks.druid.planning import Planner
from sinks.druid.reconciliation import null_mismatch, shortage_of
from sinks.druid.responses import TaskStatus
from sinks.druid.sampling import check_discovery, check_visibility
from sinks.druid.spec import marker_of, native_spec
from sinks.druid.state import LoadState, Step, move
from sinks.druid.tasks import use_up, wait_for_slot

FIRST_POLL_S = 1.0
LONGEST_POLL_S = 30.0
FIRST_POLL_OF_READERS_S = 0.5
"""Published segments are mostly served within a second or two."""
_SHARE = 0.03
"""Polls come after this share of the time that has passed: the longer a task takes, the less a second counts."""
UNKNOWN_GRACE_S = 60.0
"""A task that Druid does not know this long after it was handed over is lost."""
LAG_S = 90.0
"""The Broker may learn of new columns, and of what has gone, a minute late."""
POLLS_OF_FAILURE = 3
"""Polls of a failed task's rows before it is believed that it has published none."""
UNREACHABLE_POLL_S = 5.0
_BEFORE_SUBMIT = (DeliveryState.PLANNED, DeliveryState.STAGED)
_HOPELESS = (
    *("parse exceptions", "ParseException", "Unparseable", "bad string input", "Wrong number of splits"),
    "Shutdown request from user",
)
"""Words of Druid's where the next attempt would fail in the same way, or was just stopped by a person."""


class Loading:
    """The steps of one delivery."""

    def __init__(self, planner: Planner, state: LoadState) -> None:
        """Take the planner of the delivery, and how far it is."""
        self.planner, self.state = planner, state
        self.config, self.client, self.staging = planner.config, planner.client, planner.staging
        self.manifest, self.delivery, self.ctx = planner.manifest, planner.delivery, planner.ctx

    def advance(self) -> CommitStep:
        """Take the delivery one step further from where its notes say it is."""
        state = self.state
        if state.load is None:
            return self._plan(attempt=1)
        if self._is_retried and (state.submitted_at or state.failed_at):
            return self._move(DeliveryState.SUBMITTED, state.begun_again(self.ctx.clock()))
        if state.step is Step.PLANNED:
            return self._submit()
        follow = {Step.SUBMITTED: self._poll_task, Step.FAILED: self._resolve_failure}.get(state.step, self._published)
        try:
            return follow()
        except SinkUnavailable as error:
            # The task goes on without us, and is found again by its id; only our patience has an end.
            waited_s = self._since(state.submitted_at or state.published_at)
            if waited_s > self.config.patience_s:
                raise
            self.ctx.log("druid.unreachable", message=str(error), task=state.load.task)
            return self._later(self._state_now(), max(waited_s, UNREACHABLE_POLL_S / _SHARE))

    @property
    def _is_retried(self) -> bool:
        """Return whether a person has asked for it again: its notes are further than its state."""
        return self.delivery.state in _BEFORE_SUBMIT

    @property
    def _may_repair(self) -> bool:
        """Return whether what is short may be brought anew: a person has asked for it since this task was made."""
        load = self.state.planned
        return load.attempt == self.state.attempts_before or (self._is_retried and not load.task)

    # planned

    def _plan(self, *, attempt: int) -> CommitStep:
        """Decide what is to be loaded, and return what must be stored before it is handed over."""
        waited_s = self._since(self.state.unclear_at)
        try:
            load = self.planner.plan(attempt=attempt, is_late=waited_s > LAG_S)
        except UnclearError as reason:
            return self._wait_for_clarity(str(reason), waited_s=waited_s)
        failpoint("druid.planned")
        is_needless = not load.task
        after = self.state.with_load(load, published_at=self.ctx.clock() if is_needless else None)
        is_said = is_needless and not self.planner.is_emptying
        return self._move(
            self._state_now(), after, note="Nothing has changed, so nothing is loaded." if is_said else ""
        )

    def _plan_next(self) -> CommitStep:
        return self._plan(attempt=self.state.planned.attempt + 1)

    def _wait_for_clarity(self, reason: str, *, waited_s: float) -> CommitStep:
        if waited_s > self.config.load_timeout_s:
            detail = f"after {self.config.load_timeout_s} s it still cannot be told what the datasource holds: {reason}"
            raise SinkUnavailable("sink.unavailable", destination=self.delivery.destination, detail=detail)
        step = self._later(self._state_now(), waited_s)
        if self.state.unclear_at is not None:
            return step
        note = f"It cannot be told yet what the datasource holds: {reason}. It is polled again by itself."
        after = replace(self.state, unclear_at=self.ctx.clock())
        return self._move(step.state, after, next_poll_s=step.next_poll_s or 0, note=note)

    # submitted

    def _submit(self) -> CommitStep:
        load = self.state.planned
        found = self.client.task(load.task)
        if found is not None:
            # Handed over before, and the answer was lost on the way.
            return self._exists(found)
        if load.settings != self.planner.settings_hash():
            return self._plan_instead()
        try:
            source = self.planner.source(load)
        except StoreCorrupt:
            if load.objects is None:
                raise
            # The rows of the merge are gone (removed by a cancel): what belongs there is decided anew.
            return self._plan_instead()
        plan = load.plan(source)
        wait_for_slot(self.config, self.client, destination=self.delivery.destination)
        check_visibility(plan, self.client)
        if plan.discovers:
            check_discovery(plan, self.client, destination=self.delivery.destination)
        self.ctx.beat()
        failpoint("druid.before_post")
        try:
            submission = self.client.submit(native_spec(plan))
        except (SinkUnavailable, SinkRejected):
            # Unclear whether it was taken.
            found = self.client.task(load.task)
            if found is None:
                raise
            return self._exists(found)
        failpoint("druid.after_post")
        return self._exists(self.client.task(load.task)) if submission.exists else self._handed_over()

    def _plan_instead(self) -> CommitStep:
        """Plan the next attempt in the place of one that was never handed over, and now never can be."""
        if not use_up(self.client, self.state.planned.task):
            return self._later(self._state_now(), 0)
        return self._plan_next()

    def _exists(self, task: Mapping[str, Any] | None) -> CommitStep:
        """Go on with the task of our id that is there already, if it is the one we would hand over."""
        load = self.state.planned
        if task is None:
            return self._later(self._state_now(), 0)
        if marker_of(task) == load.hash:
            return self._handed_over()
        # An id that another installation has used up, or an earlier life of this one; or we did, to make sure. Nothing
        # is begun before it is over.
        now = self.ctx.clock()
        message = "its id belonged to another task"
        after = replace(
            self.state, submitted_at=now, failed_at=now, failed_polls=0, is_foreign=True, task_message=message
        )
        note = f"The id {load.task} belongs to another task; the next one is used once that is over."
        return self._move(DeliveryState.SUBMITTED, after, next_poll_s=FIRST_POLL_S, note=note)

    def _handed_over(self) -> CommitStep:
        load, found = self.state.planned, self.staging.input
        after = replace(self.state, submitted_at=self.ctx.clock(), input_kind=found.kind.value)
        note = f"Druid has task {load.task}, which reads {load.handed} rows. {found.reason}"
        return self._move(DeliveryState.SUBMITTED, after, next_poll_s=FIRST_POLL_S, note=note)

    def _poll_task(self) -> CommitStep:
        status = self._status()
        waited_s = self._since(self.state.submitted_at)
        if status is None:
            if waited_s < UNKNOWN_GRACE_S:
                return self._later(DeliveryState.SUBMITTED, waited_s)
            return self._failed("Druid does not know the task any more", is_lost=True)
        if status.code == "SUCCESS":
            return self._succeeded(status)
        if status.code == "FAILED":
            return self._failed(status.message)
        if waited_s > self.config.task_timeout_s:
            self.client.shutdown(self.state.planned.task)
            return self._failed(f"it was not done after {self.config.task_timeout_s} s and was stopped", is_final=True)
        return self._later(DeliveryState.SUBMITTED, waited_s)

    def _status(self) -> TaskStatus | None:
        """Return how far the task is: as just polled together with others, asked again where something hangs on it."""
        task_id, seen = self.state.planned.task, self.delivery.polled
        if seen is not None and seen.get("unreachable"):
            destination = self.delivery.destination
            raise SinkUnavailable("sink.unavailable", destination=destination, detail=seen["unreachable"])
        # What was seen may be of an earlier task of the delivery, or old; only "it goes on" does no harm then.
        if seen is not None and seen.get("task") == task_id and (seen.get("status") or {}).get("code") == "RUNNING":
            return TaskStatus(**seen["status"])
        return self.client.task_status(task_id)

    # published

    def _succeeded(self, status: TaskStatus) -> CommitStep:
        """Check that the ingestion's counts balance, and go on to wait for the segments."""
        load, now = self.state.planned, self.ctx.clock()
        shortage = shortage_of(self.client.report(load.task), load, destination=self.delivery.destination)
        if shortage is not None:
            if not self._may_repair:
                raise shortage.error
            # Brought anew once readers see what was stored: before that, nobody can tell what is there.
            return self._move(DeliveryState.PUBLISHED, replace(self.state, published_at=now, stored=shortage.stored))
        note = f"Task {load.task} has published {load.handed} rows after {(status.duration_ms or 0) / 1000:.1f} s."
        return self._move(DeliveryState.PUBLISHED, replace(self.state, published_at=now, task_message=""), note=note)

    def _published(self) -> CommitStep:
        """Wait until readers see the rows, and count them."""
        if self.planner.is_emptying:
            return self._emptied()
        load, stored = self.state.planned, self.state.stored
        waited_s = self._since(self.state.published_at)
        unloaded = unloaded_of(self.client, load)
        if unloaded:
            if waited_s > self.config.load_timeout_s:
                return self._not_loaded(unloaded)
            return self._later(DeliveryState.PUBLISHED, waited_s)
        # The Broker shows for a while what has gone, so it is asked only where something is published.
        visible = 0 if unloaded is None else count_run(self.client, load.datasource, self.manifest.run_id)
        if stored is not None:
            # What an append has stored must be seen first, or it would come twice; chunks are just written once more.
            is_seen = not load.is_append or visible == stored or waited_s > LAG_S
            return self._plan_next() if is_seen else self._later(DeliveryState.PUBLISHED, waited_s)
        mismatch = ""
        if visible == load.receipt.visible and visible:
            mismatch = null_mismatch(self.client, load, run_id=self.manifest.run_id)
        if visible != load.receipt.visible or mismatch:
            return self._short(visible, mismatch, waited_s)
        failpoint("druid.before_cleaning")
        self.staging.remove()
        failpoint("druid.available")
        return CommitStep(DeliveryState.AVAILABLE, receipt=load.receipt)

    def _short(self, visible: int, mismatch: str, waited_s: float) -> CommitStep:
        """Give readers their time; then bring what is missing anew where that was asked for, or say what is missing."""
        destination, load = self.delivery.destination, self.state.planned
        if self._may_repair and (waited_s > LAG_S or is_dropped(self.client, load.datasource)):
            return self._plan_next()
        if waited_s < LAG_S:
            return self._later(DeliveryState.PUBLISHED, waited_s)
        if mismatch:
            raise SinkRejected("sink.nulls_differ", destination=destination, detail=mismatch)
        raise count_mismatch(destination, stage="loading", found=visible, expected=load.receipt.visible)

    def _emptied(self) -> CommitStep:
        """Empty the datasource for a full refresh without rows, and wait until readers see none."""
        datasource = self.state.planned.datasource
        if self._is_retried:
            # However often: earlier runs may have been brought again since it was emptied.
            self.client.mark_all_unused(datasource)
            after = replace(self.state, published_at=self.ctx.clock())
            return self._move(DeliveryState.PUBLISHED, after, note=f"Datasource {datasource} was emptied.")
        if not shows_rows(self.client, datasource):
            return CommitStep(DeliveryState.AVAILABLE, receipt=Receipt())
        waited_s = self._since(self.state.published_at)
        if waited_s < self.config.load_timeout_s:
            return self._later(DeliveryState.PUBLISHED, waited_s)
        detail = f"{datasource} was emptied, and after {self.config.load_timeout_s} s the Broker still shows rows of it"
        raise SinkUnavailable("sink.unavailable", destination=self.delivery.destination, detail=detail)

    def _not_loaded(self, unloaded: int) -> CommitStep:
        note = (
            f"Druid has published the rows, but {unloaded} segments are not served after {self.config.load_timeout_s} s."
            " See whether a Historical runs, has room (druid.segmentCache.locations) and can read the deep storage,"
            " and whether a drop rule is set; then retry the run: nothing is sent twice."
        )
        return CommitStep(DeliveryState.PUBLISHED_NOT_LOADED, note=note)

    # failed

    def _failed(self, message: str, *, is_lost: bool = False, is_final: bool = False) -> CommitStep:
        """Note the failure; what it left behind is found out before anything else is done."""
        load, state = self.state.planned, self.state
        after = replace(
            state,
            failed_at=self.ctx.clock(),
            failed_polls=0,
            task_message=message,
            is_final=is_final,
            attempts_before=load.attempt if self._is_retried else state.attempts_before,
        )
        note = f"Task {load.task} {'is lost' if is_lost else 'has failed'}: {message}"
        return self._move(DeliveryState.SUBMITTED, after, next_poll_s=FIRST_POLL_S, note=note)

    def _resolve_failure(self) -> CommitStep:
        """Find out whether the failed task has published its rows all the same, and go on accordingly."""
        load, state = self.state.planned, self.state
        waited_s = self._since(state.failed_at)
        status = self.client.task_status(load.task)
        if status is not None and not status.is_over:
            return self._goes_on(waited_s)
        if status is None and not state.is_used_up:
            after = replace(state, is_used_up=use_up(self.client, load.task))
            return self._move(DeliveryState.SUBMITTED, after, next_poll_s=FIRST_POLL_S)
        unloaded = unloaded_of(self.client, load)
        if unloaded:
            # Whether these are its rows cannot be told; to bring them again could double them.
            is_late = waited_s >= self.config.load_timeout_s
            return self._not_loaded(unloaded) if is_late else self._later(DeliveryState.SUBMITTED, waited_s)
        visible = count_run(self.client, load.datasource, self.manifest.run_id)
        if visible == load.receipt.visible and visible and not state.is_foreign:
            note = f"Task {load.task} had published its rows before it failed."
            after = replace(state, published_at=self.ctx.clock(), failed_at=None)
            return self._move(DeliveryState.PUBLISHED, after, note=note)
        if state.failed_polls + 1 < POLLS_OF_FAILURE:
            after = replace(state, failed_polls=state.failed_polls + 1)
            return self._move(DeliveryState.SUBMITTED, after, next_poll_s=FIRST_POLL_S)
        attempts = load.attempt - state.attempts_before
        # Asked for again by a person, what failed is tried again whatever was said of it.
        is_hopeless = attempts > 0 and (state.is_final or any(mark in state.task_message for mark in _HOPELESS))
        if is_hopeless or attempts >= self.config.task_attempts:
            raise self._task_failed(state.task_message)
        return self._plan_next()

    def _goes_on(self, waited_s: float) -> CommitStep:
        """Deal with a task that was given up and still runs: nothing new is begun beside it."""
        task_id, state = self.state.planned.task, self.state
        if state.is_foreign:
            if waited_s > self.config.task_timeout_s:
                raise self._task_failed("another task has this id and does not end")
            return self._later(DeliveryState.SUBMITTED, waited_s)
        if state.is_final or state.is_used_up:
            self.client.shutdown(task_id)
            return self._later(DeliveryState.SUBMITTED, 0)
        note = f"Task {task_id} was believed to be lost, and goes on."
        after = replace(state, failed_at=None)
        return self._move(DeliveryState.SUBMITTED, after, next_poll_s=FIRST_POLL_S, note=note)

    def _task_failed(self, detail: str) -> SinkRejected:
        task_id = self.state.planned.task
        return SinkRejected("sink.task_failed", destination=self.delivery.destination, task=task_id, detail=detail)

    # moves and times

    def _move(self, state: DeliveryState, after: LoadState, *, next_poll_s: float = 0, note: str = "") -> CommitStep:
        return CommitStep(state, next_poll_s=next_poll_s, refs=move(self.state, after), note=note)

    def _state_now(self) -> DeliveryState:
        """Return the state to stay in: a delivery does not go back to staged once a task was handed over."""
        return DeliveryState.STAGED if self._is_retried else self.delivery.state

    def _later(self, state: DeliveryState, waited_s: float) -> CommitStep:
        shortest_s = FIRST_POLL_OF_READERS_S if state is DeliveryState.PUBLISHED else FIRST_POLL_S
        return CommitStep(state, next_poll_s=min(max(shortest_s, waited_s * _SHARE), LONGEST_POLL_S))

    def _since(self, at: datetime | None) -> float:
        return 0.0 if at is None else max(0.0, (self.ctx.clock() - at).total_seconds())
