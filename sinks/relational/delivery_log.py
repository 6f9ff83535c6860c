"""The delivery log: our own tables beside those of the pipelines, of what was delivered, staged and changed.

headgate_tables          which pipeline a table belongs to, and where each column of its data lies
headgate_deliveries      one row a delivered run, written in the transaction that made its rows visible
headgate_parts           the parts that are staged; lost together with the staged rows where a server crashes
headgate_schema_changes  what was changed in which table, and how to undo it
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from ingestion.ports.publication import PartView, Receipt, Rejection, WriteMode
from ingestion.ports.schema import ContractBody
from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.connection import Connection
from sinks.relational.inspection import describe
from sinks.relational.naming import digest_of
from sinks.relational.schema_plan import MappedColumn
from sinks.relational.statements import Name, Sql, Value, joined, names, sql

TABLES, DELIVERIES = "headgate_tables", "headgate_deliveries"
PARTS, CHANGES = "headgate_parts", "headgate_schema_changes"
PartId: TypeAlias = tuple[str, str]
"""Name and SHA-256 of a part: one that was written anew under its old name is another."""

_COLUMNS: Mapping[str, Mapping[str, str]] = {
    TABLES: {"table_name": "name", "pipeline": "name", "columns": "text", "created_at": "time"},
    DELIVERIES: {
        **{"table_name": "name", "run_id": "integer", "delivery_id": "integer", "pipeline": "name", "mode": "name"},
        **{"row_count": "integer", "inserted": "integer", "updated": "integer", "unchanged": "integer"},
        **{"refused": "integer", "removed": "integer", "refusals": "text", "parts": "text", "committed_at": "time"},
    },
    PARTS: {
        **{"staging": "name", "part": "name", "sha256": "name"},
        **{"columns": "text", "refusals": "text"},
    },
    CHANGES: {
        **{"id": "name", "table_name": "name", "column_name": "text", "what": "text", "statement": "text"},
        **{"undo": "text", "applied_at": "time", "revertible_until": "time", "closed_at": "time"},
    },
}
_KEYS = {
    TABLES: ("table_name",),
    DELIVERIES: ("table_name", "run_id"),
    PARTS: ("staging", "part"),
    CHANGES: ("id",),
}


@dataclass(frozen=True, slots=True)
class OwnedTable:
    """A table of ours: whose it is, where its columns lie, and the contract through which its rows are seen.

    `seen_since` is the run that brought that contract; None where nobody noted it.
    """

    pipeline: str
    mapped: Mapping[str, MappedColumn]
    seen_since: int | None = None
    contract: ContractBody | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The rows that a run brought, as noted when they became visible."""

    run_id: int
    mode: WriteMode
    parts: frozenset[PartId]
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class StagedPart:
    """A part whose rows wait; `columns` are those of its data, by their names there."""

    name: str
    sha256: str
    columns: tuple[str, ...]
    rejections: tuple[Rejection, ...] = ()


@dataclass(frozen=True, slots=True)
class AppliedChange:
    """A change that was made in a table, open to be undone until it is closed."""

    id: str
    column: str
    what: str
    statement: str
    undo: Mapping[str, Any] = field(default_factory=dict)
    revertible_until: datetime | None = None
    is_closed: bool = False


