"""The published records in our own database: staged unseen, merged by key, shown by one small update."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import F, Max, Min, QuerySet, Sum

from ingestion.catalog.batches import batch_transaction, delete_rows, end_batch, id_ranges, roomy_cache
from ingestion.catalog.merging import Plan, lock_open, merge, plan_merge, staged_rows
from ingestion.catalog.writing import BatchSize, copy_rows, insert_rows
from ingestion.models import (
    TERMINAL_RUN_STATES,
    CatalogPart,
    CatalogPublication,
    CatalogRecord,
    CatalogState,
    Run,
    RunState,
)
from ingestion.ports.errors import Cancelled, LeaseLost, SinkRejected, SinkUnavailable
from ingestion.ports.publication import DeliveryView, PartView, Receipt
from ingestion.toolkit.failpoints import failpoint

if TYPE_CHECKING:
    import polars as pl

STATES = CatalogPublication.State
UNFINISHED = (STATES.OPEN, STATES.ABORTING)
WITHDRAWN_RUN_STATES = frozenset({RunState.CANCELLED, RunState.FAILED})
BUSY_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class DatabaseCatalog:
    """The `CatalogStore` of ports/context.py on our own database, PostgreSQL or SQLite.

    Counts: MERGE with a key counts what the rows met (inserted, updated, unchanged). APPEND and REPLACE, and MERGE
    without a key, make every accepted row this run's row, so all are `inserted`. A row that may not be shown since
    a newer run's row holds its place counts as unchanged. So inserted + updated is what `count` returns.

    Between two batches `beat` is called, whose signal stops the work. The next call
    goes on with a merge or a removal where this one stopped; a part that is not loaded whole is loaded anew.
    """

    beat: Callable[[], None] = field(default=lambda: None)

    def stage(self, part: PartView, delivery: DeliveryView, *, open_part: Callable[[], BinaryIO]) -> Receipt:
        """Load the part's rows where no reader sees them yet; a part that is loaded already is left as it is.

        SinkUnavailable while another run of the pipeline that has not ended is on its way into the catalog; Cancelled where the run
        was cancelled or has failed; LeaseLost where another worker took the part over meanwhile.
        """
        with _outages_named(delivery), roomy_cache():
            self._clear_the_way(delivery)
            loading = _claim_part(part, delivery)
            if not loading.is_complete:
                self._load(part, delivery, loading, open_part=open_part)
        return Receipt(inserted=part.rows)

    def commit(self, delivery: DeliveryView) -> Receipt:
        """Merge the staged rows and show them at once; a second call returns the counts of the first.

        The merge is a row of short transactions and goes on where an earlier call stopped. A reader sees the state
        before it until the last, small one. Cancelled where the run was cancelled or has failed meanwhile.
        """
        with _outages_named(delivery), roomy_cache():
            self._clear_the_way(delivery)
            publication = _publication_to_commit(delivery)
            if publication is not None:
                state = CatalogState.objects.get(pk=delivery.pipeline_id)
                plan = plan_merge(publication, state, mode=delivery.mode, contract=delivery.contract)
                try:
                    merge(publication, state, plan=plan, beat=self.beat)
                    failpoint("catalog.before_flip")
                    _flip(publication, plan=plan)
                except LeaseLost:
                    if not _published(delivery).filter(pk=publication.pk).exists():
                        raise
                failpoint("catalog.after_flip")
            return _receipt(delivery)

    def count(self, delivery: DeliveryView) -> int:
        """Return the rows of this run that its publications made visible.

        A row that a later publication retired still counts as delivered, until it is collected as garbage.
        """
        with _outages_named(delivery):
            return sum(staged_rows(published).count() for published in _published(delivery))

    def abort(self, delivery: DeliveryView) -> None:
        """Remove what was staged and never became visible, and let the next run in."""
        with _outages_named(delivery):
            self._abort(delivery.run_id)

    def _abort(self, run_id: int) -> None:
        publication = _begin_abort(run_id)
        if publication is None:
            return
        self._restore_retired(publication)
        delete_rows(staged_rows(publication), beat=self.beat)
        CatalogPublication.objects.filter(pk=publication.pk, state=STATES.ABORTING).update(
            state=STATES.ABORTED, inserted=0, updated=0, unchanged=0
        )

    def _clear_the_way(self, delivery: DeliveryView) -> None:
        """Remove what another run of the pipeline staged that has ended without publishing it.

        Else it would keep all later runs out for ever; a retry of that run stages its parts again.
        """
        ended = CatalogPublication.objects.filter(
            pipeline=delivery.pipeline_id, state__in=UNFINISHED, run__state__in=TERMINAL_RUN_STATES
        )
        for run_id in ended.exclude(run=delivery.run_id).values_list("run_id", flat=True):
            self._abort(run_id)

    def _load(
        self, part: PartView, delivery: DeliveryView, loading: CatalogPart, *, open_part: Callable[[], BinaryIO]
    ) -> None:
        from ingestion.catalog.rows import read_rows  # noqa: PLC0415 - polars, only where a part is loaded

        publication = loading.publication
        if loading.generation > 1:
            delete_rows(staged_rows(publication).filter(part=loading.name), beat=self.beat)
        batch_size = BatchSize()
        row_count = 0
        with open_part() as source:
            logical_time = _timestamp(delivery.logical_time)
            for frame in read_rows(source, part, contract=delivery.contract, logical_time=logical_time):
                rows = _with_place(frame, loading)
                while rows.height:
                    batch, rows = rows.head(batch_size.rows), rows.slice(batch_size.rows)
                    with batch_size.timed(batch.height):
                        _write_batch(batch, loading)
                    row_count += batch.height
                    end_batch(self.beat)
        if not _held(loading).update(row_count=row_count, is_complete=True):
            raise LeaseLost

    def _restore_retired(self, publication: CatalogPublication) -> None:
        retired = CatalogRecord.objects.filter(
            pipeline=publication.pipeline_id, retired_by__isnull=False, retired_by=publication.number
        )
        batch_size = BatchSize()
        for batch, row_count in id_ranges(retired, batch_size=batch_size):
            with batch_size.timed(row_count), batch_transaction():
                batch.update(retired_by=None)
            end_batch(self.beat)


@contextmanager
def _outages_named(delivery: DeliveryView) -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise SinkUnavailable("sink.unavailable", destination=delivery.destination, detail=detail) from error


def _timestamp(text: str) -> datetime:
    timestamp = datetime.fromisoformat(text)
    return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)


def _lock_run(run_id: int) -> bool:
    """Lock the run's row, so that a cancel comes before this transaction or after it; return whether none has come."""
    state = Run.objects.select_for_update().values_list("state", flat=True).get(pk=run_id)
    return state not in WITHDRAWN_RUN_STATES


