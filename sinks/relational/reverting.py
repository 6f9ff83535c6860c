"""Changes of columns undone while they can be, and old columns removed once they cannot."""

from dataclasses import replace

from ingestion.ports.errors import ConfigError
from ingestion.ports.housekeeping import SchemaChange
from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.connection import STATEMENT_LIMIT_S
from sinks.relational.delivery_log import AppliedChange, OwnedTable
from sinks.relational.diagnosis import ErrorClass
from sinks.relational.evolution import Evolution, as_change, is_open, mapping_without
from sinks.relational.naming import PREFIX, digest_of
from sinks.relational.schema_plan import MappedColumn, Table
from sinks.relational.statements import Name, sql

_DECIDED = (ErrorClass.ROW, ErrorClass.REJECTED)


def open_changes(evolution: Evolution) -> list[SchemaChange]:
    """Return the changes that can still be reverted, newest first."""
    now = evolution.ctx.clock()
    return [as_change(change) for change in evolution.delivery_log.changes(evolution.table) if is_open(change, now=now)]


def revert_change(evolution: Evolution, change_id: str) -> SchemaChange:
    """Undo an applied change with the data it set aside, and return it; ConfigError where it cannot be any more."""
    connection, delivery_log, ctx = evolution.connection, evolution.delivery_log, evolution.ctx
    with connection.locked(evolution.table, limit_s=STATEMENT_LIMIT_S):
        changes = delivery_log.changes(evolution.table)
        change = next((item for item in changes if item.id == change_id), None)
        if change is None or not is_open(change, now=ctx.clock()):
            raise _not_revertible(evolution, change_id, "it is not known, was reverted, or is too old")
        newer = [item for item in changes[: changes.index(change)] if _is_of_same(item, change) and not item.is_closed]
        if any(is_open(item, now=ctx.clock()) for item in newer):
            raise _not_revertible(evolution, change_id, f"{newer[0].id} came after it and has to be reverted first")
        table = evolution.read()
        try:
            mapped = _undo(evolution, change, table)
        except connection.driver_errors as error:
            diagnosis = connection.diagnose(error)
            if diagnosis.error_class not in _DECIDED:
                raise
            raise _not_revertible(evolution, change_id, diagnosis.message) from error
        owned = OwnedTable(evolution.pipeline, mapped, table.seen_since, table.contract)
        delivery_log.note_table(evolution.table, owned, now=ctx.clock())
        delivery_log.close_change(change.id, now=ctx.clock())
    return replace(as_change(change), revertible_until="")


def remove_old_columns(evolution: Evolution) -> list[str]:
    """Remove the columns whose time aside is over, and return them; one that a view still needs stays."""
    connection, delivery_log = evolution.connection, evolution.delivery_log
    now = evolution.ctx.clock()
    over = [
        change
        for change in delivery_log.changes(evolution.table)
        if change.undo.get("kind") in ("replace", "release") and not change.is_closed and not is_open(change, now=now)
    ]
    removed = []
    for change in over:
        aside = str(change.undo["aside"])
        try:
            with connection.locked(evolution.table):
                table = evolution.read()
                if aside in table.actual:
                    connection.execute(connection.dialect.dropping_column(evolution.table, aside))
                owned = OwnedTable(
                    evolution.pipeline, mapping_without(table.mapped, aside), table.seen_since, table.contract
                )
                delivery_log.note_table(evolution.table, owned, now=now)
                delivery_log.close_change(change.id, now=now)
            removed.append(aside)
        except connection.driver_errors as error:
            diagnosis = connection.diagnose(error)
            if diagnosis.error_class not in (*_DECIDED, ErrorClass.BUSY):
                raise
            detail = diagnosis.message
            evolution.ctx.log("destination.column_kept", table=evolution.table, column=aside, detail=detail)
    return removed


def _undo(evolution: Evolution, change: AppliedChange, table: Table) -> dict[str, MappedColumn]:
    """Undo the change and return what is noted of the table then."""
    connection, dialect, undo = evolution.connection, evolution.dialect, change.undo
    mapped = dict(table.mapped)
    match undo["kind"]:
        case "add":
            column = str(undo["column"])
            if column in table.actual:
                connection.execute(dialect.dropping_column(table.name, column))
            return mapping_without(mapped, column)
        case "release":
            return mapped  # it is not removed any more
        case "relax":
            column_type = str(undo["type"])
            column = str(undo["column"])
            connection.execute(*dialect.requiring(table.name, column, column_type=column_type, is_required=True))
        case "key":
            connection.execute(*evolution.rekeying(undo["new"], undo["old"]))
        case _:
            return _bring_back(evolution, change, table)
    return mapped


def _bring_back(evolution: Evolution, change: AppliedChange, table: Table) -> dict[str, MappedColumn]:
    """Put the column that was set aside back in its place, brought up to date by what was written since."""
    connection, dialect = evolution.connection, evolution.dialect
    column, aside = str(change.undo["column"]), str(change.undo["aside"])
    old_kind, new_kind = Kind(change.undo["old_kind"]), Kind(change.undo["new_kind"])
    if column in table.key:
        raise _not_revertible(evolution, change.id, f"{column} is part of the key by which rows are told apart now")
    if aside not in table.actual or column not in table.actual:
        raise _not_revertible(evolution, change.id, f"the column {aside} is not there any more")
    old, new = sql("{}", Name(aside)), sql("{}", Name(column))
    as_new = dialect.recast(old, old=old_kind, new=new_kind)
    as_old = dialect.recast(new, old=new_kind, new=old_kind)
    update = sql(
        "UPDATE {} SET {} = CASE WHEN {} IS NULL THEN NULL ELSE COALESCE({}, {}) END WHERE {}",
        dialect.table(table.name),
        old,
        new,
        as_old,
        old,
        dialect.differ(as_new, new),
    )
    spare, column_type = f"{PREFIX}old_{digest_of(f'{column} {change.id}')}", table.actual[column].type
    connection.execute(
        *dialect.preparing_parsing(),
        update,
        *dialect.swapping(table.name, column=column, aside=spare, fresh=aside, column_type=column_type),
        dialect.dropping_column(table.name, spare),
    )
    return {
        source: replace(entry, kind=old_kind) if entry.column == column else entry
        for source, entry in table.mapped.items()
    }


def _is_of_same(one: AppliedChange, other: AppliedChange) -> bool:
    return one.column == other.column and one.undo.get("kind") != "create"


def _not_revertible(evolution: Evolution, change_id: str, detail: str) -> ConfigError:
    return ConfigError("sink.schema_not_revertible", table=evolution.table, change=change_id, detail=detail)
