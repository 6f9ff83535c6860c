"""One delivery on its way through Druid: planned, submitted, published, available; each step can be repeated.

Exactly once. The task's id and the hash of what it does are stored before the task is handed over, and Druid takes an
id once; so a submission whose answer was lost is settled by asking for that id. A new attempt, with a new id, is made
only after the earlier one is over for good, its id used up where Druid knows none, and after the Broker, with
everything loaded that was published, shows no row of the run: a task can fail after it has published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ingestion.ports.context import Context
from ingestion.ports.errors import Cancelled, SinkRejected, SinkUnavailable, StoreCorrupt, count_mismatch
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, Receipt
from ingestion.ports.sink import CommitStep
from ingestion.toolkit.failpoints import failpoint
from sinks.druid.answers import TaskStatus
from sinks.druid.books import null_mismatch, shortage_of
from sinks.druid.client import DruidClient
from sinks.druid.config import DruidConfig
from sinks.druid.discovery import check_discovery, check_sight
from sinks.druid.ending import use_up
from sinks.druid.planning import SQL_PREFIX, Planner, restore_plan
from sinks.druid.present import Unsettled
from sinks.druid.questions import count_run, is_dropped, shows_rows, unloaded_of
from sinks.druid.slots import wait_for_slot
from sinks.druid.spec import marker_of, native_spec
from sinks.druid.sql_spec import sql_statement
from sinks.druid.staging import Staging

FIRST_LOOK_S = 1.0
LONGEST_LOOK_S = 30.0
FIRST_LOOK_AT_READERS_S = 0.5
"""Published segments are mostly served within a second or two."""
_SHARE = 0.03
"""Looks come after this share of the time that has passed: the longer a task takes, the less a moment counts."""
UNKNOWN_GRACE_S = 60.0
"""A task that Druid does not know this long after it was handed over is lost."""
LAG_S = 90.0
"""The Broker may learn of new columns, and of what has gone, a minute late."""
SETTLED_LOOKS = 3
"""Looks at a failed task's rows before it is believed that it has published none."""
UNREACHABLE_LOOK_S = 5.0
_BEFORE_SUBMIT = (DeliveryState.PLANNED, DeliveryState.STAGED)
_HOPELESS = (
    *("parse exceptions", "ParseException", "Unparseable", "bad string input", "Wrong number of splits"),
    "Shutdown request from user",
)
"""What Druid says where the next attempt would fail in the same way, or was just stopped by a person."""


