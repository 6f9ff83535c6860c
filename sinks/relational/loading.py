"""The rows of a part on their way into a table: encoded beside the writing, rejected one by one."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO

from ingestion.ports.context import Context
from ingestion.ports.publication import PartView
from ingestion.ports.schema import ContractBody
from sinks.relational.connection import Connection
from sinks.relational.diagnosis import Diagnosis
from sinks.relational.naming import PAGE, PART, PART_NUMBER, PLACE, ROW, RUN, number_of
from sinks.relational.parts import Fitting, fit, read_blocks
from sinks.relational.rejecting import Rejections, rejection_of, take_rows
from sinks.relational.schema_plan import TECHNICAL, Table

if TYPE_CHECKING:
    import polars as pl


def fittings_of(table: Table, contract: ContractBody) -> list[Fitting]:
    """Return how the table's columns are filled: those of the data as the contract sees them, then where a row came from."""
    data = [
        Fitting(entry.column, source, entry.kind, contract)
        for source, entry in table.mapped.items()
        if entry.column in table.actual
    ]
    return [*data, *(Fitting(name, name, TECHNICAL[name]) for name in (PART, ROW, PAGE))]


def load_part(
    connection: Connection,
    part: PartView,
    stream: BinaryIO,
    *,
    into: str,
    fittings: Sequence[Fitting],
    contract: ContractBody,
    rejections: Rejections,
    ctx: Context,
    run_id: int | None = None,
) -> int:
    """Write the part's rows into a table within the open transaction, and return how many it took.

    With `run_id` they are that run's rows; without it they wait, and carry the number of the part and their place.
    `contract` is the one that the rows were checked against.
    """
    columns = [*([] if run_id is not None else [PART_NUMBER, PLACE]), *(item.column for item in fittings)]
    columns += [RUN] if run_id is not None else []
    writer = connection.writer(into, columns)

    def frames() -> Iterator["tuple[pl.DataFrame, Any]"]:
        place = 0
        for block in read_blocks(stream, part, longest=connection.dialect.block_rows):
            fitted = fit(block, fittings, ctx=ctx, contract=contract)
            frame = _with_place(fitted, part, place=place, run_id=run_id).select(columns)
            place += block.height
            yield frame, writer.encode(frame)

    taken = place = 0
    for frame, encoded in one_ahead(frames()):

        def attempt(first: int, end: int, frame: "pl.DataFrame" = frame, encoded: Any = encoded) -> int:
            ctx.beat()
            rows = encoded if end - first == frame.height else writer.encode(frame.slice(first, end - first))
            with connection.savepoint():
                writer.write(rows)
            return end - first

        def reject(index: int, diagnosis: Diagnosis, place: int = place) -> None:
            rejections.add(rejection_of(diagnosis, part=part.name, index=place + index))

        taken += sum(take_rows(frame.height, attempt, connection=connection, reject=reject))
        place += frame.height
    ctx.beat()
    return taken


def one_ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Yield the items, each made in another thread while the one before is in use."""
    end = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item


def _with_place(frame: "pl.DataFrame", part: PartView, *, place: int, run_id: int | None) -> "pl.DataFrame":
    import polars as pl  # noqa: PLC0415 (heavy)

    if run_id is not None:
        return frame.with_columns(pl.lit(run_id, pl.Int64).alias(RUN))
    return frame.with_columns(
        pl.lit(number_of(part.name), pl.Int64).alias(PART_NUMBER),
        pl.int_range(place, place + frame.height, dtype=pl.Int64).alias(PLACE),
    )
