"""One run on its way into a table: staged part by part, made visible by one transaction, which writes down that it did.

    append, and replacing without a key     the parts are copied straight into the table by that transaction
    merging, and replacing by key           the parts wait in a staging table; that transaction brings the rows that
                                            are new or differ, and takes out those a full refresh no longer has

What was written down (headgate_deliveries) decides everything after: a repeated commit, one whose answer was lost, and
one that comes late find it and do nothing. A key that a newer run brought is not brought by an older one, whether or
not the newer one had to change the row; and a run that is older than the newest full refresh brings nothing.

The table shows the published state through the newest contract, whichever run is on its way.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

from ingestion.ports.context import Context
from ingestion.ports.errors import SinkRejected, SinkUnavailable
from ingestion.ports.publication import DeliveryView, Manifest, PartView, Receipt, WriteMode
from ingestion.ports.schema import ContractBody
from ingestion.toolkit.failpoints import failpoint
from sinks.relational.connection import STATEMENT_LIMIT_S, Connection
from sinks.relational.delivery_log import Delivered, DeliveryLog, OwnedTable, StagedPart, part_id
from sinks.relational.diagnosis import BUSY_RETRY_S, ErrorClass
from sinks.relational.dialect import Merge
from sinks.relational.evolution import Evolution
from sinks.relational.inspection import describe, table_names
from sinks.relational.later_keys import LaterKeys
from sinks.relational.loading import fittings_of, load_part
from sinks.relational.merging import StagedRows, count_visible, remove_older
from sinks.relational.naming import LINEAGE, PART_NUMBER, number_of, run_of, staging_name
from sinks.relational.parts import read_contents
from sinks.relational.refilling import LakeRuns
from sinks.relational.rejecting import Rejections
from sinks.relational.schema_plan import Table, required_columns
from sinks.relational.statements import Name, Value, sql
from sinks.relational.table_kinds import Content
from sinks.relational.verifying import Verification

_TRIES = 5


@dataclass(frozen=True)
class Publication:
    """One delivery over an open connection; every method may be called twice."""

    connection: Connection
    delivery_log: DeliveryLog
    evolution: Evolution
    delivery: DeliveryView
    rejected_limit: int
    ctx: Context

    @property
    def table(self) -> str:
        """Return the table the rows go into."""
        return self.evolution.table

    @cached_property
    def runs(self) -> LakeRuns:
        """Return the pipeline's runs in the lake."""
        return LakeRuns(self.delivery, self.ctx)

    @cached_property
    def later(self) -> LaterKeys:
        """Return the keys of later runs."""
        return LaterKeys(self.connection, self.delivery_log, self.table, self.runs)

    def contract_of(self, table: Table) -> tuple[ContractBody, int]:
        """Return the contract through which the table is seen, and the run that brought it: never an older one."""
        given = self.delivery.seen_through
        if table.contract is not None and (
            (table.seen_since or 0) > self.delivery.seen_since or not (given.columns or given.key)
        ):
            return table.contract, table.seen_since or 0
        return given, self.delivery.seen_since

    @cached_property
    def staging(self) -> str:
        """Return the name under which the run's rows wait."""
        return staging_name(self.table, run_id=self.delivery.run_id)

    @property
    def merges(self) -> bool:
        """Return whether rows are told apart by key, so that they have to wait."""
        has_key = bool(self.delivery.seen_through.key)
        if self.delivery.mode is WriteMode.MERGE and not has_key:
            detail = "rows cannot be merged without a key: name one in the contract"
            raise SinkRejected("sink.rejected", destination=self.delivery.destination, detail=detail)
        return has_key and self.delivery.mode is not WriteMode.APPEND

    def stage(self, part: PartView, *, is_forced: bool = False) -> None:
        """Bring the table to what the part needs and, where rows wait, let the part's wait."""
        with self.ctx.lake.open(part.key) as stream:
            contents = read_contents(stream, part)
            if not is_forced and part_id(part) in self._delivered_parts():
                return
            for _ in range(_TRIES):
                table = self._fitted_table(contents)
                if self.merges:
                    self._prepare_staging(table)
                with self._lost_race():
                    with self.connection.locked(self.table, shared=True):
                        is_staged = self._stage_once(part, contents, stream=stream)
                    failpoint("relational.staged")
                    if is_staged:
                        return
        raise self._busy()

    def commit(self, manifest: Manifest) -> Receipt:
        """Make the run's rows visible and return what became of them; the same receipt however often it is called."""
        for _ in range(_TRIES):
            delivered = self._delivered()
            if delivered is None or delivered.parts != {part_id(part) for part in manifest.parts}:
                table = self._fitted_table({})
                self.delivery_log.create()
                if self.merges and manifest.parts:
                    # What waits in columns that the table no longer has like this is let go, so staged again below.
                    self._prepare_staging(table)
                for part in self._missing(manifest):
                    self.stage(part, is_forced=True)
                    self.ctx.beat()
                if table.exists and manifest.contract != self.contract_of(table)[0]:
                    contract, _ = self.contract_of(table)
                    self.runs.ensure_castable([manifest.run_id], fittings_of(table, contract), key=contract.key)
                if self.merges:
                    self.later.stage(table)
                delivered = self._commit_once(manifest)
                failpoint("relational.after_commit")
            if delivered is not None:
                self._clear_away()
                return delivered.receipt
        raise self._busy()

    def count(self) -> int:
        """Return how many of the run's rows a reader sees."""
        with self.connection.transaction(limit_s=STATEMENT_LIMIT_S, only_reads=True):
            table = Table(self.table, actual=describe(self.connection, self.table))
            return count_visible(self.connection, table, run_id=self.delivery.run_id)

    def differences(self, manifest: Manifest) -> list[str]:
        """Return what differs between the rows that a reader sees as the run's and its clean parts."""
        with self.connection.transaction(only_reads=True):
            table = self.evolution.read()
        return Verification(self.connection, table, manifest, self.runs).differences() if table.exists else []

    def abort(self) -> None:
        """Remove the rows that wait."""
        if self.delivery_log.exists():
            with self.connection.locked(self.table):
                for name in (self.later.staging, self.staging):
                    self.connection.execute(self.connection.dialect.dropping(name))
                    failpoint("relational.staging_dropped")
                    self.delivery_log.forget_parts(name)
            failpoint("relational.aborted")

    # --- staging

    def _fitted_table(self, contents: Mapping[str, Content]) -> Table:
        with self.connection.transaction(limit_s=STATEMENT_LIMIT_S, only_reads=True):
            table = self.evolution.read()
            contract, seen_since = self.contract_of(table)
            if not contract.columns and not contents:
                # Nothing was ever read, so nobody knows yet what the table should look like.
                return table
            required = required_columns(contract, contents)
            is_followed = table.exists and table.follows(contract)
            if is_followed and not self.evolution.plan(table, required, contract).is_needed_by(table):
                return table
        if table.exists and not is_followed:
            held = self.runs.contents(self.delivery_log.runs(self.table))
            required = required_columns(contract, contents, held=held)
        return self.evolution.apply(required, contract, seen_since=seen_since, runs=self.runs)

    def _prepare_staging(self, table: Table) -> None:
        """Make the staging table, or bring it to the columns that the table has by now.

        Where a column holds another kind than when the first parts were staged, all of them are staged again: that
        is rare, and the commit sees to it.
        """
        connection, dialect = self.connection, self.connection.dialect
        if not self._differs(table):
            return
        with connection.locked(self.table):
            actual = describe(connection, self.staging)
            columns = self._staged_columns(table)
            if any(actual[name].type != columns[name] for name in set(actual) & set(columns)):
                connection.execute(dialect.dropping(self.staging))
                actual = {}
            if actual:
                adding = (dialect.adding(self.staging, name, columns[name]) for name in columns if name not in actual)
                connection.execute(*adding)
                return
            self.delivery_log.forget_parts(self.staging)
            creating = dialect.creating_staging(self.staging, target=self.table, columns=columns, key=table.key)
            connection.execute(*creating)

    def _stage_once(self, part: PartView, contents: Mapping[str, Content], *, stream: BinaryIO) -> bool:
        """Let the part's rows wait, in one transaction; False where the table has changed meanwhile."""
        table = self.evolution.read()
        if self.merges and self._differs(table):
            return False
        staged = self.delivery_log.staged(self.staging)
        if part_id(part) in staged:
            return True
        if any(other.name == part.name for other in staged.values()):
            self._remove_staged(part.name)
        self.delivery_log.note_part(self.staging, StagedPart(part.name, part.sha256, tuple(contents)))
        if self.merges:
            rejections = Rejections(self.delivery.destination, self.rejected_limit)
            fittings = fittings_of(table, self.contract_of(table)[0])
            load_part(
                self.connection,
                part,
                stream,
                into=self.staging,
                fittings=fittings,
                contract=self.delivery.contract,
                rejections=rejections,
                ctx=self.ctx,
            )
            if rejections.rows:
                self.delivery_log.note_rejections(self.staging, part.name, rejections.rows)
        return True

    def _remove_staged(self, part: str) -> None:
        """Remove a part's rows that wait, as the run has them no longer."""
        self.delivery_log.forget_parts(self.staging, part=part)
        if self.merges:
            staging = self.connection.dialect.table(self.staging)
            condition = sql("{} = {}", Name(PART_NUMBER), Value(number_of(part)))
            self.connection.execute(sql("DELETE FROM {} WHERE {}", staging, condition))

    def _staged_columns(self, table: Table) -> dict[str, str]:
        columns = [entry.column for entry in table.mapped.values() if entry.column in table.actual]
        return {name: table.actual[name].type for name in (*columns, *LINEAGE[1:])}

    def _differs(self, table: Table) -> bool:
        actual = describe(self.connection, self.staging)
        columns = self._staged_columns(table)
        return any(name not in actual or actual[name].type != column_type for name, column_type in columns.items())

    def _missing(self, manifest: Manifest) -> list[PartView]:
        staged = self.delivery_log.staged(self.staging) if self.delivery_log.exists() else {}
        return [part for part in manifest.parts if part_id(part) not in staged]

    # --- the transaction

    def _commit_once(self, manifest: Manifest) -> Delivered | None:
        """Bring the rows and write it down; None where something has changed meanwhile."""
        with self.connection.locked(self.table, limit_s=STATEMENT_LIMIT_S):
            parts = frozenset(part_id(part) for part in manifest.parts)
            before = self._delivered()
            if before is not None and before.parts == parts:
                return before
            table = self.evolution.read()
            if self._missing(manifest) or (self.merges and manifest.parts and self._differs(table)):
                return None
            if self.merges and table.key and self.later.run_ids and not self.later.are_there:
                return None
            for staged in self.delivery_log.staged(self.staging).values():
                if (staged.name, staged.sha256) not in parts:
                    self._remove_staged(staged.name)
            receipt, removed = self._bring(manifest, table, before=before)
            self.ctx.beat()
            contract, seen_since = self.contract_of(table)
            if table.exists and seen_since != table.seen_since and table.follows(contract):
                owned = OwnedTable(manifest.pipeline, table.mapped, seen_since, contract)
                self.delivery_log.note_table(self.table, owned, now=self.ctx.clock())
            self.delivery_log.note_delivery(
                self.table,
                run_id=manifest.run_id,
                delivery_id=self.delivery.id,
                pipeline=manifest.pipeline,
                mode=manifest.mode,
                parts=manifest.parts,
                receipt=receipt,
                removed=removed,
                now=self.ctx.clock(),
            )
            failpoint("relational.before_commit")
        if removed:
            self.ctx.log("delivery.removed", destination=self.delivery.destination, rows=removed)
        return Delivered(manifest.run_id, manifest.mode, parts, receipt)

    def _bring(self, manifest: Manifest, table: Table, *, before: Delivered | None) -> tuple[Receipt, int]:
        """Return what became of the rows, and how many were taken out."""
        refresh = self.delivery_log.newest_refresh(self.table)
        row_count = sum(part.rows for part in manifest.parts)
        rejections, removed = Rejections(self.delivery.destination, self.rejected_limit), 0
        deleted_at = self.ctx.clock() if self.evolution.marks_deletions else None
        if not table.exists or (refresh is not None and refresh > manifest.run_id):
            inserted, updated = 0, 0
        elif self.merges and manifest.parts:
            for part in self.delivery_log.staged(self.staging).values():
                for rejection in part.rejections:
                    rejections.add(rejection)
            merge = self._merge(table, is_again=before is not None)
            if merge.later:
                self.connection.execute(self.connection.dialect.removing_replaced(merge))
            rows = StagedRows(self.connection, merge, rejections, self.ctx)
            inserted, updated = rows.bring()
            if manifest.mode is WriteMode.REPLACE:
                removed = rows.take_out_absent(now=deleted_at)
        else:
            if before is not None:
                remove_older(self.connection, table, run_id=manifest.run_id, only_own=True, now=None)
            if manifest.mode is WriteMode.REPLACE:
                removed = remove_older(self.connection, table, run_id=manifest.run_id, only_own=False, now=deleted_at)
            inserted, updated = self._append(manifest.parts, table, rejections=rejections), 0
        if before is not None and table.exists:
            # The run was published in part before: what it brought then is still its own.
            visible = count_visible(self.connection, table, run_id=manifest.run_id)
            inserted = min(before.receipt.inserted + inserted, visible)
            updated = visible - inserted
        rejected = len(rejections.rows)
        unchanged = row_count - inserted - updated - rejected
        return Receipt(inserted, updated, unchanged, rejected, rejections.in_order), removed

    def _append(self, parts: Sequence[PartView], table: Table, *, rejections: Rejections) -> int:
        taken, fittings = 0, fittings_of(table, self.contract_of(table)[0])
        for part in parts:
            with self.ctx.lake.open(part.key) as stream:
                taken += load_part(
                    self.connection,
                    part,
                    stream,
                    into=self.table,
                    fittings=fittings,
                    contract=self.delivery.contract,
                    rejections=rejections,
                    ctx=self.ctx,
                    run_id=self.delivery.run_id,
                )
        return taken

    def _merge(self, table: Table, *, is_again: bool) -> Merge:
        present = [entry for entry in table.mapped.values() if entry.column in table.actual]
        return Merge(
            target=self.table,
            staging=self.staging,
            columns={entry.column: table.actual[entry.column].type for entry in present},
            key=table.key,
            run_id=self.delivery.run_id,
            has_deletions=table.has_deletions,
            may_change_own=is_again,
            unseen=frozenset(entry.column for entry in present if not entry.is_seen),
            later=self.later.staging if self.later.run_ids else "",
        )

    def _clear_away(self) -> None:
        """Remove what waited, of this run and of older ones that it has overtaken."""
        with self.connection.locked(self.table):
            for name in table_names(self.connection):
                run_id = run_of(name, table=self.table)
                if run_id is not None and run_id <= self.delivery.run_id:
                    self.connection.execute(self.connection.dialect.dropping(name))
                    self.delivery_log.forget_parts(name)
            failpoint("relational.staging_dropped")
            self.delivery_log.forget_parts(self.staging)

    # --- what both need

    def _delivered(self) -> Delivered | None:
        # Where somebody dropped the table, what was written down of it holds no longer.
        if not self.delivery_log.exists() or not describe(self.connection, self.table):
            return None
        return self.delivery_log.delivered(self.table, self.delivery.run_id)

    def _delivered_parts(self) -> frozenset[tuple[str, str]]:
        delivered = self._delivered()
        return delivered.parts if delivered else frozenset()

    def _busy(self) -> SinkUnavailable:
        return SinkUnavailable("sink.busy", destination=self.delivery.destination, retry_after_s=BUSY_RETRY_S)

    @contextmanager
    def _lost_race(self) -> Iterator[None]:
        """Let the caller try again where somebody else has just staged the same part."""
        try:
            yield
        except self.connection.driver_errors as error:
            if self.connection.diagnose(error).error_class is not ErrorClass.ROW:
                raise
