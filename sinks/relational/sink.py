"""The ground of all relational destinations; each says how to connect, and which layers lie before that."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import ClassVar

from ingestion.ports.check import CheckReport
from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError
from ingestion.ports.housekeeping import Housekeeping, SchemaChange
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, PartView, Receipt, WriteMode
from ingestion.ports.schema import ContractBody
from ingestion.ports.sink import Capabilities, CommitStep
from ingestion.toolkit.failpoints import failpoint
from sinks.relational.checks import DatabaseCheck, Step, network_steps
from sinks.relational.config import ServerConfig, TableConfig
from sinks.relational.connection import Connection
from sinks.relational.delivering import Publication
from sinks.relational.delivery_log import DeliveryLog
from sinks.relational.diagnosis import ErrorClass, as_error
from sinks.relational.evolution import Evolution
from sinks.relational.inspection import table_names
from sinks.relational.messages import MESSAGES
from sinks.relational.naming import filling_name, problem_of_table, run_of, table_name
from sinks.relational.reverting import open_changes, remove_old_columns, revert_change
from sinks.relational.schema_plan import required_columns

CONNECT_TIMEOUT_S = 10
CAPABILITIES = Capabilities(
    write_modes=frozenset(WriteMode), is_transactional=True, orders_runs=True, resumes_commit=False
)


class RelationalSink(ABC):
    """Writes a pipeline's rows into a table of its own, in one transaction a run."""

    messages: ClassVar[Mapping[str, str]] = MESSAGES
    capabilities: ClassVar[Capabilities] = CAPABILITIES

    def __init__(self, config: TableConfig) -> None:
        self._tables = config

    @property
    @abstractmethod
    def connection_class(self) -> type[Connection]:
        """Return the class of connections; its module loads the driver, which web processes do without."""

    @abstractmethod
    def connect(self, timeout_s: int = CONNECT_TIMEOUT_S) -> Connection:
        """Return an open connection; the driver's own errors where there is none."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Return where the database is, for people."""

    @property
    @abstractmethod
    def user(self) -> str:
        """Return who writes there, for people."""

    @abstractmethod
    def check_steps(self) -> tuple[Step, ...]:
        """Return the layers to check before a connection is tried."""

    def check(self, ctx: Context) -> CheckReport:
        """Return which layer between here and a written row fails, each finding with its fix."""
        check = DatabaseCheck(self.connect, self.connection_class, self.address, self.user)
        return CheckReport(tuple(check.findings(self.check_steps())))

    def stage(self, part: PartView, delivery: DeliveryView, ctx: Context) -> Receipt:
        """Bring the table's columns to what the part needs, and its rows into a staging table where they wait."""
        with self._publication(delivery, ctx) as publication:
            publication.stage(part)
        return Receipt(inserted=part.rows)

    def commit(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> CommitStep:
        """Make the run's rows visible by one transaction that also writes down that it did."""
        with self._publication(delivery, ctx) as publication:
            receipt = publication.commit(manifest)
            for column in remove_old_columns(publication.evolution):
                ctx.log("destination.column_removed", table=publication.table, column=column)
        return CommitStep(DeliveryState.AVAILABLE, receipt=receipt, refs={"table": publication.table})

    def count(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> int:
        """Return how many rows of the run the table shows."""
        with self._publication(delivery, ctx) as publication:
            return publication.count()

    def differences(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> Sequence[str]:
        """Return in which columns the rows that the table shows as the run's differ from its clean parts."""
        with self._publication(delivery, ctx) as publication:
            return publication.differences(manifest)

    def abort(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> None:
        """Remove the rows that wait; what was committed stays."""
        with self._publication(delivery, ctx) as publication:
            publication.abort()

    def plan_schema(self, pipeline: str, contract: ContractBody, ctx: Context) -> Sequence[SchemaChange]:
        """Return what the next delivery under this contract would change in the pipeline's table, in order."""
        if not contract.columns:
            return []
        with self._evolution(pipeline, ctx) as evolution:
            _, plan = evolution.preview(required_columns(contract, {}), contract)
            return evolution.shown(plan)

    def schema_changes(self, pipeline: str, ctx: Context) -> Sequence[SchemaChange]:
        """Return the applied changes that can still be reverted, newest first."""
        with self._evolution(pipeline, ctx) as evolution:
            return open_changes(evolution) if evolution.delivery_log.exists() else []

    def revert_schema(self, pipeline: str, change_id: str, ctx: Context) -> SchemaChange:
        """Undo one applied change with the data it set aside, and return it; ConfigError where it cannot be any more."""
        with self._evolution(pipeline, ctx) as evolution:
            evolution.delivery_log.create()
            return revert_change(evolution, change_id)

    def drop(self, pipeline: str, ctx: Context, *, dry_run: bool = False) -> Housekeeping:
        """Remove the pipeline's table, what waits for it, and what was written down of it. Idempotent."""
        with self._connected(pipeline, ctx) as connection:
            delivery_log = DeliveryLog(connection)
            tables = delivery_log.tables_of(pipeline) if delivery_log.exists() else []
            there = table_names(connection)
            actions, size_bytes, count = [], 0, 0
            for table in tables:
                ours = (table, filling_name(table))
                doomed = [name for name in there if name in ours or run_of(name, table=table) is not None]
                size_bytes += sum(connection.number(connection.dialect.measuring(name)) for name in doomed)
                actions += [f"drop table {connection.dialect.namespace}.{name}" for name in doomed]
                count += len(doomed)
                if dry_run:
                    continue
                with connection.locked(table):
                    for name in doomed:
                        connection.execute(connection.dialect.dropping(name))
                        delivery_log.forget_parts(name)
                        failpoint("relational.dropped")
                    delivery_log.forget_table(table)
        return Housekeeping(tuple(actions), object_count=count, size_bytes=size_bytes, is_dry_run=dry_run)

    @contextmanager
    def _publication(self, delivery: DeliveryView, ctx: Context) -> Iterator[Publication]:
        with self._evolution(delivery.pipeline, ctx, destination=delivery.destination) as evolution:
            limit = self._tables.refused_limit
            yield Publication(evolution.connection, evolution.delivery_log, evolution, delivery, limit, ctx)

    @contextmanager
    def _evolution(self, pipeline: str, ctx: Context, *, destination: str = "") -> Iterator[Evolution]:
        name = table_name(self._tables.table, pipeline=pipeline)
        where = destination or self.address
        if problem := problem_of_table(name, limits=self.connection_class.dialect_class.limits):
            raise ConfigError("config.invalid", where=f"destination {where}", detail=f"table: {problem}")
        with self._connected(pipeline, ctx, destination=destination) as connection:
            yield Evolution(
                connection=connection,
                delivery_log=DeliveryLog(connection),
                table=name,
                pipeline=pipeline,
                marks_deletions=self._tables.deletes == "soft",
                keep_old_days=self._tables.keep_old_days,
                ctx=ctx,
            )

    @contextmanager
    def _connected(self, pipeline: str, ctx: Context, *, destination: str = "") -> Iterator[Connection]:
        """Give an open connection; the driver's errors leave as those of the engine."""
        try:
            with closing(self.connect()) as connection, connection.watched(ctx):
                yield connection
        except self.connection_class.driver_errors as error:
            diagnosis = self.connection_class.diagnose(error)
            if diagnosis.error_class in (ErrorClass.STOPPED, ErrorClass.UNAVAILABLE):
                # The work may have to stop: then it is no fault of the database's.
                ctx.beat()
            raise as_error(diagnosis, destination=destination or self.address) from error


class ServerSink(RelationalSink):
    """Writes into a database behind a network."""

    config: ServerConfig

    @property
    def address(self) -> str:
        return f"{self.config.host}:{self.config.port}/{self.config.database}"

    @property
    def user(self) -> str:
        return self.config.user

    def check_steps(self) -> tuple[Step, ...]:
        return network_steps(self.config.host, self.config.port)
