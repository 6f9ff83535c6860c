"""Sink that publishes a run into a datasource of Apache Druid, and counts the rows that its readers see."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar
from urllib.parse import quote

from ingestion.ports.check import CheckReport
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, SinkUnavailable
from ingestion.ports.housekeeping import Housekeeping, OutsideTask
from ingestion.ports.publication import DeliveryView, Manifest, PartView, Receipt, WriteMode
from ingestion.ports.sink import Capabilities, CommitStep
from sinks.druid.client import DruidClient
from sinks.druid.config import DruidConfig
from sinks.druid.datasource_state import count_run
from sinks.druid.input_source import find_input
from sinks.druid.loading import Loading
from sinks.druid.messages import MESSAGES
from sinks.druid.planning import Planner
from sinks.druid.preflight import findings_of
from sinks.druid.responses import TaskStatus, first_line
from sinks.druid.staging import Staging
from sinks.druid.state import LoadState
from sinks.druid.tasks import end_delivery, end_tasks, is_ours


class DruidSink:
    """Sink that loads by tasks of Druid's own; nothing here waits for one."""

    kind: ClassVar[str] = "druid"
    messages: ClassVar[Mapping[str, str]] = MESSAGES
    Config: ClassVar[type[DruidConfig]] = DruidConfig
    capabilities: ClassVar[Capabilities] = Capabilities(
        # A plan reads all that a merge meets, and begins anew when it is called again.
        write_modes=frozenset(WriteMode),
        formats=frozenset({"parquet", "json"}),
        resumes_commit=False,
    )

    def __init__(self, config: DruidConfig) -> None:
        self.config = config

    def check(self, ctx: Context) -> CheckReport:
        """Return whether a load could succeed now: reached, let in, led, with slots, extensions and a way for the rows."""
        return CheckReport(tuple(findings_of(self.config, ctx)))

    def stage(self, part: PartView, delivery: DeliveryView, ctx: Context) -> Receipt:
        """Take stock of the part, and write its rows where Druid can read them if it cannot read the part itself."""
        client = self._client(ctx, delivery.destination)
        staging = self._staging(client, delivery, ctx)
        # What a merge hands over is known when it meets the rows that are there.
        is_copied = delivery.mode is not WriteMode.MERGE or not delivery.contract.key
        staging.prepare(part, with_rows=is_copied)
        return Receipt(inserted=part.rows)

    def poll(self, deliveries: Sequence[DeliveryView], ctx: Context) -> Mapping[int, Mapping[str, Any]]:
        """Return how far the deliveries' tasks are, asked with one question.

        An Overlord that does not answer is no error here: the tasks go on without it, and each delivery has a patience
        of its own.
        """
        tasks = {delivery.id: LoadState.parse(delivery.refs).awaited_task for delivery in deliveries}
        waiting = {delivery_id: task_id for delivery_id, task_id in tasks.items() if task_id}
        if not waiting:
            return {}
        client = self._client(ctx, deliveries[0].destination)
        try:
            found = client.task_statuses(sorted(set(waiting.values())))
        except SinkUnavailable as error:
            detail = str(error.values.get("detail") or error)
            return {delivery_id: {"task": task_id, "unreachable": detail} for delivery_id, task_id in waiting.items()}
        return {
            delivery_id: {"task": task_id, "status": asdict(found[task_id]) if task_id in found else None}
            for delivery_id, task_id in waiting.items()
        }

    def commit(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        """Take the load one step further: planned, submitted, published, available."""
        client = self._client(ctx, delivery.destination)
        staging = self._staging(client, delivery, ctx)
        state = LoadState.parse(delivery.refs)
        planner = Planner(self.config, client, staging, manifest, delivery, ctx, previous=state.load)
        return Loading(planner, state).advance()

    def count(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> int:
        """Return how many rows of this run the Broker counts, in the datasource that they were brought into."""
        client = self._client(ctx, delivery.destination)
        load = LoadState.parse(delivery.refs).load
        datasource = load.datasource if load is not None else self.config.datasource_of(manifest.pipeline)
        return count_run(client, datasource, manifest.run_id)

    def abort(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> None:
        """Stop the delivery's task and remove what was written for it; what Druid has published stays.

        `sink.busy` while the task still ends or what it has published is still loaded: what is counted after that is
        what remains.
        """
        client = self._client(ctx, delivery.destination)
        end_delivery(client, self.config, delivery, ctx)
        self._staging(client, delivery, ctx).remove()

    def drop(self, pipeline: str, ctx: Context, *, dry_run: bool = False) -> Housekeeping:
        """Take all segments out of the pipeline's datasource; tasks of ours that are at it are stopped first."""
        client = self._client(ctx, self.config.place)
        datasource = self.config.datasource_of(pipeline)
        if not dry_run:
            end_tasks(client, datasource, destination=self.config.place)
        chunks = client.chunks(datasource) if client.unloaded_count(datasource) is not None else ()
        actions = (f"mark the segments of {len(chunks)} chunks of datasource {datasource} unused",) if chunks else ()
        if not dry_run:
            client.mark_all_unused(datasource)
        return Housekeeping(actions=actions, object_count=len(chunks), is_dry_run=dry_run)

    def tasks(self, ctx: Context, *, limit: int) -> Sequence[OutsideTask]:
        """Return our tasks there, newest first."""
        client = self._client(ctx, self.config.place)
        found = [task for task in client.tasks(completed=limit) if is_ours(str(task.get("id")))]
        newest = sorted(found, key=lambda task: str(task.get("createdTime")), reverse=True)
        return [_outside_task(task, link=self.task_link(str(task["id"]))) for task in newest[:limit]]

    def task_link(self, task_id: str) -> str:
        """Return where Druid's console, which the Router serves, lists the task; without a Router, its status."""
        if self.config.broker_url:
            return (
                f"{self.config.overlord_url or self.config.url}/druid/indexer/v1/task/{quote(task_id, safe='')}/status"
            )
        return f"{self.config.url}/unified-console.html#tasks/task_id~{quote(task_id, safe='')}"

    def task_log(self, task_id: str, ctx: Context, *, tail_bytes: int) -> str:
        """Return the end of the task's log; empty where Druid keeps none."""
        self._refuse_foreign(task_id)
        client = self._client(ctx, self.config.place)
        log = client.log_tail(task_id, tail_bytes=tail_bytes)
        if not log:
            self._find_task(client, task_id)
        return log

    def cancel_task(self, task_id: str, ctx: Context) -> None:
        """Stop the task; its delivery finds that out by itself. ConfigError where there is none, or none any more."""
        self._refuse_foreign(task_id)
        client = self._client(ctx, self.config.place)
        status = self._find_task(client, task_id)
        if status.is_over:
            raise ConfigError("sink.task_over", task=task_id[:100], state=status.code)
        client.shutdown(task_id)

    def _find_task(self, client: DruidClient, task_id: str) -> TaskStatus:
        status = client.task_status(task_id)
        if status is None:
            raise ConfigError("sink.unknown_task", destination=self.config.place, task=task_id[:100])
        return status

    def _refuse_foreign(self, task_id: str) -> None:
        if not is_ours(task_id):
            raise ConfigError("sink.foreign_task", task=task_id[:100])

    def _client(self, ctx: Context, destination: str) -> DruidClient:
        return DruidClient(self.config, ctx.http, destination=destination)

    def _staging(self, client: DruidClient, delivery: DeliveryView, ctx: Context) -> Staging:
        return Staging(
            self.config, ctx, delivery=delivery, find_input=lambda: find_input(self.config, client, ctx.lake)
        )


def _outside_task(task: Mapping[str, Any], *, link: str) -> OutsideTask:
    duration = task.get("duration")
    return OutsideTask(
        id=str(task["id"]),
        state=str(task.get("statusCode") or ""),
        dataset=str(task.get("dataSource") or ""),
        created_at=str(task.get("createdTime") or ""),
        duration_ms=duration if isinstance(duration, int) and duration >= 0 else None,
        message=first_line(task.get("errorMsg")),
        link=link,
    )
