"""Brings a table to what a run needs: planned, shown, applied under a lock, written down, undone on demand.

A column whose kind changes is replaced in steps, so that readers see the old state or the new one and wait only for
renames: the new column is added under a name of ours, filled while readers go on, then the names are swapped. The old
column stays, under another name, until the change can no longer be reverted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ingestion.ports.context import Context
from ingestion.ports.errors import ConfigError, SinkUnavailable
from ingestion.ports.housekeeping import SchemaChange
from ingestion.toolkit.clean.kinds import EXACT_INTEGER
from ingestion.toolkit.failpoints import failpoint
from sinks.relational.connection import STATEMENT_LIMIT_S, Connection
from sinks.relational.delivery_log import AppliedChange, DeliveryLog
from sinks.relational.diagnosis import ErrorClass
from sinks.relational.dialect import Dialect, TableKey
from sinks.relational.inspection import describe, is_empty, key_of
from sinks.relational.naming import PREFIX, digest_of
from sinks.relational.schema_plan import (
    AddColumn,
    Change,
    ChangeKey,
    CreateTable,
    MappedColumn,
    NewColumn,
    Plan,
    RelaxColumn,
    ReplaceColumn,
    RequiredColumn,
    RetypeColumn,
    Table,
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
        owner = self.delivery_log.owner_of(self.table) if self.delivery_log.exists() else None
        if owner is not None and owner[0] != self.pipeline:
            raise ConfigError("sink.table_taken", table=self.table, pipeline=owner[0])
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
            mapped=owner[1] if owner and actual else {},
            key=key_of(self.connection, self.table).columns if actual else (),
            asides=frozenset(asides | {name for name in actual if name.startswith(PREFIX)}),
            is_empty=has_no_rows,
        )

    def preview(self, required: Sequence[RequiredColumn], *, key: Sequence[str]) -> tuple[Table, Plan]:
        """Return the table as it is and what it needs to take these columns."""
        with self.connection.transaction(limit_s=STATEMENT_LIMIT_S, only_reads=True):
            table = self.read()
            return table, self.plan(table, required, key=key)

    def plan(self, table: Table, required: Sequence[RequiredColumn], *, key: Sequence[str]) -> Plan:
        """Return what the table needs."""
        return plan_changes(
            table,
            required,
            key=key,
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

    def apply(self, required: Sequence[RequiredColumn], *, key: Sequence[str]) -> Table:
        """Return the table once it takes these columns under this key. Idempotent, also after a kill half way."""
        for _ in range(_TRIES):
            table, plan = self.preview(required, key=key)
            if not plan.is_needed_by(table):
                return table
            self.delivery_log.create()
            self.ctx.beat()
            for made in self._apply_once(required, key=key):
                self.ctx.log("destination.schema_changed", table=self.table, column=made.column, what=made.what)
            failpoint("relational.schema_applied")
        raise SinkUnavailable("sink.unavailable", destination=self.table, detail="its columns are changed by others")

    def _apply_once(self, required: Sequence[RequiredColumn], *, key: Sequence[str]) -> list[AppliedChange]:
        """Add the new columns that have to be filled; where all of them are there, make every change and return them."""
        with self.connection.locked(self.table, limit_s=STATEMENT_LIMIT_S):
            table = self.read()
            plan = self.plan(table, required, key=key)
            replaced = [change for change in plan.changes if isinstance(change, ReplaceColumn)]
            missing = [change for change in replaced if fresh_name(change.new) not in table.actual]
            for absent in missing:
                self.connection.execute(self._adding(absent.new, fresh_name(absent.new)))
            if missing:
                return []
            for filled in replaced:
                self._fill(filled)
            made = [self._make(change, plan) for change in plan.changes]
            self.delivery_log.note_table(self.table, pipeline=self.pipeline, mapped=plan.mapped, now=self.ctx.clock())
            return made

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
        if isinstance(change, ReplaceColumn):
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

    def _fill(self, change: ReplaceColumn) -> None:
        old, fresh = sql("{}", Name(change.new.column)), Name(fresh_name(change.new))
        recast = self.dialect.recast(old, old=change.old_kind, new=change.new.kind)
        filling = sql("UPDATE {} SET {} = {} WHERE {} IS NOT NULL", self.dialect.table(self.table), fresh, recast, old)
        self.connection.execute(*self.dialect.preparing_parsing(), filling)

    def _adding(self, new: NewColumn, name: str) -> Sql:
        """Return what adds the column under a name, outside of any key for now."""
        return self.dialect.adding(self.table, name, self.dialect.type_of(NewColumn(name, new.kind)))

    def _statements(self, change: Change, *, is_filled: bool = False) -> list[Sql]:
        dialect = self.dialect
        match change:
            case CreateTable(columns=columns, key=key):
                return dialect.creating(self.table, columns, key=key)
            case AddColumn(new=new):
                return [self._adding(new, new.column)]
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
        return {"kind": "create" if isinstance(change, CreateTable) else "retype"}

    def _what(self, change: Change) -> str:
        until = f"for {self.keep_old_days} days"
        match change:
            case CreateTable(columns=columns):
                return f"The table is created with {len(columns)} columns."
            case AddColumn(new=new):
                return f"The column is added for values of kind {new.kind}; rows that are there have none."
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
                    f"The column holds kind {new.kind} instead of {old_kind}, filled with what can be read as that; "
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
        case RelaxColumn(column=column):
            return column
    return ""
