"""One delivery on its way through Druid: planned, submitted, published, available; each step can be repeated.

Exactly once. The task's id is stored before the task is handed over, and Druid takes an id once; so a submission whose
answer was lost is settled by asking for that id. A new attempt, with a new id, is made only after the Broker, with
everything loaded that was published, shows no row of the run: a task can fail after it has published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from ingestion.ports.context import Context
from ingestion.ports.errors import SinkRejected, SinkUnavailable
from ingestion.ports.sink import CommitStep, DeliveryState, DeliveryView, Manifest, Receipt
from ingestion.toolkit.failpoints import failpoint
from sinks.druid.client import DruidClient, TaskStatus, is_unknown_table
from sinks.druid.config import DruidConfig, Engine
from sinks.druid.discovery import check_discovery
from sinks.druid.intervals import Interval
from sinks.druid.planning import Planner, restore_plan
from sinks.druid.questions import count_run, null_counts
from sinks.druid.reports import IngestionCounts, native_counts, sql_counts
from sinks.druid.slots import wait_for_slot
from sinks.druid.spec import marker_of, native_spec, plan_hash
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
"""The Broker may learn of new columns a minute late."""
SETTLED_LOOKS = 3
"""Looks at a failed task's rows before it is believed that it has published none."""
UNREACHABLE_LOOK_S = 5.0
_BEFORE_SUBMIT = (DeliveryState.PLANNED, DeliveryState.STAGED)
_BLAMES_INPUT = ("parse exceptions", "ParseException", "Unparseable", "bad string input", "Wrong number of splits")
"""What Druid says where the next attempt would fail in the same way."""


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
        if self.delivery.state in _BEFORE_SUBMIT and (refs.get("submitted_at") or refs.get("failed_at")):
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

    # planned

    def _plan(self, *, attempt: int) -> CommitStep:
        """Decide what is to be loaded, and return what must be stored before it is handed over."""
        planned = self._planner().plan(attempt=attempt)
        failpoint("druid.planned")
        return CommitStep(self._state_now(), look_again_s=0, refs=planned.refs, note=planned.note)

    def _begin_again(self) -> CommitStep:
        """Take a given-up delivery up again as a person asked: with attempts of its own, from a look at what is there."""
        refs: dict[str, Any] = {"failed_looks": 0, "is_final": False}
        refs["attempts_before"] = int(self.delivery.refs["attempt"])
        for moment in ("failed_at", "published_at"):
            if self.delivery.refs.get(moment):
                refs[moment] = self._now()
        return CommitStep(DeliveryState.SUBMITTED, look_again_s=0, refs=refs)

    @property
    def _may_mend(self) -> bool:
        """Return whether what is short may be brought anew: a person has asked for it since this task was made."""
        return bool(self.delivery.refs["attempt"] == self.delivery.refs.get("attempts_before"))

    # submitted

    def _submit(self) -> CommitStep:
        refs = self.delivery.refs
        source, names = self._planner().source(refs)
        wait_for_slot(self.config, self.client, destination=self.delivery.destination)
        plan = restore_plan(refs, source=source, input_names=names, discovers=self.config.discover_schema)
        if self.config.discover_schema:
            check_discovery(plan, self.client, destination=self.delivery.destination)
        self.ctx.progress()
        failpoint("druid.before_post")
        if self.config.engine is Engine.SQL:
            query_id = str(refs["task"]).removeprefix("query-")
            statement = sql_statement(plan)
            submission = self.client.submit_sql(statement.query, query_id=query_id, context=statement.context)
        else:
            submission = self.client.submit(native_spec(plan))
        failpoint("druid.after_post")
        if submission.exists and not self._is_ours(plan_hash(plan)):
            # An id that another installation has used up, or an earlier life of this one.
            return self._plan(attempt=int(refs["attempt"]) + 1)
        note = f"Druid has task {refs['task']}, which reads {refs['handed']} rows. {self.staging.way.reason}"
        return CommitStep(
            DeliveryState.SUBMITTED,
            look_again_s=FIRST_LOOK_S,
            refs={"submitted_at": self._now(), "way": self.staging.way.input.value},
            note=note,
        )

    def _planner(self) -> Planner:
        return Planner(self.config, self.client, self.staging, self.manifest, self.delivery, self.ctx)

    def _is_ours(self, expected: str) -> bool:
        """Return whether the task of our id, which is there already, is the one we would hand over."""
        if self.config.engine is Engine.SQL:
            return True
        task = self.client.task(str(self.delivery.refs["task"]))
        return task is not None and marker_of(task) == expected

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
        seen = self.delivery.observed
        if seen is not None:
            found = seen.get("status")
            return TaskStatus(**found) if found else None
        return self.client.task_status(str(self.delivery.refs["task"]))

    # published

    def _succeeded(self, status: TaskStatus) -> CommitStep:
        """Check the books of the ingestion, and go on to wait for the segments."""
        refs = self.delivery.refs
        counts = self._counts()
        handed = int(refs["handed"])
        if counts is not None and (counts.read != handed or counts.lost):
            if not self._may_mend:
                self._raise_lost(counts, handed)
            # Brought anew once readers see what was stored: before that, nobody can tell what is there.
            stored = counts.processed + counts.with_error
            return CommitStep(
                DeliveryState.PUBLISHED, look_again_s=0, refs={"published_at": self._now(), "stored": stored}
            )
        seconds = f"{(status.duration_ms or 0) / 1000:.1f} s"
        return CommitStep(
            DeliveryState.PUBLISHED,
            look_again_s=0,
            refs={"published_at": self._now(), "task_message": ""},
            note=f"Task {refs['task']} has published {handed} rows after {seconds}.",
        )

    def _counts(self) -> IngestionCounts | None:
        report = self.client.report(str(self.delivery.refs["task"]))
        return sql_counts(report) if self.config.engine is Engine.SQL else native_counts(report)

    def _raise_lost(self, counts: IngestionCounts, handed: int) -> NoReturn:
        short = handed - counts.processed
        words = [
            f"{number} {name}"
            for name, number in (
                ("could not be parsed", counts.unparseable),
                ("had a value that does not fit its column", counts.with_error),
                ("were thrown away, outside of the intervals", counts.thrown_away),
                ("were never read", handed - counts.read),
            )
            if number > 0
        ]
        raise SinkRejected(
            "sink.rows_lost",
            destination=self.delivery.destination,
            stage="ingestion",
            handed=handed,
            short=short,
            detail=", ".join(words) + (f" ({counts.examples[0]})" if counts.examples else ""),
        )

    def _published(self) -> CommitStep:
        """Wait until readers see the rows, and count them."""
        refs = self.delivery.refs
        receipt = Receipt(**refs["receipt"])
        waited_s = self._since(refs.get("published_at") or self._now())
        unloaded = self._unloaded()
        if unloaded:
            if waited_s > self.config.load_timeout_s:
                return self._not_loaded(unloaded)
            return self._later(DeliveryState.PUBLISHED, waited_s)
        visible = count_run(self.client, refs["datasource"], self.manifest.run_id)
        if visible != receipt.visible:
            if self._may_mend and (visible == refs.get("stored") or waited_s > LAG_S):
                return self._plan(attempt=int(refs["attempt"]) + 1)
            if waited_s < LAG_S:
                return self._later(DeliveryState.PUBLISHED, waited_s)
            self._raise_short("loading", found=visible, expected=receipt.visible)
        mismatch = self._null_mismatch(receipt)
        if mismatch:
            if waited_s < LAG_S:
                return self._later(DeliveryState.PUBLISHED, waited_s)
            raise SinkRejected("sink.nulls_differ", destination=self.delivery.destination, detail=mismatch)
        failpoint("druid.before_cleaning")
        self.staging.remove()
        failpoint("druid.available")
        return CommitStep(DeliveryState.AVAILABLE, receipt=receipt)

    def _unloaded(self) -> int:
        refs = self.delivery.refs
        found = [
            self.client.unloaded_count(refs["datasource"], (start, end)) for start, end in self._loaded_intervals()
        ]
        return sum(count or 0 for count in found)

    def _loaded_intervals(self) -> list[Interval]:
        intervals = [(int(start), int(end)) for start, end in self.delivery.refs.get("intervals") or ()]
        # One question for all of it: a list of a thousand chunks would be a thousand questions.
        return [(intervals[0][0], intervals[-1][1])] if intervals else []

    def _not_loaded(self, unloaded: int) -> CommitStep:
        note = (
            f"Druid has published the rows, but {unloaded} segments are not served after {self.config.load_timeout_s} s."
            " See whether a Historical runs, has room (druid.segmentCache.locations) and can read the deep storage,"
            " and whether a drop rule is set; then retry the run: nothing is sent twice."
        )
        return CommitStep(DeliveryState.PUBLISHED_NOT_LOADED, note=note)

    def _null_mismatch(self, receipt: Receipt) -> str:
        expected: Mapping[str, int] = self.delivery.refs.get("nulls") or {}
        if not receipt.visible or not expected:
            return ""
        try:
            found = null_counts(self.client, self.delivery.refs["datasource"], self.manifest.run_id, list(expected))
        except SinkRejected as error:
            if is_unknown_table(error):
                return "the Broker does not know all columns yet"
            raise
        wrong = [
            f"column {name} has {found[name]} nulls instead of {count}"
            for name, count in expected.items()
            if found[name] != count
        ]
        return "; ".join(wrong[:5])

    # failed

    def _failed(self, message: str, *, is_lost: bool = False, is_final: bool = False) -> CommitStep:
        """Note the failure; what it left behind is looked at before anything else is done."""
        refs = {"failed_at": self._now(), "failed_looks": 0, "task_message": message, "is_final": is_final}
        word = "is lost" if is_lost else "has failed"
        note = f"Task {self.delivery.refs['task']} {word}: {message}"
        return CommitStep(DeliveryState.SUBMITTED, look_again_s=FIRST_LOOK_S, refs=refs, note=note)

    def _resolve_failure(self) -> CommitStep:
        """Find out whether the failed task has published its rows all the same, and go on accordingly."""
        refs = self.delivery.refs
        receipt = Receipt(**refs["receipt"])
        waited_s = self._since(refs["failed_at"])
        if self._unloaded() and waited_s < self.config.load_timeout_s:
            return self._later(DeliveryState.SUBMITTED, waited_s)
        visible = count_run(self.client, refs["datasource"], self.manifest.run_id)
        if visible == receipt.visible and receipt.visible:
            note = f"Task {refs['task']} had published its rows before it failed."
            refs_now = {"published_at": self._now(), "failed_at": None}
            return CommitStep(DeliveryState.PUBLISHED, look_again_s=0, refs=refs_now, note=note)
        looks = int(refs["failed_looks"]) + 1
        if looks < SETTLED_LOOKS:
            return CommitStep(DeliveryState.SUBMITTED, look_again_s=FIRST_LOOK_S, refs={"failed_looks": looks})
        attempt, before = int(refs["attempt"]), int(refs.get("attempts_before") or 0)
        message = str(refs.get("task_message") or "")
        # Asked for again by a person, what failed is tried again whatever was said of it.
        is_hopeless = attempt > before and (refs.get("is_final") or any(mark in message for mark in _BLAMES_INPUT))
        if is_hopeless or attempt - before >= self.config.task_attempts:
            raise SinkRejected(
                "sink.task_failed", destination=self.delivery.destination, task=refs["task"], detail=message
            )
        return self._plan(attempt=attempt + 1)

    def _raise_short(self, stage: str, *, found: int, expected: int) -> None:
        raise SinkRejected(
            "sink.count_mismatch",
            destination=self.delivery.destination,
            found=found,
            expected=expected,
            short=expected - found,
            stage=stage,
        )

    # time

    def _state_now(self) -> DeliveryState:
        """Return the state to stay in: a delivery does not go back to staged once a task was handed over."""
        state = self.delivery.state
        return DeliveryState.STAGED if state in _BEFORE_SUBMIT else state

    def _later(self, state: DeliveryState, waited_s: float) -> CommitStep:
        shortest_s = FIRST_LOOK_AT_READERS_S if state is DeliveryState.PUBLISHED else FIRST_LOOK_S
        return CommitStep(state, look_again_s=min(max(shortest_s, waited_s * _SHARE), LONGEST_LOOK_S))

    def _now(self) -> str:
        return self.ctx.clock().isoformat()

    def _since(self, moment: str) -> float:
        return max(0.0, (self.ctx.clock() - datetime.fromisoformat(moment)).total_seconds())
