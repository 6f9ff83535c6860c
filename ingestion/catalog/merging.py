"""Merging the staged rows of a publication into what is visible, in bounded batches that can be repeated."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import F, QuerySet

from ingestion.catalog.batches import batch_transaction, delete_rows, end_batch, id_ranges
from ingestion.catalog.writing import BatchSize
from ingestion.models import CatalogPublication, CatalogRecord, CatalogState
from ingestion.ports.errors import LeaseLost
from ingestion.ports.publication import WriteMode
from ingestion.ports.schema import ContractBody


@dataclass(frozen=True, slots=True)
class Plan:
    """The treatment of a publication's staged rows and of the visible ones; stays the same while it is open."""

    drops_all: bool = False
    """A newer run has replaced everything already: nothing of this one may be seen."""
    merges: bool = False
    """Staged rows meet the visible ones of the same key."""
    keeps_equal: bool = True
    """A visible row that equals the staged one stays, and the staged one goes."""
    retires_rest: bool = False
    """The visible rows of older runs are retired one by one, since rows of newer runs must stay among them."""
    moves_floor: bool = False
    """Everything before this run's rows disappears at the flip, at no cost."""


def plan_merge(
    publication: CatalogPublication, state: CatalogState, *, mode: WriteMode, contract: ContractBody
) -> Plan:
    """Return how the publication joins what is visible.

    The usual cases are few: MERGE with a key meets rows by key, APPEND keeps all, REPLACE (and MERGE without a key)
    moves the floor. A run that comes after a newer one has published never takes precedence over it.
    """
    published = CatalogPublication.objects.filter(
        pipeline=publication.pipeline_id, state=CatalogPublication.State.PUBLISHED
    )
    newer = published.filter(run_id__gt=publication.run_id)
    if newer.filter(number=state.floor).exists():
        return Plan(drops_all=True)
    if mode == WriteMode.APPEND:
        return Plan()
    if mode == WriteMode.MERGE and contract.key:
        return Plan(merges=True)
    if newer.filter(number__gte=state.floor).exists():
        return Plan(merges=bool(contract.key), keeps_equal=False, retires_rest=True)
    return Plan(moves_floor=True)


def merge(publication: CatalogPublication, state: CatalogState, *, plan: Plan, beat: Callable[[], None]) -> None:
    """Carry out the plan up to the flip; repeated after any interruption it goes on where it stopped."""
    if plan.drops_all:
        delete_rows(staged_rows(publication), beat=beat)
    if plan.merges:
        batch_size = BatchSize()
        while _merge_batch(publication, state, plan=plan, batch_size=batch_size):
            end_batch(beat)
    if plan.retires_rest:
        _retire_older(publication, state, beat=beat)


def staged_rows(publication: CatalogPublication) -> QuerySet[CatalogRecord]:
    """Return the publication's rows."""
    return CatalogRecord.objects.filter(
        pipeline=publication.pipeline_id, id__gt=publication.after_id, publication=publication.number
    )


def lock_open(publication_id: int) -> CatalogPublication:
    """Return the publication as it is now, its row locked; LeaseLost where it is not open any more."""
    publication = CatalogPublication.objects.select_for_update().get(pk=publication_id)
    if publication.state != CatalogPublication.State.OPEN:
        raise LeaseLost
    return publication


