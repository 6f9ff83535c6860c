"""Changes of columns undone while they can be, and old columns removed once they cannot."""

from dataclasses import replace

from ingestion.ports.errors import ConfigError
from ingestion.ports.housekeeping import SchemaChange
from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.database import STATEMENT_LIMIT_S
from sinks.relational.delivery_log import AppliedChange
from sinks.relational.evolution import Evolution, as_change, is_open, known_without
from sinks.relational.naming import PREFIX, digest_of
from sinks.relational.schema_plan import Known, Table
from sinks.relational.statements import Name, Sql, sql
from sinks.relational.troubles import Meaning

_DECIDED = (Meaning.ROW, Meaning.REJECTED)


def open_changes(evolution: Evolution) -> list[SchemaChange]:
    """Return the changes that can still be reverted, newest first."""
    now = evolution.ctx.clock()
    return [as_change(change) for change in evolution.books.changes(evolution.table) if is_open(change, now=now)]


def revert_change(evolution: Evolution, change_id: str) -> SchemaChange:
    """Undo an applied change with the data it set aside, and return it; ConfigError where it cannot be any more."""
    session, books, ctx = evolution.session, evolution.books, evolution.ctx
    with session.locked(evolution.table, limit_s=STATEMENT_LIMIT_S):
        changes = books.changes(evolution.table)
        change = next((item for item in changes if item.id == change_id), None)
        if change is None or not is_open(change, now=ctx.clock()):
            raise _refused(evolution, change_id, "it is not known, was reverted, or is too old")
        newer = [item for item in changes[: changes.index(change)] if _is_of_same(item, change) and not item.is_closed]
        if any(is_open(item, now=ctx.clock()) for item in newer):
            raise _refused(evolution, change_id, f"{newer[0].id} came after it and has to be reverted first")
        table = evolution.read()
        try:
            known = _undo(evolution, change, table)
        except session.driver_errors as error:
            trouble = session.explain(error)
            if trouble.meaning not in _DECIDED:
                raise
            raise _refused(evolution, change_id, trouble.message) from error
        books.note_table(evolution.table, pipeline=evolution.pipeline, known=known, now=ctx.clock())
        books.close_change(change.id, now=ctx.clock())
    return replace(as_change(change), revertible_until="")


def remove_old_columns(evolution: Evolution) -> list[str]:
    """Remove the columns whose time aside is over, and return them; one that a view still needs stays."""
    session, books = evolution.session, evolution.books
    now = evolution.ctx.clock()
    over = [
        change
        for change in books.changes(evolution.table)
        if change.undo.get("kind") == "replace" and not change.is_closed and not is_open(change, now=now)
    ]
    removed = []
    for change in over:
        aside = str(change.undo["aside"])
        try:
            with session.locked(evolution.table):
                if aside in session.describe(evolution.table):
                    _run(evolution, session.dropping_column(evolution.table, aside))
                books.close_change(change.id, now=now)
            removed.append(aside)
        except session.driver_errors as error:
            trouble = session.explain(error)
            if trouble.meaning not in (*_DECIDED, Meaning.BUSY):
                raise
            detail = trouble.message
            evolution.ctx.log("destination.column_kept", table=evolution.table, column=aside, detail=detail)
    return removed


def _undo(evolution: Evolution, change: AppliedChange, table: Table) -> dict[str, Known]:
    """Undo the change and return what is noted of the table then."""
    session, undo = evolution.session, change.undo
    known = dict(table.known)
    match undo["kind"]:
        case "add":
            column = str(undo["column"])
            if column in table.found:
                _run(evolution, session.dropping_column(table.name, column))
            return known_without(known, column)
        case "relax":
            column_type = str(undo["type"])
            _run(evolution, session.tightening(table.name, str(undo["column"]), column_type=column_type))
        case "key":
            _run(evolution, session.rekeying(table.name, old=tuple(undo["new"]), new=tuple(undo["old"])))
        case _:
            return _bring_back(evolution, change, table)
    return known


def _bring_back(evolution: Evolution, change: AppliedChange, table: Table) -> dict[str, Known]:
    """Put the column that was set aside back in its place, brought up to date by what was written since."""
    session = evolution.session
    column, aside = str(change.undo["column"]), str(change.undo["aside"])
    old_kind, new_kind = Kind(change.undo["old_kind"]), Kind(change.undo["new_kind"])
    if column in table.key:
        raise _refused(evolution, change.id, f"{column} is part of the key by which rows are told apart now")
    if aside not in table.found or column not in table.found:
        raise _refused(evolution, change.id, f"the column {aside} is not there any more")
    session.prepare_parsing()
    old, new = sql("{}", Name(aside)), sql("{}", Name(column))
    as_new = session.recast(old, old=old_kind, new=new_kind)
    as_old = session.recast(new, old=new_kind, new=old_kind)
    session.execute(
        sql(
            "UPDATE {} SET {} = CASE WHEN {} IS NULL THEN NULL ELSE COALESCE({}, {}) END WHERE {}",
            session.table(table.name),
            old,
            new,
            as_old,
            old,
            session.differ(as_new, new),
        )
    )
    spare = f"{PREFIX}old_{digest_of(f'{column} {change.id}')}"
    _run(evolution, session.swapping(table.name, column=column, aside=spare, fresh=aside))
    _run(evolution, session.dropping_column(table.name, spare))
    return {
        source: replace(entry, kind=old_kind) if entry.column == column else entry
        for source, entry in table.known.items()
    }


def _is_of_same(one: AppliedChange, other: AppliedChange) -> bool:
    return one.column == other.column and one.undo.get("kind") != "create"


def _run(evolution: Evolution, statements: list[Sql]) -> None:
    for statement in statements:
        evolution.session.execute(statement)


def _refused(evolution: Evolution, change_id: str, detail: str) -> ConfigError:
    return ConfigError("sink.schema_not_revertible", table=evolution.table, change=change_id, detail=detail)