@dataclass(frozen=True, slots=True)
class Loading:
    """The steps of one delivery."""

    config: DruidConfig
    client: DruidClient
    staging: Staging
    manifest: Manifest
    delivery: DeliveryView
    ctx: Context

    def advance(self) -> CommitStep:
        """Take the delivery one step further from where its notes say it is."""
        refs = self.delivery.refs
        if refs.get("task") is None:
            return self._plan(attempt=1)
        if self._is_retried and (refs.get("submitted_at") or refs.get("failed_at")):
            return self._begin_again()
        if refs["task"] and not refs.get("submitted_at"):
            return self._submit()
        try:
            if refs.get("failed_at"):
                return self._resolve_failure()
            return self._published() if refs.get("published_at") else self._look_at_task()
        except SinkUnavailable as error:
            # The task goes on without us, and is found again by its id; only our patience has an end.
            waited_s = self._since(refs.get("submitted_at") or refs["published_at"])
            if waited_s > self.config.task_timeout_s + self.config.load_timeout_s:
                raise
            self.ctx.log("druid.unreachable", message=str(error), task=refs["task"])
            return self._later(self._state_now(), max(waited_s, UNREACHABLE_LOOK_S / _SHARE))

    @property
    def _is_retried(self) -> bool:
        """Return whether a person has asked for it again: its notes are further than its state."""
        return self.delivery.state in _BEFORE_SUBMIT

    # planned

    def _plan(self, *, attempt: int) -> CommitStep:
        """Decide what is to be loaded, and return what must be stored before it is handed over."""
        since = self.delivery.refs.get("unsettled_at")
        waited_s = self._since(since) if since else 0.0
        try:
            planned = self._planner().plan(attempt=attempt, is_late=waited_s > LAG_S)
        except Unsettled as reason:
            return self._wait_to_settle(str(reason), waited_s=waited_s, is_noted=bool(since))
        failpoint("druid.planned")
        return CommitStep(self._state_now(), next_poll_s=0, refs=planned.refs, note=planned.note)

    def _plan_next(self) -> CommitStep:
        return self._plan(attempt=int(self.delivery.refs["attempt"]) + 1)

    def _wait_to_settle(self, reason: str, *, waited_s: float, is_noted: bool) -> CommitStep:
        if waited_s > self.config.load_timeout_s:
            detail = f"after {self.config.load_timeout_s} s it still cannot be told what the datasource holds: {reason}"
            raise SinkUnavailable("sink.unavailable", destination=self.delivery.destination, detail=detail)
        step = self._later(self._state_now(), waited_s)
        if is_noted:
            return step
        note = f"It cannot be told yet what the datasource holds: {reason}. This is looked at again by itself."
        return CommitStep(step.state, next_poll_s=step.next_poll_s, refs={"unsettled_at": self._now()}, note=note)

    def _begin_again(self) -> CommitStep:
        """Take a given-up delivery up again as a person asked: with attempts of its own, from a look at what is there."""
        refs: dict[str, Any] = {"failed_looks": 0, "is_final": False}
        refs["attempts_before"] = int(self.delivery.refs["attempt"])
        for moment in ("failed_at", "published_at"):
            if self.delivery.refs.get(moment):
                refs[moment] = self._now()
        return CommitStep(DeliveryState.SUBMITTED, next_poll_s=0, refs=refs)

    @property
    def _may_mend(self) -> bool:
        """Return whether what is short may be brought anew: a person has asked for it since this task was made."""
        refs = self.delivery.refs
        return bool(refs["attempt"] == refs.get("attempts_before")) or (self._is_retried and not refs["task"])

    # submitted

    def _submit(self) -> CommitStep:
        refs = self.delivery.refs
        found = self.client.task(str(refs["task"]))
        if found is not None:
            # Handed over before, and the answer was lost on the way.
            return self._exists(found)
        planner = self._planner()
        if refs["settings"] != planner.settings_hash():
            return self._plan_instead()
        try:
            source = planner.source(refs)
        except StoreCorrupt:
            if refs["objects"] is None:
                raise
            # The rows of the merge are gone (removed by a cancel): what belongs there is decided anew.
            return self._plan_instead()
        plan = restore_plan(refs, source=source)
        wait_for_slot(self.config, self.client, destination=self.delivery.destination)
        check_sight(plan, self.client)
        if plan.discovers:
            check_discovery(plan, self.client, destination=self.delivery.destination)
        self.ctx.progress()
        if self.ctx.should_stop():
            raise Cancelled
        failpoint("druid.before_post")
        try:
            if plan.task_id.startswith(SQL_PREFIX):
                statement = sql_statement(plan)
                query_id = plan.task_id.removeprefix(SQL_PREFIX)
                submission = self.client.submit_sql(statement.query, query_id=query_id, context=statement.context)
            else:
                submission = self.client.submit(native_spec(plan))
        except (SinkUnavailable, SinkRejected):
            # Unclear whether it was taken; for a statement's id that is there already, the words were never seen.
            found = self.client.task(plan.task_id)
            if found is None:
                raise
            return self._exists(found)
        failpoint("druid.after_post")
        return self._exists(self.client.task(plan.task_id)) if submission.exists else self._handed_over()

    def _plan_instead(self) -> CommitStep:
        """Plan the next attempt in the place of one that was never handed over, and now never can be."""
        if not use_up(self.client, str(self.delivery.refs["task"])):
            return self._later(self._state_now(), 0)
        return self._plan_next()

    def _exists(self, task: Mapping[str, Any] | None) -> CommitStep:
        """Go on with the task of our id that is there already, if it is the one we would hand over."""
        if task is None:
            return self._later(self._state_now(), 0)
        if marker_of(task) == self.delivery.refs["hash"]:
            return self._handed_over()
        # An id that another installation has used up, or an earlier life of this one; or we did, to make sure. Nothing
        # is begun before it is over.
        now = self._now()
        refs = {"submitted_at": now, "failed_at": now, "failed_looks": 0, "is_foreign": True}
        refs["task_message"] = "its id belonged to another task"
        return CommitStep(
            DeliveryState.SUBMITTED,
            next_poll_s=FIRST_LOOK_S,
            refs=refs,
            note=f"The id {self.delivery.refs['task']} belongs to another task; the next one is used once that is over.",
        )

    def _handed_over(self) -> CommitStep:
        refs = self.delivery.refs
        return CommitStep(
            DeliveryState.SUBMITTED,
            next_poll_s=FIRST_LOOK_S,
            refs={"submitted_at": self._now(), "way": self.staging.way.input.value},
            note=f"Druid has task {refs['task']}, which reads {refs['handed']} rows. {self.staging.way.reason}",
        )

    def _planner(self) -> Planner:
        return Planner(self.config, self.client, self.staging, self.manifest, self.delivery, self.ctx)

    def _look_at_task(self) -> CommitStep:
        refs = self.delivery.refs
        status = self._status()
        waited_s = self._since(refs["submitted_at"])
        if status is None:
            if waited_s < UNKNOWN_GRACE_S:
                return self._later(DeliveryState.SUBMITTED, waited_s)
            return self._failed("Druid does not know the task any more", is_lost=True)
        if status.code == "SUCCESS":
            return self._succeeded(status)
        if status.code == "FAILED":
            return self._failed(status.message)
        if waited_s > self.config.task_timeout_s:
            self.client.shutdown(str(refs["task"]))
            return self._failed(f"it was not done after {self.config.task_timeout_s} s and was stopped", is_final=True)
        return self._later(DeliveryState.SUBMITTED, waited_s)

    def _status(self) -> TaskStatus | None:
        """Return how far the task is: as just seen together with others, asked again where something hangs on it."""
        task_id, seen = str(self.delivery.refs["task"]), self.delivery.polled
        if seen is not None and seen.get("unreachable"):
            destination = self.delivery.destination
            raise SinkUnavailable("sink.unavailable", destination=destination, detail=seen["unreachable"])
        # What was seen may be of an earlier task of the delivery, or old; only "it goes on" does no harm then.
        if seen is not None and seen.get("task") == task_id and (seen.get("status") or {}).get("code") == "RUNNING":
            return TaskStatus(**seen["status"])
        return self.client.task_status(task_id)

    # published

    def _succeeded(self, status: TaskStatus) -> CommitStep:
        """Check the books of the ingestion, and go on to wait for the segments."""
        refs = self.delivery.refs
        report = self.client.report(str(refs["task"]))
        shortage = shortage_of(report, refs, destination=self.delivery.destination)
        if shortage is not None:
            if not self._may_mend:
                raise shortage.error
            # Brought anew once readers see what was stored: before that, nobody can tell what is there.
            noted = {"published_at": self._now(), "stored": shortage.stored}
            return CommitStep(DeliveryState.PUBLISHED, next_poll_s=0, refs=noted)
        seconds = f"{(status.duration_ms or 0) / 1000:.1f} s"
        return CommitStep(
            DeliveryState.PUBLISHED,
            next_poll_s=0,
            refs={"published_at": self._now(), "task_message": ""},
            note=f"Task {refs['task']} has published {refs['handed']} rows after {seconds}.",
        )

    def _published(self) -> CommitStep:
        """Wait until readers see the rows, and count them."""
        if self._planner().is_emptying:
            return self._emptied()
        refs = self.delivery.refs
        receipt = Receipt(**refs["receipt"])
        waited_s = self._since(refs["published_at"])
        unloaded = unloaded_of(self.client, refs)
        if unloaded:
            if waited_s > self.config.load_timeout_s:
                return self._not_loaded(unloaded)
            return self._later(DeliveryState.PUBLISHED, waited_s)
        # The Broker shows for a while what has gone, so it is asked only where something is published.
        visible = 0 if unloaded is None else count_run(self.client, refs["datasource"], self.manifest.run_id)
        stored = refs.get("stored")
        if stored is not None:
            # What an append has stored must be seen first, or it would come twice; chunks are just written once more.
            is_seen = not refs["append"] or visible == stored or waited_s > LAG_S
            return self._plan_next() if is_seen else self._later(DeliveryState.PUBLISHED, waited_s)
        mismatch = ""
        if visible == receipt.visible and visible:
            mismatch = null_mismatch(self.client, refs, run_id=self.manifest.run_id)
        if visible != receipt.visible or mismatch:
            return self._short(visible, mismatch, waited_s)
        failpoint("druid.before_cleaning")
        self.staging.remove()
        failpoint("druid.available")
        return CommitStep(DeliveryState.AVAILABLE, receipt=receipt)

    def _short(self, visible: int, mismatch: str, waited_s: float) -> CommitStep:
        """Give readers their time; then bring what is missing anew where that was asked for, or say what is missing."""
        destination = self.delivery.destination
        if self._may_mend and (waited_s > LAG_S or is_dropped(self.client, self.delivery.refs["datasource"])):
            return self._plan_next()
        if waited_s < LAG_S:
            return self._later(DeliveryState.PUBLISHED, waited_s)
        if mismatch:
            raise SinkRejected("sink.nulls_differ", destination=destination, detail=mismatch)
        expected = Receipt(**self.delivery.refs["receipt"]).visible
        raise count_mismatch(destination, stage="loading", found=visible, expected=expected)

    def _emptied(self) -> CommitStep:
        """Empty the datasource for a full refresh without rows, and wait until readers see none."""
        datasource = self.delivery.refs["datasource"]
        if self._is_retried:
            # However often: earlier runs may have been brought again since it was emptied.
            self.client.mark_all_unused(datasource)
            refs, note = {"published_at": self._now()}, f"Datasource {datasource} was emptied."
            return CommitStep(DeliveryState.PUBLISHED, next_poll_s=0, refs=refs, note=note)
        if not shows_rows(self.client, datasource):
            return CommitStep(DeliveryState.AVAILABLE, receipt=Receipt())
        waited_s = self._since(self.delivery.refs["published_at"])
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
        """Note the failure; what it left behind is looked at before anything else is done."""
        refs: dict[str, Any] = {"failed_at": self._now(), "failed_looks": 0, "task_message": message}
        refs["is_final"] = is_final
        if self._is_retried:
            refs["attempts_before"] = int(self.delivery.refs["attempt"])
        word = "is lost" if is_lost else "has failed"
        note = f"Task {self.delivery.refs['task']} {word}: {message}"
        return CommitStep(DeliveryState.SUBMITTED, next_poll_s=FIRST_LOOK_S, refs=refs, note=note)

    def _resolve_failure(self) -> CommitStep:
        """Find out whether the failed task has published its rows all the same, and go on accordingly."""
        refs = self.delivery.refs
        receipt = Receipt(**refs["receipt"])
        waited_s = self._since(refs["failed_at"])
        status = self.client.task_status(str(refs["task"]))
        if status is not None and not status.is_over:
            return self._goes_on(waited_s)
        if status is None and not refs["is_used_up"]:
            is_used_up = use_up(self.client, str(refs["task"]))
            return CommitStep(DeliveryState.SUBMITTED, next_poll_s=FIRST_LOOK_S, refs={"is_used_up": is_used_up})
        unloaded = unloaded_of(self.client, refs)
        if unloaded:
            # Whether these are its rows cannot be told; to bring them again could double them.
            is_late = waited_s >= self.config.load_timeout_s
            return self._not_loaded(unloaded) if is_late else self._later(DeliveryState.SUBMITTED, waited_s)
        visible = count_run(self.client, refs["datasource"], self.manifest.run_id)
        if visible == receipt.visible and visible and not refs["is_foreign"]:
            note = f"Task {refs['task']} had published its rows before it failed."
            refs_now = {"published_at": self._now(), "failed_at": None}
            return CommitStep(DeliveryState.PUBLISHED, next_poll_s=0, refs=refs_now, note=note)
        looks = int(refs["failed_looks"]) + 1
        if looks < SETTLED_LOOKS:
            return CommitStep(DeliveryState.SUBMITTED, next_poll_s=FIRST_LOOK_S, refs={"failed_looks": looks})
        attempt, before = int(refs["attempt"]), int(refs.get("attempts_before") or 0)
        message = str(refs["task_message"])
        # Asked for again by a person, what failed is tried again whatever was said of it.
        is_hopeless = attempt > before and (refs["is_final"] or any(mark in message for mark in _HOPELESS))
        if is_hopeless or attempt - before >= self.config.task_attempts:
            raise SinkRejected(
                "sink.task_failed", destination=self.delivery.destination, task=refs["task"], detail=message
            )
        return self._plan_next()

    def _goes_on(self, waited_s: float) -> CommitStep:
        """Deal with a task that was given up and still runs: nothing new is begun beside it."""
        refs = self.delivery.refs
        task_id = str(refs["task"])
        if refs["is_foreign"]:
            if waited_s > self.config.task_timeout_s:
                detail = "another task has this id and does not end"
                destination = self.delivery.destination
                raise SinkRejected("sink.task_failed", destination=destination, task=task_id, detail=detail)
            return self._later(DeliveryState.SUBMITTED, waited_s)
        if refs["is_final"] or refs["is_used_up"]:
            self.client.shutdown(task_id)
            return self._later(DeliveryState.SUBMITTED, 0)
        note = f"Task {task_id} was believed to be lost, and goes on."
        return CommitStep(DeliveryState.SUBMITTED, next_poll_s=FIRST_LOOK_S, refs={"failed_at": None}, note=note)

    # time

    def _state_now(self) -> DeliveryState:
        """Return the state to stay in: a delivery does not go back to staged once a task was handed over."""
        return DeliveryState.STAGED if self._is_retried else self.delivery.state

    def _later(self, state: DeliveryState, waited_s: float) -> CommitStep:
        shortest_s = FIRST_LOOK_AT_READERS_S if state is DeliveryState.PUBLISHED else FIRST_LOOK_S
        return CommitStep(state, next_poll_s=min(max(shortest_s, waited_s * _SHARE), LONGEST_LOOK_S))

    def _now(self) -> str:
        return self.ctx.clock().isoformat()

    def _since(self, moment: str) -> float:
        return max(0.0, (self.ctx.clock() - datetime.fromisoformat(moment)).total_seconds())
