"""Staged rows merged into their table: new ones, those that differ, those that a full refresh no longer has."""

from dataclasses import dataclass
from datetime import UTC, datetime

from ingestion.ports.context import Context
from sinks.relational.connection import Connection
from sinks.relational.diagnosis import Diagnosis, ErrorClass
from sinks.relational.dialect import Merge
from sinks.relational.naming import DELETED_AT, PART_NUMBER, PLACE, RUN, part_of
from sinks.relational.rejecting import Rejections, rejection_of, take_rows
from sinks.relational.schema_plan import Table
from sinks.relational.statements import Name, Sql, Value, sql


@dataclass
class StagedRows:
    """The rows of a run on their way from the staging table into their own, within the open transaction."""

    connection: Connection
    merge: Merge
    rejections: Rejections
    ctx: Context
    is_single_statement: bool = True
    """True as long as one statement may update and insert: the database knows it, and its counters are right."""

    def bring(self) -> tuple[int, int]:
        """Return how many rows were inserted and updated.

        A rejected row counts as not brought, as one does that the contract rejects: a full refresh takes its key out.
        """
        dialect, inserted, updated = self.connection.dialect, 0, 0
        self.connection.execute(*dialect.preparing_merge(self.merge))
        ranges = dialect.ranges(*(self.connection.first(dialect.extent(self.merge.staging)) or (0, 0)))
        if len(ranges) > 1:
            self.connection.execute(*dialect.indexing_staging(self.merge))
        for first, end in ranges:
            self.ctx.beat()
            new, changed = self._bring_range(first, end)
            inserted, updated = inserted + new, updated + changed
        self.ctx.beat()
        return inserted, updated

    def take_out_absent(self, *, now: datetime | None) -> int:
        """Take out the rows of earlier runs whose key is not staged, and return how many; marked with `now`, if given."""
        removed = _take_out(self.connection, self.merge.target, self.connection.dialect.absent(self.merge), now=now)
        self.ctx.beat()
        return removed

    def _bring_range(self, first: int, end: int) -> tuple[int, int]:
        """Return how many rows were inserted and updated; where the whole range fails for a row's sake, it is halved."""
        connection, dialect, staging = self.connection, self.connection.dialect, self.merge.staging
        try:
            with connection.savepoint():
                return self._merge(first, end)
        except connection.driver_errors as error:
            if connection.diagnose(error).error_class is not ErrorClass.ROW:
                raise
        found = connection.rows(dialect.addresses(staging, first, end))
        addresses = sorted(dialect.address_of(answer) for (answer,) in found)

        def attempt(low: int, high: int) -> tuple[int, int]:
            self.ctx.beat()
            with connection.savepoint():
                return self._merge(addresses[low], addresses[high - 1] + 1)

        def reject(index: int, diagnosis: Diagnosis) -> None:
            table, condition = dialect.table(staging), dialect.within("", addresses[index], addresses[index] + 1)
            query = sql("SELECT {}, {} FROM {} WHERE {}", Name(PART_NUMBER), Name(PLACE), table, condition)
            number, place = connection.rows(query)[0]
            self.rejections.add(rejection_of(diagnosis, part=part_of(int(number)), index=int(place)))
            connection.execute(sql("DELETE FROM {} WHERE {}", table, condition))

        taken = take_rows(len(addresses), attempt, connection=connection, reject=reject, is_tried=True)
        counts = list(taken)
        return sum(new for new, _ in counts), sum(changed for _, changed in counts)

    def _merge(self, first: int, end: int) -> tuple[int, int]:
        """Merge the staged rows of a range and return how many were inserted and how many updated.

        The answer of a single statement is one number, so which rows it inserted and which it updated comes from the
        server's own counters. Where these do not add up to it (a trigger writes into the table as well), two statements
        do from then on.
        """
        connection, dialect = self.connection, self.connection.dialect
        merging = dialect.merging(self.merge, first, end) if self.is_single_statement else None
        if merging is not None:
            counters = dialect.counters(self.merge.target)
            before = connection.rows(counters)[0]
            connection.execute(sql("SAVEPOINT headgate_merge"))
            total = connection.execute(merging)
            inserted, updated = (int(new - old) for new, old in zip(connection.rows(counters)[0], before, strict=True))
            if inserted + updated == total:
                connection.execute(sql("RELEASE SAVEPOINT headgate_merge"))
                return inserted, updated
            connection.execute(sql("ROLLBACK TO SAVEPOINT headgate_merge"))
            self.is_single_statement = False
        updated = connection.execute(dialect.updating(self.merge, first, end))
        return connection.execute(dialect.inserting(self.merge, first, end)), updated


def remove_older(connection: Connection, table: Table, *, run_id: int, only_own: bool, now: datetime | None) -> int:
    """Take out all rows of earlier runs, or the run's own alone, and return how many; marked with `now`, if given."""
    condition = sql("{} {} {}", Name(RUN), "=" if only_own else "<", Value(run_id))
    return _take_out(connection, table.name, condition, now=now)


def count_visible(connection: Connection, table: Table, *, run_id: int) -> int:
    """Return how many rows of a run a reader sees."""
    if RUN not in table.actual:
        return 0
    condition = sql("{} = {}", Name(RUN), Value(run_id))
    if table.has_deletions:
        condition = sql("{} AND {} IS NULL", condition, Name(DELETED_AT))
    return connection.number(sql("SELECT count(*) FROM {} WHERE {}", connection.dialect.table(table.name), condition))


def _take_out(connection: Connection, target: str, condition: Sql, *, now: datetime | None) -> int:
    table = connection.dialect.table(target)
    if now is None:
        return connection.execute(sql("DELETE FROM {} WHERE {}", table, condition))
    deleted_at = now.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return connection.execute(
        sql(
            "UPDATE {} SET {} = {} WHERE {} IS NULL AND {}",
            table,
            Name(DELETED_AT),
            Value(deleted_at),
            Name(DELETED_AT),
            condition,
        )
    )
