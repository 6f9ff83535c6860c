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
from sinks.relational.database import STATEMENT_LIMIT_S, Session
from sinks.relational.delivery_log import AppliedChange, Books
from sinks.relational.naming import PREFIX, digest_of
from sinks.relational.schema_plan import (
    AddColumn,
    Change,
    ChangeKey,
    CreateTable,
    Known,
    NewColumn,
    Plan,
    RelaxColumn,
    ReplaceColumn,
    RetypeColumn,
    Table,
    Wanted,
    plan_changes,
)
from sinks.relational.statements import Name, Sql, Value, sql
from sinks.relational.troubles import Meaning

_TRIES = 5


@dataclass(frozen=True)
class Evolution:
    """The table of one pipeline and how it changes."""

    session: Session
    books: Books
    table: str
    pipeline: str
    marks_deletions: bool
    keep_old_days: int
    ctx: Context

    def read(self) -> Table:
        """Return the table as it is; ConfigError where it is another pipeline's, or nobody's and not empty.

        Called in a transaction: who holds the table locked is not waited for without end.
        """
        session = self.session
        found = session.describe(self.table)
        noted = self.books.owner_of(self.table) if self.books.are_there() else None
        if noted is not None and noted[0] != self.pipeline:
            raise ConfigError("sink.table_taken", table=self.table, pipeline=noted[0])
        is_empty = bool(found) and session.is_empty(self.table)
        if noted is None and found and not is_empty:
            raise ConfigError("sink.table_foreign", table=self.table)
        asides = {
            str(change.undo["aside"])
            for change in (self.books.changes(self.table) if noted else ())
            if change.undo.get("kind") == "replace"
        }
        return Table(
            self.table,
            found=found,
            known=noted[1] if noted and found else {},
            key=session.key_of(self.table) if found else (),
            asides=frozenset(asides | {name for name in found if name.startswith(PREFIX)}),
            is_empty=is_empty,
        )

    def look(self, wanted: Sequence[Wanted], *, key: Sequence[str]) -> tuple[Table, Plan]:
        """Return the table as it is and what it needs to take these columns."""
        with self.session.transaction(limit_s=STATEMENT_LIMIT_S, only_reads=True):
            table = self.read()
            return table, self.plan(table, wanted, key=key)

    def plan(self, table: Table, wanted: Sequence[Wanted], *, key: Sequence[str]) -> Plan:
        """Return what the table needs."""
        return plan_changes(
            table,
            wanted,
            key=key,
            marks_deletions=self.marks_deletions,
            limits=self.session.limits,
            day=self.ctx.clock().strftime("%Y%m%d"),
            fits_number=self._fits_number,
        )

    def shown(self, plan: Plan) -> list[SchemaChange]:
        """Return the changes of a plan as a person reads them."""
        return [
            SchemaChange(_column_of(change), self._what(change), self._text(self._statements(change)))
            for change in plan.changes
        ]

    def apply(self, wanted: Sequence[Wanted], *, key: Sequence[str]) -> Table:
        """Return the table once it takes these columns under this key. Idempotent, also after a kill half way."""
        for _ in range(_TRIES):
            table, plan = self.look(wanted, key=key)
            if not plan.is_needed_by(table):
                return table
            self.books.open()
            self.ctx.progress()
            for made in self._apply_once(wanted, key=key):
                self.ctx.log("destination.schema_changed", table=self.table, column=made.column, what=made.what)
            failpoint("relational.schema_applied")
        raise SinkUnavailable("sink.unavailable", destination=self.table, detail="its columns are changed by others")

    def _apply_once(self, wanted: Sequence[Wanted], *, key: Sequence[str]) -> list[AppliedChange]:
        """Add the new columns that have to be filled; where all of them are there, make every change and return them."""
        with self.session.locked(self.table, limit_s=STATEMENT_LIMIT_S):
            table = self.read()
            plan = self.plan(table, wanted, key=key)
            replaced = [change for change in plan.changes if isinstance(change, ReplaceColumn)]
            missing = [change for change in replaced if fresh_name(change.new) not in table.found]
            for absent in missing:
                self._run(self.session.adding(self.table, _renamed(absent.new, fresh_name(absent.new))))
            if missing:
                return []
            for filled in replaced:
                self._fill(filled)
            made = [self._make(change, plan) for change in plan.changes]
            self.books.note_table(self.table, pipeline=self.pipeline, known=plan.known, now=self.ctx.clock())
            return made

    def _make(self, change: Change, plan: Plan) -> AppliedChange:
        """Make the change, write it down and return it."""
        now, undo = self.ctx.clock(), self._undo(change, plan)
        noted = AppliedChange(
            id=self.books.next_change_id(self.table),
            column=_column_of(change),
            what=self._what(change),
            statement=self._text(self._statements(change)),
            undo=undo,
            revertible_until=now + timedelta(days=self.keep_old_days) if undo.get("is_revertible") else None,
        )
        statements = self._statements(change, is_filled=True)
        if isinstance(change, CreateTable):
            self.books.forget_deliveries(self.table)
        if isinstance(change, ReplaceColumn):
            # First: where the two are not one transaction, a kill between them must not leave a column that nobody knows.
            self.books.note_change(self.table, noted, now=now)
            self._run(statements)
            return noted
        try:
            self._run(statements)
        except self.session.driver_errors as error:
            trouble = self.session.explain(error)
            if trouble.meaning is not Meaning.ROW or not isinstance(change, ChangeKey):
                raise
            key = ", ".join(change.new)
            raise ConfigError("sink.key_refused", table=self.table, key=key, detail=trouble.message) from error
        self.books.note_change(self.table, noted, now=now)
        return noted

    def _fill(self, change: ReplaceColumn) -> None:
        self.session.prepare_parsing()
        old, fresh = Name(change.new.column), Name(fresh_name(change.new))
        self.session.execute(
            sql(
                "UPDATE {} SET {} = {} WHERE {} IS NOT NULL",
                self.session.table(self.table),
                fresh,
                self.session.recast(sql("{}", old), old=change.old_kind, new=change.new.kind),
                old,
            )
        )

    def _statements(self, change: Change, *, is_filled: bool = False) -> list[Sql]:
        session = self.session
        match change:
            case CreateTable(columns=columns, key=key):
                return session.creating(self.table, columns, key=key)
            case AddColumn(new=new):
                return session.adding(self.table, new)
            case RetypeColumn(new=new):
                return session.retyping(self.table, new)
            case RelaxColumn(column=column, type=column_type):
                return session.relaxing(self.table, column, column_type=column_type)
            case ChangeKey(old=old, new=key):
                return session.rekeying(self.table, old=old, new=key)
            case ReplaceColumn(new=new, aside=aside):
                fresh = fresh_name(new)
                adding = [] if is_filled else session.adding(self.table, _renamed(new, fresh))
                return [*adding, *session.swapping(self.table, column=new.column, aside=aside, fresh=fresh)]

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

    def _run(self, statements: Sequence[Sql]) -> None:
        for statement in statements:
            self.session.execute(statement)

    def _text(self, statements: Sequence[Sql]) -> str:
        return ";\n".join(statement.shown(self.session.quote) for statement in statements)

    def _fits_number(self, column: str) -> bool:
        return (
            self.session.first(
                sql(
                    "SELECT 1 FROM {} WHERE {} NOT BETWEEN {} AND {} LIMIT 1",
                    self.session.table(self.table),
                    Name(column),
                    Value(-EXACT_INTEGER),
                    Value(EXACT_INTEGER),
                )
            )
            is None
        )


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


def known_without(known: Mapping[str, Known], column: str) -> dict[str, Known]:
    """Return what is noted of a table without one of its columns."""
    return {source: entry for source, entry in known.items() if entry.column != column}


def _renamed(new: NewColumn, name: str) -> NewColumn:
    return NewColumn(name, new.kind)


def _column_of(change: Change) -> str:
    match change:
        case AddColumn(new=new) | RetypeColumn(new=new) | ReplaceColumn(new=new):
            return new.column
        case RelaxColumn(column=column):
            return column
    return ""