def _claim_part(part: PartView, delivery: DeliveryView) -> CatalogPart:
    """Return the part as ours to load, under the next generation; or complete, where it is loaded already."""
    with transaction.atomic():
        if not _lock_run(delivery.run_id):
            raise Cancelled
        loaded = CatalogPart.objects.filter(
            publication__run=delivery.run_id,
            publication__state__in=(STATES.OPEN, STATES.PUBLISHED),
            name=part.name,
            is_complete=True,
        ).first()
        if loaded is not None:
            return loaded
        publication = _open_publication(delivery)
        CatalogPart.objects.get_or_create(publication=publication, name=part.name)
        CatalogPart.objects.filter(publication=publication, name=part.name).update(
            generation=F("generation") + 1, row_count=0
        )
        return CatalogPart.objects.select_related("publication").get(publication=publication, name=part.name)


def _open_publication(delivery: DeliveryView) -> CatalogPublication:
    """Return the run's open publication, a new one where it has none. Called in a transaction."""
    CatalogState.objects.get_or_create(pipeline_id=delivery.pipeline_id)
    state = CatalogState.objects.select_for_update().get(pk=delivery.pipeline_id)
    unfinished = CatalogPublication.objects.filter(pipeline=delivery.pipeline_id, state__in=UNFINISHED)
    publication = unfinished.select_for_update().first()
    if publication is None:
        after_id = CatalogRecord.objects.aggregate(last=Max("id"))["last"] or 0
        state.last_number += 1
        state.save(update_fields=["last_number"])
        return CatalogPublication.objects.create(
            pipeline_id=delivery.pipeline_id,
            run_id=delivery.run_id,
            number=state.last_number,
            after_id=after_id,
            merged_up_to=after_id,
        )
    if publication.run_id != delivery.run_id or publication.state != STATES.OPEN:
        raise SinkUnavailable("sink.busy", destination=delivery.destination, retry_after_s=BUSY_RETRY_S)
    return publication


