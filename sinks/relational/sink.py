"""What the relational destinations have in common; each says how to connect, and how to check that."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import ClassVar

from ingestion.ports.check import CheckReport
from ingestion.ports.context import Context
from ingestion.ports.errors import Cancelled, ConfigError
from ingestion.ports.housekeeping import Housekeeping, SchemaChange
from ingestion.ports.publication import DeliveryState, DeliveryView, Manifest, PartView, Receipt, WriteMode
from ingestion.ports.schema import ContractBody
from ingestion.ports.sink import Capabilities, CommitStep
from ingestion.toolkit.failpoints import failpoint
from sinks.relational.config import TableConfig
from sinks.relational.database import Session
from sinks.relational.delivering import Publication, wanted_columns
from sinks.relational.delivery_log import Books
from sinks.relational.evolution import Evolution
from sinks.relational.naming import problem_of_table, run_of, table_name
from sinks.relational.reverting import open_changes, remove_old_columns, revert_change
from sinks.relational.troubles import Meaning, as_error

CONNECT_TIMEOUT_S = 10
CAPABILITIES = Capabilities(
    write_modes=frozenset(WriteMode), is_transactional=True, orders_runs=True, resumes_commit=False
)


class RelationalSink(ABC):
    """Writes a pipeline's rows into a table of its own, in one transaction a run."""

    capabilities: ClassVar[Capabilities] = CAPABILITIES

    def __init__(self, config: TableConfig) -> None:
        self._tables = config

    @property
    @abstractmethod
    def session_class(self) -> type[Session]:
        """Return the class of connections; its module loads the driver, which web processes do without."""

    @abstractmethod
    def connect(self, *, timeout_s: int = CONNECT_TIMEOUT_S) -> Session:
        """Return an open connection; the driver's own errors where there is none."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Return where the database is, for people."""

    @abstractmethod
    def check(self, ctx: Context) -> CheckReport:
        """Return whether a delivery could succeed now, each finding with its fix."""

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

    def abort(self, manifest: Manifest, delivery: DeliveryView, ctx: Context) -> None:
        """Remove the rows that wait; what was committed stays."""
        with self._publication(delivery, ctx) as publication:
            publication.abort()

    def plan_schema(self, pipeline: str, contract: ContractBody, ctx: Context) -> Sequence[SchemaChange]:
        """Return what the next delivery under this contract would change in the pipeline's table, in order."""
        if not contract.columns:
            return []
        with self._evolution(pipeline, ctx) as evolution:
            _, plan = evolution.look(wanted_columns(contract, {}), key=contract.key)
            return evolution.shown(plan)

    def schema_changes(self, pipeline: str, ctx: Context) -> Sequence[SchemaChange]:
        """Return the applied changes that can still be reverted, newest first."""
        with self._evolution(pipeline, ctx) as evolution:
            return open_changes(evolution) if evolution.books.are_there() else []

    def revert_schema(self, pipeline: str, change_id: str, ctx: Context) -> SchemaChange:
        """Undo one applied change with the data it set aside, and return it; ConfigError where it cannot be any more."""
        with self._evolution(pipeline, ctx) as evolution:
            evolution.books.open()
            return revert_change(evolution, change_id)

    def drop(self, pipeline: str, ctx: Context, *, dry_run: bool = False) -> Housekeeping:
        """Remove the pipeline's table, what waits for it, and what was written down of it. Idempotent."""
        with self._session(pipeline, ctx) as session:
            books = Books(session)
            tables = books.tables_of(pipeline) if books.are_there() else []
            there = session.tables()
            actions, size_bytes, count = [], 0, 0
            for table in tables:
                doomed = [name for name in there if name == table or run_of(name, table=table) is not None]
                size_bytes += sum(session.size_of(name) for name in doomed)
                actions += [f"drop table {session.place}.{name}" for name in doomed]
                count += len(doomed)
                if dry_run:
                    continue
                with session.locked(table):
                    for name in doomed:
                        session.execute(session.dropping(name))
                        books.forget_parts(name)
                        failpoint("relational.dropped")
                    books.forget_table(table)
        return Housekeeping(tuple(actions), object_count=count, size_bytes=size_bytes, is_dry_run=dry_run)

    @contextmanager
    def _publication(self, delivery: DeliveryView, ctx: Context) -> Iterator[Publication]:
        with self._evolution(delivery.pipeline, ctx, destination=delivery.destination) as evolution:
            limit = self._tables.refused_limit
            yield Publication(evolution.session, evolution.books, evolution, delivery, limit, ctx)

    @contextmanager
    def _evolution(self, pipeline: str, ctx: Context, *, destination: str = "") -> Iterator[Evolution]:
        name = table_name(self._tables.table, pipeline=pipeline)
        where = destination or self.address
        if problem := problem_of_table(name, limits=self.session_class.limits):
            raise ConfigError("config.invalid", where=f"destination {where}", detail=f"table: {problem}")
        with self._session(pipeline, ctx, destination=destination) as session:
            yield Evolution(
                session=session,
                books=Books(session),
                table=name,
                pipeline=pipeline,
                marks_deletions=self._tables.deletes == "soft",
                keep_old_days=self._tables.keep_old_days,
                ctx=ctx,
            )

    @contextmanager
    def _session(self, pipeline: str, ctx: Context, *, destination: str = "") -> Iterator[Session]:
        """Give an open connection; the driver's errors leave as those of the engine."""
        try:
            with closing(self.connect()) as session, session.watched(ctx):
                yield session
        except self.session_class.driver_errors as error:
            trouble = self.session_class.explain(error)
            if ctx.should_stop() and trouble.meaning in (Meaning.STOPPED, Meaning.UNAVAILABLE):
                raise Cancelled from error
            raise as_error(trouble, destination=destination or self.address) from error