class KeyMatch(NamedTuple):
    """A staged row and a row of the same key that is there already, or None."""

    staged_id: int
    present_id: int | None
    present_publication: int | None
    present_run_id: int | None
    is_equal: bool | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The rows that a batch retires and drops, and its counts."""

    retired: frozenset[int]
    dropped: frozenset[int]
    inserted: int
    updated: int


def decide(matches: Iterable[KeyMatch], *, run_id: int, number: int, keeps_equal: bool) -> Decision:
    """Return what becomes of a batch's staged rows. Pure.

    A staged row goes where a newer run's row, an equal row or an earlier staged row holds its key; else it retires
    every row that does. Counts are of staged rows.
    """
    retired: set[int] = set()
    dropped: set[int] = set()
    present: dict[int, list[int]] = {}
    for match in matches:
        rivals = present.setdefault(match.staged_id, [])
        if match.present_id is None:
            continue
        is_newer = match.present_run_id is not None and match.present_run_id > run_id
        if is_newer or match.present_publication == number or (keeps_equal and match.is_equal):
            dropped.add(match.staged_id)
        else:
            rivals.append(match.present_id)
    updated = 0
    for staged_id, rivals in present.items():
        if staged_id not in dropped and rivals:
            retired.update(rivals)
            updated += 1
    return Decision(
        retired=frozenset(retired),
        dropped=frozenset(dropped),
        inserted=len(present) - len(dropped) - updated,
        updated=updated,
    )


# Rows of one key are few, so the join reads them all through the index by key, whichever version they are.
_MATCHES = """
    SELECT s.id, o.id, o.publication, o.run_id, o.record_hash = s.record_hash
    FROM (
        SELECT id, pipeline_id, key_hash, record_hash FROM {table}
        WHERE pipeline_id = %(pipeline)s AND id > %(after)s AND publication = %(number)s
        ORDER BY id LIMIT %(limit)s
    ) s
    LEFT JOIN {table} o ON o.pipeline_id = s.pipeline_id AND o.key_hash = s.key_hash AND o.retired_by IS NULL
        AND o.id < s.id AND o.publication >= %(floor)s
        AND (o.publication <= %(current)s OR o.publication = %(number)s)
"""


def _merge_batch(publication: CatalogPublication, state: CatalogState, *, plan: Plan, batch_size: BatchSize) -> bool:
    """Merge the next batch in one transaction and return whether there was one."""
    with batch_size.timed(batch_size.rows), batch_transaction():
        current = lock_open(publication.pk)
        matches = _next_matches(current, state, limit=batch_size.rows)
        if not matches:
            return False
        decision = decide(matches, run_id=current.run_id, number=current.number, keeps_equal=plan.keeps_equal)
        _write(decision, number=current.number)
        CatalogPublication.objects.filter(pk=current.pk).update(
            merged_up_to=max(match.staged_id for match in matches),
            inserted=F("inserted") + decision.inserted,
            updated=F("updated") + decision.updated,
            unchanged=F("unchanged") + len(decision.dropped),
        )
    return True


def _write(decision: Decision, *, number: int) -> None:
    """Retire and drop the rows; their ids travel as one value, since thousands of them take long to parse and plan."""
    if connection.vendor == "postgresql":
        among: str = "id = ANY(%s)"
        pack: Callable[[Iterable[int]], Any] = list
    else:
        among, pack = "id IN (SELECT value FROM json_each(%s))", _json_list
    with connection.cursor() as cursor:
        if decision.retired:
            cursor.execute(f"UPDATE {_table()} SET retired_by = %s WHERE {among}", [number, pack(decision.retired)])  # noqa: S608
        if decision.dropped:
            cursor.execute(f"DELETE FROM {_table()} WHERE {among}", [pack(decision.dropped)])  # noqa: S608


def _json_list(ids: Iterable[int]) -> str:
    return json.dumps(list(ids))


def _table() -> str:
    return str(connection.ops.quote_name(CatalogRecord._meta.db_table))


def _next_matches(publication: CatalogPublication, state: CatalogState, *, limit: int) -> list[KeyMatch]:
    query = _MATCHES.format(table=_table())
    values = {
        "pipeline": publication.pipeline_id,
        "after": max(publication.merged_up_to, publication.after_id),
        "number": publication.number,
        "limit": limit,
        "floor": state.floor,
        "current": state.current,
    }
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return [KeyMatch(*row) for row in cursor.fetchall()]


def _retire_older(publication: CatalogPublication, state: CatalogState, *, beat: Callable[[], None]) -> None:
    visible = CatalogRecord.objects.filter(
        pipeline=publication.pipeline_id,
        id__gt=state.floor_id,
        id__lte=publication.after_id,
        retired_by__isnull=True,
        run_id__lt=publication.run_id,
    )
    batch_size = BatchSize()
    for batch, row_count in id_ranges(visible, batch_size=batch_size):
        with batch_size.timed(row_count), batch_transaction():
            lock_open(publication.pk)
            batch.update(retired_by=publication.number)
        end_batch(beat)
