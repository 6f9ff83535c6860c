"""Clean parts as tables take them: what their columns hold, and their rows in blocks of bounded size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from ingestion.ports.context import Context
from ingestion.ports.errors import StoreCorrupt
from ingestion.ports.publication import PartView
from ingestion.ports.schema import Column, ColumnType, ContractBody
from ingestion.toolkit.clean.kinds import DECLARED_KINDS, Kind, kind_of_arrow
from sinks.relational.naming import LINEAGE
from sinks.relational.table_kinds import Content

if TYPE_CHECKING:
    import polars as pl


_TYPES = {
    **{kind: declared for declared, kind in reversed(DECLARED_KINDS.items()) if declared is not ColumnType.ANY},
    Kind.TEXT: ColumnType.STRING,
}


@dataclass(frozen=True, slots=True)
class Fitting:
    """A column of the table and its source in a part; without one it is null.

    Values of another kind are cast as `contract` would, through which readers see them, where it declares the column.
    """

    column: str
    source: str | None
    kind: Kind
    contract: ContractBody | None = None

    @property
    def declared(self) -> Column:
        """Return the column as a contract declares it."""
        found = self.contract.column(self.source) if self.contract and self.source else None
        if found is not None and DECLARED_KINDS[found.type] is self.kind:
            return found
        return Column(name="value", type=_TYPES[self.kind])


def read_contents(stream: BinaryIO, part: PartView) -> dict[str, Content]:
    """Return what the data columns of a part hold, from its footer alone."""
    from ingestion.toolkit.clean.reader import PartFile  # noqa: PLC0415 (heavy)

    shape = PartFile(stream, key=part.key, rows=part.rows).shape
    contents = {}
    for column in shape.columns:
        if column.name in LINEAGE:
            continue
        if kind_of_arrow(column.type) is None:
            detail = f"its column {column.name!r} is of type {column.type}, which clean parts do not have"
            raise StoreCorrupt("store.corrupt", key=part.key, detail=detail)
        is_exact = column.kind is Kind.INTEGER and column.is_exact_as_number
        contents[column.name] = Content(column.kind, is_exact) if shape.has_values(column) else Content(None)
    return contents


def read_blocks(
    stream: BinaryIO, part: PartView, *, longest: int, columns: Sequence[str] | None = None
) -> Iterator["pl.DataFrame"]:
    """Yield the rows of a part, in order, in blocks of about 8 MB and at most `longest` rows; of these columns alone."""
    from ingestion.toolkit.clean.reader import PartFile  # noqa: PLC0415 (heavy)
    from ingestion.toolkit.frames import frame_of  # noqa: PLC0415

    for _, batch in PartFile(stream, key=part.key, rows=part.rows).batches(columns, rows=longest):
        yield frame_of(batch)


def fit(
    frame: "pl.DataFrame", fittings: Sequence[Fitting], *, ctx: Context, contract: ContractBody | None = None
) -> "pl.DataFrame":
    """Return the frame with the table's columns, each value as its column's kind has it; null where it is none.

    `contract` is the one that the rows were checked against.
    """
    import polars as pl  # noqa: PLC0415 (heavy)

    return pl.DataFrame(
        [
            (
                pl.repeat(None, frame.height, dtype=pl.Null, eager=True)
                if item.source is None or item.source not in frame.columns
                else read_as(frame[item.source], item, ctx=ctx, contract=contract)[0]
            ).alias(item.column)
            for item in fittings
        ]
    )


def read_as(
    values: "pl.Series", fitting: Fitting, *, ctx: Context, contract: ContractBody | None
) -> "tuple[pl.Series, pl.Series | None]":
    """Return the values as their column's kind has them, and the positions of those that cannot be read so."""
    own = contract.column(str(fitting.source)) if contract is not None else None
    if own is not None:
        is_as_stored = DECLARED_KINDS[own.type] is fitting.kind
    else:
        stored = _stored_kind(values)
        is_as_stored = stored in (fitting.kind, Kind.NOTHING) or (stored is Kind.TEXT and contract is None)
    if is_as_stored or fitting.kind is Kind.UNSIGNED:
        return values, None
    return ctx.cast(values, fitting.declared)


def _stored_kind(values: "pl.Series") -> Kind:
    import polars as pl  # noqa: PLC0415 (heavy)

    kinds = {pl.Null: Kind.NOTHING, pl.Boolean: Kind.BOOLEAN, pl.Date: Kind.DATE, pl.UInt64: Kind.UNSIGNED}
    dtype = values.dtype
    if dtype.is_float() or isinstance(dtype, pl.Datetime):
        return Kind.NUMBER if dtype.is_float() else Kind.TIMESTAMP
    return kinds.get(type(dtype), Kind.INTEGER if dtype.is_integer() else Kind.TEXT)
