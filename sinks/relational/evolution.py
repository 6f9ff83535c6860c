"""Brings a table to what a run needs: planned, shown, applied under a lock, written down, undone on demand.

A column whose kind changes is replaced in steps, so that readers see the old state or the new one and wait only for
renames: the new column is added under a name of ours, filled from the lake while readers go on, then the names are
swapped. The old column stays, under another name, until the change can no longer be reverted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeGuard

from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, SinkUnavailable
from ingestion.ports.housekeeping import SchemaChange
from ingestion.ports.schema import ContractBody, ExtraColumns
from ingestion.toolkit.clean.kinds import EXACT_INTEGER
from ingestion.toolkit.failpoints import failpoint
from sinks.relational.connection import STATEMENT_LIMIT_S, Connection
from sinks.relational.delivery_log import AppliedChange, DeliveryLog, OwnedTable
from sinks.relational.diagnosis import ErrorClass
from sinks.relational.dialect import Dialect
from sinks.relational.inspection import describe, is_empty, key_of
from sinks.relational.naming import PREFIX, digest_of, filling_name
from sinks.relational.parts import Fitting
from sinks.relational.refilling import LakeRuns, Refill
from sinks.relational.schema_plan import (
    AddColumn,
    Change,
    ChangeKey,
    CreateTable,
    MappedColumn,
    NewColumn,
    Plan,
    RelaxColumn,
    ReleaseColumn,
    ReplaceColumn,
    RequiredColumn,
    RetypeColumn,
    Table,
    TableKey,
    plan_changes,
)
from sinks.relational.statements import Name, Sql, Value, sql

_TRIES = 5


@dataclass(frozen=True)
class Evolution:
    """The table of one pipeline and how it changes."""

    connection: Connection
    delivery_log: DeliveryLog
    table: str
    pipeline: str
    marks_deletions: bool
    keep_old_days: int
    ctx: Context

    @property
    def dialect(self) -> Dialect:
        """Return the SQL of the database."""
        return self.connection.dialect

    def read(self) -> Table:
        """Return the table as it is; ConfigError where it is another pipeline's, or nobody's and not empty.

        Called in a transaction: who holds the table locked is not waited for without end.
        """
        actual = describe(self.connection, self.table)
        owner = self.delivery_log.owned(self.table) if self.delivery_log.exists() else None
        if owner is not None and owner.pipeline != self.pipeline:
            raise ConfigError("sink.table_taken", table=self.table, pipeline=owner.pipeline)
        has_no_rows = bool(actual) and is_empty(self.connection, self.table)
        if owner is None and actual and not has_no_rows:
            raise ConfigError("sink.table_foreign", table=self.table)
        asides = {
            str(change.undo["aside"])
            for change in (self.delivery_log.changes(self.table) if owner else ())
            if change.undo.get("kind") == "replace"
        }
        return Table(
            self.table,
            actual=actual,
            mapped=owner.mapped if owner and actual else {},
            key=key_of(self.connection, self.table).columns if actual else (),
            asides=frozenset(asides | {name for name in actual if name.startswith(PREFIX)}),
            is_empty=has_no_rows,
            seen_since=owner.seen_since if owner and actual else None,
            contract=owner.contract if owner and actual else None,
        )

    def preview(self, required: Sequence[RequiredColumn], contract: ContractBody) -> tuple[Table, Plan]:
        """Return the table as it is and what it needs to show these columns as the contract sees them."""
        with self.connection.transaction(limit_s=STATEMENT_LIMIT_S, only_reads=True):
            table = self.read()
            return table, self.plan(table, required, contract)

    def plan(self, table: Table, required: Sequence[RequiredColumn], contract: ContractBody) -> Plan:
        """Return what the table needs."""
        return plan_changes(
            table,
            required,
            key=contract.key,
            keeps_extras=contract.extra_columns is ExtraColumns.KEEP,
            marks_deletions=self.marks_deletions,
            limits=self.dialect.limits,
            day=self.ctx.clock().strftime("%Y%m%d"),
            fits_number=self._fits_number,
        )

    def shown(self, plan: Plan) -> list[SchemaChange]:
        """Return the changes of a plan as a person reads them."""
        return [
            SchemaChange(_column_of(change), self._what(change), self._text(self._statements(change)))
            for change in plan.changes
        ]

    def apply(
        self, required: Sequence[RequiredColumn], contract: ContractBody, *, seen_since: int, runs: LakeRuns
    ) -> Table:
        """Return the table once it shows these columns as the contract sees them, which the run `seen_since` brought.

        Idempotent, also after a kill half way. SinkRejected, and nothing is changed, where a value cannot be shown so.
        """
        for _ in range(_TRIES):
            table, plan = self.preview(required, contract)
            if not plan.is_needed_by(table) and table.follows(contract):
                return table
            self.delivery_log.create()
            self.ctx.beat()
            if filled := self._filled(table, plan, contract):
                runs.ensure_castable(self.delivery_log.runs(self.table), filled, key=contract.key)
            made = self._apply_once(required, contract, seen_since=seen_since, runs=runs)
            for change in made:
                self.ctx.log("destination.schema_changed", table=self.table, column=change.column, what=change.what)
            for source, entry in plan.mapped.items():
                if made and source not in table.mapped and source != entry.column:
                    self.ctx.log("destination.column_renamed", table=self.table, column=source, name=entry.column)
            if filled and made:
                with self.connection.locked(self.table):
                    self.connection.execute(self.dialect.dropping(filling_name(self.table)))
            failpoint("relational.schema_applied")
        raise SinkUnavailable("sink.unavailable", destination=self.table, detail="its columns are changed by others")

    def _apply_once(
        self, required: Sequence[RequiredColumn], contract: ContractBody, *, seen_since: int, runs: LakeRuns
    ) -> list[AppliedChange]:
        """Add the new columns that have to be filled; where all of them are there, make every change and return them."""
        with self.connection.locked(self.table, limit_s=STATEMENT_LIMIT_S):
            table = self.read()
            plan = self.plan(table, required, contract)
            filled = [change for change in plan.changes if _is_filled(change)]
            missing = [change for change in filled if fresh_name(change.new) not in table.actual]
            for absent in missing:
                self.connection.execute(self._adding(absent.new, fresh_name(absent.new)))
            if filled:
                types = describe(self.connection, self.table)
                fittings = self._filled(table, plan, contract)
                columns = [(item, types[item.column].type) for item in fittings]
                refill = Refill(self.connection, table, columns, runs)
                if missing or not refill.is_prepared:
                    refill.prepare()
                    return []
                refill.fill(self.delivery_log.runs(self.table))
            made = [self._make(change, plan) for change in plan.changes]
            owned = OwnedTable(self.pipeline, plan.mapped, seen_since, contract)
            self.delivery_log.note_table(self.table, owned, now=self.ctx.clock())
            return made

    def _filled(self, table: Table, plan: Plan, contract: ContractBody) -> list[Fitting]:
        """Return how the columns that the plan fills are read from the lake, under the names they are filled by."""
        sources = {entry.column: source for source, entry in plan.mapped.items()}
        return [
            Fitting(fresh_name(change.new), sources[change.new.column], change.new.kind, contract)
            for change in plan.changes
            if table.exists and _is_filled(change)
        ]

    def _make(self, change: Change, plan: Plan) -> AppliedChange:
        """Make the change, write it down and return it."""
        now, undo = self.ctx.clock(), self._undo(change, plan)
        noted = AppliedChange(
            id=self.delivery_log.next_change_id(self.table),
            column=_column_of(change),
            what=self._what(change),
            statement=self._text(self._statements(change)),
            undo=undo,
            revertible_until=now + timedelta(days=self.keep_old_days) if undo.get("is_revertible") else None,
        )
        statements = self._statements(change, is_filled=True)
        if isinstance(change, CreateTable):
            self.delivery_log.forget_deliveries(self.table)
        if _is_filled(change):
            for released in self.delivery_log.changes(self.table):
                if released.undo.get("kind") == "release" and released.column == noted.column:
                    self.delivery_log.close_change(released.id, now=now)
            # First: where the two are not one transaction, a kill between them must not leave a column that nobody knows.
            self.delivery_log.note_change(self.table, noted, now=now)
            self.connection.execute(*statements)
            return noted
        try:
            self.connection.execute(*statements)
        except self.connection.driver_errors as error:
            diagnosis = self.connection.diagnose(error)
            if diagnosis.error_class is not ErrorClass.ROW or not isinstance(change, ChangeKey):
                raise
            key = ", ".join(change.new)
            raise ConfigError("sink.key_refused", table=self.table, key=key, detail=diagnosis.message) from error
        self.delivery_log.note_change(self.table, noted, now=now)
        return noted

    def _adding(self, new: NewColumn, name: str) -> Sql:
        """Return what adds the column under a name, outside of any key for now."""
        return self.dialect.adding(self.table, name, self.dialect.type_of(NewColumn(name, new.kind)))

    def _statements(  # noqa: PLR0911 - one return per kind of change
        self, change: Change, *, is_filled: bool = False
    ) -> list[Sql]:
        dialect = self.dialect
        match change:
            case CreateTable(columns=columns, key=key):
                return dialect.creating(self.table, columns, key=key)
            case AddColumn(new=new, is_filled=True) if is_filled:
                return [self.dialect.renaming(self.table, fresh_name(new), new.column)]
            case AddColumn(new=new):
                return [self._adding(new, new.column)]
            case ReleaseColumn():
                return []
            case RetypeColumn(new=new):
                return dialect.retyping(self.table, new.column, dialect.type_of(NewColumn(new.column, new.kind)))
            case RelaxColumn(column=column, type=column_type):
                return dialect.requiring(self.table, column, column_type=column_type, is_required=False)
            case ChangeKey(old=old, new=key):
                return self.rekeying(old, key)
            case ReplaceColumn(new=new, aside=aside):
                column, fresh = new.column, fresh_name(new)
                column_type = describe(self.connection, self.table)[column].type
                adding = [] if is_filled else [self._adding(new, fresh)]
                return [
                    *adding,
                    *dialect.swapping(self.table, column=column, aside=aside, fresh=fresh, column_type=column_type),
                ]

    def rekeying(self, old: Sequence[str], new: Sequence[str]) -> list[Sql]:
        """Return what changes the key from `old` to `new`, as the table is now."""
        key = key_of(self.connection, self.table) if old else TableKey()
        return self.dialect.rekeying(self.table, old=key, new=new, columns=describe(self.connection, self.table))

    def _undo(self, change: Change, plan: Plan) -> dict[str, Any]:
        match change:
            case AddColumn(new=new):
                return {"kind": "add", "column": new.column, "is_revertible": True}
            case ReplaceColumn(new=new, old_kind=old_kind, aside=aside):
                return {
                    **{"kind": "replace", "column": new.column, "aside": aside, "is_revertible": True},
                    **{"old_kind": old_kind.value, "new_kind": new.kind.value},
                }
            case RelaxColumn(column=column, type=column_type):
                return {"kind": "relax", "column": column, "type": column_type, "is_revertible": True}
            case ChangeKey(old=old, new=key):
                # A key that is dropped while a column of it is replaced comes back in the same plan.
                is_whole = sum(isinstance(other, ChangeKey) for other in plan.changes) == 1
                return {"kind": "key", "old": list(old), "new": list(key), "is_revertible": is_whole}
            case ReleaseColumn(column=column):
                return {"kind": "release", "aside": column, "is_revertible": True}
        return {"kind": "create" if isinstance(change, CreateTable) else "retype"}

    def _what(self, change: Change) -> str:  # noqa: PLR0911 - one return per kind of change
        until = f"for {self.keep_old_days} days"
        match change:
            case CreateTable(columns=columns):
                return f"The table is created with {len(columns)} columns."
            case AddColumn(new=new, is_filled=is_filled):
                rows = "rows that are there get theirs from the lake" if is_filled else "rows that are there have none"
                return f"The column is added for values of kind {new.kind}; {rows}."
            case ReleaseColumn():
                return f"The contract has the column no more; it stays {until}, then it is removed."
            case RetypeColumn(new=new):
                return f"The column, which has no values yet, holds kind {new.kind} from now on."
            case RelaxColumn():
                return "The column stays and may be empty from now on."
            case ChangeKey(new=key):
                return (
                    f"Rows are told apart by {', '.join(key)}." if key else "Rows are told apart by nothing any more."
                )
            case ReplaceColumn(new=new, old_kind=old_kind, aside=aside):
                return (
                    f"The column holds kind {new.kind} instead of {old_kind}, filled from the lake; "
                    f"the old one stays {until} as {aside}."
                )

    def _text(self, statements: Sequence[Sql]) -> str:
        return ";\n".join(statement.shown(self.dialect.quote) for statement in statements)

    def _fits_number(self, column: str) -> bool:
        least, most = Value(-EXACT_INTEGER), Value(EXACT_INTEGER)
        beyond = sql(
            "SELECT 1 FROM {} WHERE {} NOT BETWEEN {} AND {} LIMIT 1",
            self.dialect.table(self.table),
            Name(column),
            least,
            most,
        )
        return self.connection.first(beyond) is None


def _is_filled(change: Change) -> TypeGuard[ReplaceColumn | AddColumn]:
    """Return whether the column is filled from the lake before readers see it."""
    return isinstance(change, ReplaceColumn) or (isinstance(change, AddColumn) and change.is_filled)


def fresh_name(new: NewColumn) -> str:
    """Return the name of a column while it is being filled."""
    return f"{PREFIX}new_{digest_of(f'{new.column} {new.kind}')}"


def as_change(applied: AppliedChange) -> SchemaChange:
    """Return an applied change as a person sees it."""
    until = applied.revertible_until.isoformat() if applied.revertible_until else ""
    return SchemaChange(applied.column, applied.what, applied.statement, id=applied.id, revertible_until=until)


def is_open(applied: AppliedChange, *, now: datetime) -> bool:
    """Return whether a change can still be reverted."""
    return not applied.is_closed and applied.revertible_until is not None and applied.revertible_until > now


def mapping_without(mapped: Mapping[str, MappedColumn], column: str) -> dict[str, MappedColumn]:
    """Return what is noted of a table without one of its columns."""
    return {source: entry for source, entry in mapped.items() if entry.column != column}


def _column_of(change: Change) -> str:
    match change:
        case AddColumn(new=new) | RetypeColumn(new=new) | ReplaceColumn(new=new):
            return new.column
        case RelaxColumn(column=column) | ReleaseColumn(column=column):
            return column
    return ""