class DeliveryLog:
    """Reads and writes our own tables over an open connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._exists = False

    def create(self) -> None:
        """Make the tables where they are missing."""
        if self.exists():
            return
        with self._connection.locked("headgate"):
            for table, columns in _COLUMNS.items():
                if not describe(self._connection, table):
                    creating = self._connection.dialect.creating_own
                    statement = creating(table, columns, key=_KEYS[table], is_volatile=table == PARTS)
                    self._connection.execute(statement)

    def exists(self) -> bool:
        """Return whether anything was ever delivered here."""
        # The last one that is made. What was seen once is not asked for again: nobody takes it away under us.
        self._exists = self._exists or bool(describe(self._connection, CHANGES))
        return self._exists

    # --- tables

    def owned(self, table: str) -> OwnedTable | None:
        """Return what is noted of a table, or None where it is none of ours."""
        found = self._connection.first(self._select(TABLES, ("pipeline", "columns"), table_name=table))
        if found is None:
            return None
        noted = json.loads(found[1])
        # Earlier versions noted the columns alone.
        view, columns = noted if isinstance(noted, list) else (None, noted)
        mapped = {
            source: MappedColumn(**{**values, "kind": Kind(values["kind"])}) for source, values in columns.items()
        }
        seen_since, contract = view or (None, None)
        return OwnedTable(
            str(found[0]), mapped, seen_since, ContractBody.model_validate(contract) if contract else None
        )

    def tables_of(self, pipeline: str) -> list[str]:
        """Return the tables of a pipeline."""
        return [
            str(name) for (name,) in self._connection.rows(self._select(TABLES, ("table_name",), pipeline=pipeline))
        ]

    def note_table(self, table: str, owned: OwnedTable, *, now: datetime) -> None:
        """Note whose table it is, where its columns lie, and through which contract its rows are seen."""
        columns = {source: asdict(entry) for source, entry in owned.mapped.items()}
        contract = owned.contract.model_dump(mode="json", exclude_defaults=True) if owned.contract else None
        text = json.dumps([[owned.seen_since, contract], columns], ensure_ascii=False)
        if self._connection.first(self._select(TABLES, ("pipeline",), table_name=table)) is None:
            self._insert(TABLES, table_name=table, pipeline=owned.pipeline, columns=text, created_at=_stored(now))
        else:
            self._update(TABLES, {"columns": text}, table_name=table)

    def forget_table(self, table: str) -> None:
        """Forget a table with all that was noted of it."""
        for own in (CHANGES, DELIVERIES, TABLES):
            self._delete(own, table_name=table)

    # --- deliveries

    def delivered(self, table: str, run_id: int) -> Delivered | None:
        """Return what the run brought into the table, or None where it has not yet."""
        columns = ("mode", "parts", "inserted", "updated", "unchanged", "refused", "refusals")
        found = self._connection.first(self._select(DELIVERIES, columns, table_name=table, run_id=run_id))
        if found is None:
            return None
        mode, parts, inserted, updated, unchanged, rejected, rejections = found
        receipt = Receipt(int(inserted), int(updated), int(unchanged), int(rejected), _rejections(rejections))
        return Delivered(
            run_id, WriteMode(mode), frozenset((name, sha256) for name, sha256 in json.loads(parts)), receipt
        )

    def runs(self, table: str, *, after: int = 0) -> list[int]:
        """Return the runs that the table has rows of: those since the newest that replaced the whole of it, in order.

        With `after` those alone that are later than this run.
        """
        if not self.exists():
            return []
        query = sql(
            "SELECT run_id FROM {} WHERE table_name = {} AND run_id > {} AND run_id >= COALESCE(({}), 0) ORDER BY run_id",
            self._connection.dialect.table(DELIVERIES),
            Value(table),
            Value(after),
            self._newest_refresh(table),
        )
        return [int(run_id) for (run_id,) in self._connection.rows(query)]

    def newest_refresh(self, table: str) -> int | None:
        """Return the newest run that replaced the whole of the table, or None."""
        found = self._connection.first(self._newest_refresh(table))
        return None if found is None or found[0] is None else int(found[0])

    def _newest_refresh(self, table: str) -> Sql:
        return sql(
            "SELECT MAX(run_id) FROM {} WHERE table_name = {} AND mode = {}",
            self._connection.dialect.table(DELIVERIES),
            Value(table),
            Value(WriteMode.REPLACE.value),
        )

    def note_delivery(
        self,
        table: str,
        *,
        run_id: int,
        delivery_id: int,
        pipeline: str,
        mode: WriteMode,
        parts: Sequence[PartView],
        receipt: Receipt,
        removed: int,
        now: datetime,
    ) -> None:
        """Note what a run brought; what it brought before is forgotten."""
        self._delete(DELIVERIES, table_name=table, run_id=run_id)
        self._insert(
            DELIVERIES,
            table_name=table,
            run_id=run_id,
            delivery_id=delivery_id,
            pipeline=pipeline,
            mode=mode.value,
            row_count=sum(part.rows for part in parts),
            inserted=receipt.inserted,
            updated=receipt.updated,
            unchanged=receipt.unchanged,
            refused=receipt.rejected,
            removed=removed,
            refusals=_rejections_text(receipt.rejections),
            parts=json.dumps([part_id(part) for part in parts]),
            committed_at=_stored(now),
        )

    def forget_deliveries(self, table: str) -> None:
        """Forget what runs brought: their rows are gone with the table."""
        self._delete(DELIVERIES, table_name=table)

    # --- staged parts

    def staged(self, staging: str) -> dict[PartId, StagedPart]:
        """Return the parts that wait in a staging table."""
        columns = ("part", "sha256", "columns", "refusals")
        return {
            (str(name), str(sha256)): StagedPart(
                str(name), str(sha256), tuple(json.loads(found)), _rejections(rejections)
            )
            for name, sha256, found, rejections in self._connection.rows(self._select(PARTS, columns, staging=staging))
        }

    def note_part(self, staging: str, part: StagedPart) -> None:
        """Note a staged part; two that stage the same one at once wait for each other here, and one of them fails."""
        self._insert(
            PARTS,
            staging=staging,
            part=part.name,
            sha256=part.sha256,
            columns=json.dumps(part.columns, ensure_ascii=False),
            refusals="[]",
        )

    def note_rejections(self, staging: str, part: str, rejections: Sequence[Rejection]) -> None:
        """Note which rows of a staged part were rejected."""
        self._update(PARTS, {"refusals": _rejections_text(rejections)}, staging=staging, part=part)

    def forget_parts(self, staging: str, *, part: str | None = None) -> None:
        """Forget what is staged, or one part of it."""
        self._delete(PARTS, staging=staging, **({} if part is None else {"part": part}))

    # --- changes

    def note_change(self, table: str, change: AppliedChange, *, now: datetime) -> None:
        """Note a change under its id."""
        self._insert(
            CHANGES,
            id=change.id,
            table_name=table,
            column_name=change.column,
            what=change.what,
            statement=change.statement,
            undo=json.dumps(dict(change.undo), ensure_ascii=False),
            applied_at=_stored(now),
            revertible_until=None if change.revertible_until is None else _stored(change.revertible_until),
            closed_at=None,
        )

    def changes(self, table: str) -> list[AppliedChange]:
        """Return every change of a table, newest first."""
        columns = ("id", "column_name", "what", "statement", "undo", "revertible_until", "closed_at")
        found = [
            AppliedChange(
                str(change_id), column or "", what, statement, json.loads(undo), _timestamp(until), closed is not None
            )
            for change_id, column, what, statement, undo, until, closed in self._connection.rows(
                self._select(CHANGES, columns, table_name=table)
            )
        ]
        return sorted(found, key=lambda change: _number_of(change.id), reverse=True)

    def next_change_id(self, table: str) -> str:
        """Return an id that no change of the table has."""
        numbers = [_number_of(change.id) for change in self.changes(table)]
        return f"{digest_of(table)}-{max(numbers, default=0) + 1}"

    def close_change(self, change_id: str, *, now: datetime) -> None:
        """Note that a change was undone, or can be no more."""
        self._update(CHANGES, {"closed_at": _stored(now)}, id=change_id)

    # --- statements

    def _select(self, table: str, columns: Iterable[str], **where: Any) -> Sql:
        return sql("SELECT {} FROM {} WHERE {}", names(columns), self._connection.dialect.table(table), _equal(where))

    def _insert(self, table: str, **values: Any) -> None:
        marks = joined(", ", (Value(value) for value in values.values()))
        self._connection.execute(
            sql("INSERT INTO {} ({}) VALUES ({})", self._connection.dialect.table(table), names(values), marks)
        )

    def _update(self, table: str, changes: Mapping[str, Any], **where: Any) -> None:
        settings = joined(", ", (sql("{} = {}", Name(name), Value(value)) for name, value in changes.items()))
        self._connection.execute(
            sql("UPDATE {} SET {} WHERE {}", self._connection.dialect.table(table), settings, _equal(where))
        )

    def _delete(self, table: str, **where: Any) -> None:
        self._connection.execute(sql("DELETE FROM {} WHERE {}", self._connection.dialect.table(table), _equal(where)))


def part_id(part: PartView) -> PartId:
    """Return what tells a part from others of its run."""
    return part.name, part.sha256


def _equal(where: Mapping[str, Any]) -> Sql:
    return joined(" AND ", (sql("{} = {}", Name(name), Value(value)) for name, value in where.items()))


def _rejections(text: str) -> tuple[Rejection, ...]:
    return tuple(Rejection(*fields) for fields in json.loads(text))


def _rejections_text(rejections: Iterable[Rejection]) -> str:
    return json.dumps([[row.part, row.index, row.rule, row.message, row.column] for row in rejections])


def _number_of(change_id: str) -> int:
    return int(change_id.rpartition("-")[2])


def _stored(timestamp: datetime) -> str:
    """Return a time as every database takes it: UTC, without saying so."""
    return timestamp.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _timestamp(stored: Any) -> datetime | None:
    if stored is None:
        return None
    stored_at = datetime.fromisoformat(stored) if isinstance(stored, str) else stored
    return stored_at if stored_at.tzinfo else stored_at.replace(tzinfo=UTC)