def _held(loading: CatalogPart) -> QuerySet[CatalogPart]:
    return CatalogPart.objects.filter(pk=loading.pk, generation=loading.generation, is_complete=False)


def _with_place(frame: "pl.DataFrame", loading: CatalogPart) -> "pl.DataFrame":
    import polars as pl  # noqa: PLC0415 - heavy

    publication = loading.publication
    return frame.with_columns(
        pl.lit(publication.pipeline_id, pl.Int64).alias("pipeline_id"),
        pl.lit(publication.number, pl.Int64).alias("publication"),
        pl.lit(publication.run_id, pl.Int64).alias("run_id"),
        pl.lit(loading.name).alias("part"),
    )


def _write_batch(rows: "pl.DataFrame", loading: CatalogPart) -> None:
    """Write the rows, unless somebody else has taken the part over. The last statement decides.

    So a taking over waits for a moment only, and a worker frozen before it writes nothing when it wakes up.
    """
    write = copy_rows if connection.vendor == "postgresql" else insert_rows
    with transaction.atomic():
        with connection.wrap_database_errors:
            write(connection.connection, table=CatalogRecord._meta.db_table, frame=rows)
        if not _held(loading).update(row_count=F("row_count") + rows.height):
            raise LeaseLost


def _publication_to_commit(delivery: DeliveryView) -> CatalogPublication | None:
    """Return the run's open publication, or None where all of it is published."""
    with transaction.atomic():
        is_live = _lock_run(delivery.run_id)
        latest = CatalogPublication.objects.filter(run=delivery.run_id).order_by("-number").first()
        if latest is not None and latest.state == STATES.PUBLISHED:
            return None
        if not is_live:
            raise Cancelled
        if latest is None:
            return _open_publication(delivery)  # a run without rows has staged nothing
        if latest.state != STATES.OPEN:
            # An empty publication in its place would replace what is visible by nothing.
            raise SinkRejected(
                "sink.rejected", destination=delivery.destination, detail="the rows were removed again before this"
            )
        if latest.parts.filter(is_complete=False).exists():
            raise SinkUnavailable(
                "sink.unavailable", destination=delivery.destination, detail="a part is not loaded completely"
            )
        return latest


def _flip(merged: CatalogPublication, *, plan: Plan) -> None:
    """Show the publication: one small transaction, after which every reader sees all of it."""
    with transaction.atomic():
        is_live = _lock_run(merged.run_id)
        state = CatalogState.objects.select_for_update().get(pk=merged.pipeline_id)
        publication = lock_open(merged.pk)
        if not is_live:
            raise Cancelled
        if not plan.merges:
            staged_count = publication.parts.aggregate(rows=Sum("row_count"))["rows"] or 0
            publication.inserted, publication.unchanged = (0, staged_count) if plan.drops_all else (staged_count, 0)
        publication.state = STATES.PUBLISHED
        publication.save(update_fields=["state", "inserted", "unchanged"])
        if plan.moves_floor:
            first = CatalogPublication.objects.filter(run=publication.run_id, state=STATES.PUBLISHED).aggregate(
                number=Min("number"), after_id=Min("after_id")
            )
            state.floor, state.floor_id = first["number"], first["after_id"]
        state.current = publication.number
        state.save(update_fields=["current", "floor", "floor_id"])


def _published(delivery: DeliveryView) -> QuerySet[CatalogPublication]:
    return CatalogPublication.objects.filter(run=delivery.run_id, state=STATES.PUBLISHED)


def _receipt(delivery: DeliveryView) -> Receipt:
    sums = _published(delivery).aggregate(inserted=Sum("inserted"), updated=Sum("updated"), unchanged=Sum("unchanged"))
    return Receipt(inserted=sums["inserted"] or 0, updated=sums["updated"] or 0, unchanged=sums["unchanged"] or 0)


def _begin_abort(run_id: int) -> CatalogPublication | None:
    """Close the run's open publication to loaders and mergers and return it; None where there is none."""
    with transaction.atomic():
        publication = CatalogPublication.objects.select_for_update().filter(run=run_id, state__in=UNFINISHED).first()
        if publication is not None:
            CatalogPublication.objects.filter(pk=publication.pk).update(state=STATES.ABORTING)
            CatalogPart.objects.filter(publication=publication).delete()
        return publication
