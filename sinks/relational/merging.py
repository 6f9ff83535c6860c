"""Staged rows into their table: what is new, what differs, what a full refresh no longer has."""

from datetime import UTC, datetime

from ingestion.ports.context import Context
from sinks.relational.database import PART_NUMBER, PLACE, Merge, Session
from sinks.relational.loading import beat
from sinks.relational.naming import DELETED_AT, RUN, part_of
from sinks.relational.rejecting import Rejections, refusal_of, take_rows
from sinks.relational.schema_plan import Table
from sinks.relational.statements import Name, Sql, Value, sql
from sinks.relational.troubles import Meaning, Trouble


def merge_staged(
    session: Session,
    merge: Merge,
    *,
    takes_out_absent: bool,
    marks_deletions: bool,
    rejections: Rejections,
    ctx: Context,
) -> tuple[int, int, int]:
    """Return how many rows were inserted, updated and taken out, within the open transaction.

    A refused row counts as not brought, as one does that the contract rejects: a full refresh takes its key out.
    """
    inserted = updated = removed = 0
    session.prepare_merge(merge)
    for first, end in session.ranges(merge.staging):
        beat(ctx)
        new, changed = _merge_range(session, merge, first, end, rejections=rejections, ctx=ctx)
        inserted, updated = inserted + new, updated + changed
    beat(ctx)
    if takes_out_absent:
        removed = _take_out(session, merge.target, session.absent(merge), now=ctx.clock() if marks_deletions else None)
        beat(ctx)
    return inserted, updated, removed


def remove_older(session: Session, table: Table, *, run_id: int, only_own: bool, now: datetime | None) -> int:
    """Take out all rows of earlier runs, or the run's own alone, and return how many; marked with `now`, if given."""
    condition = sql("{} {} {}", Name(RUN), "=" if only_own else "<", Value(run_id))
    return _take_out(session, table.name, condition, now=now)


def count_visible(session: Session, table: Table, *, run_id: int) -> int:
    """Return how many rows of a run a reader sees."""
    if RUN not in table.found:
        return 0
    condition = sql("{} = {}", Name(RUN), Value(run_id))
    if table.has_deletions:
        condition = sql("{} AND {} IS NULL", condition, Name(DELETED_AT))
    return session.count(sql("SELECT count(*) FROM {} WHERE {}", session.table(table.name), condition))


def _merge_range(
    session: Session, merge: Merge, first: int, end: int, *, rejections: Rejections, ctx: Context
) -> tuple[int, int]:
    """Return how many rows were inserted and updated; where the whole range fails for a row's sake, it is halved."""
    try:
        with session.savepoint():
            return session.merge_range(merge, first, end)
    except session.driver_errors as error:
        if session.explain(error).meaning is not Meaning.ROW:
            raise
    addresses = session.addresses(merge.staging, first, end)

    def attempt(low: int, high: int) -> tuple[int, int]:
        beat(ctx)
        with session.savepoint():
            return session.merge_range(merge, addresses[low], addresses[high - 1] + 1)

    def refuse(index: int, trouble: Trouble) -> None:
        condition = session.within("", addresses[index], addresses[index] + 1)
        staging = session.table(merge.staging)
        found = session.rows(sql("SELECT {}, {} FROM {} WHERE {}", Name(PART_NUMBER), Name(PLACE), staging, condition))
        number, place = found[0]
        rejections.add(refusal_of(trouble, part=part_of(int(number)), index=int(place)))
        session.execute(sql("DELETE FROM {} WHERE {}", staging, condition))

    pairs = list(
        take_rows(
            len(addresses),
            attempt,
            errors=session.driver_errors,
            explain=session.explain,
            refuse=refuse,
            is_tried=True,
        )
    )
    return sum(new for new, _ in pairs), sum(changed for _, changed in pairs)


def _take_out(session: Session, target: str, condition: Sql, *, now: datetime | None) -> int:
    table = session.table(target)
    if now is None:
        return session.execute(sql("DELETE FROM {} WHERE {}", table, condition))
    moment = now.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return session.execute(
        sql(
            "UPDATE {} SET {} = {} WHERE {} IS NULL AND {}",
            table,
            Name(DELETED_AT),
            Value(moment),
            Name(DELETED_AT),
            condition,
        )
    )
