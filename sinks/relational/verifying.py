"""Contents of a run's rows in their table, beside those of its clean parts: null counts and a checksum for each column.

The database answers with one aggregate over the rows that it shows as the run's; the parts are added up here, as the
contract sees them. Where not all rows of a run are shown (a merge left those that were the same), the others are told
apart by their lineage; of a very large merge as many partitions are looked at as hold `_LINEAGE_ROWS` rows, so that
memory stays bounded. Columns whose values the database writes in a form of its own (JSON, and types that a person chose)
are compared by nulls alone.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from ingestion.ports.publication import Manifest
from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.checksums import checksum, summed
from sinks.relational.connection import STATEMENT_LIMIT_S, Connection
from sinks.relational.loading import fittings_of
from sinks.relational.naming import DELETED_AT, PAGE, PART, ROW, RUN
from sinks.relational.parts import Fitting, fit, read_blocks
from sinks.relational.refilling import LakeRuns
from sinks.relational.schema_plan import TECHNICAL, Table
from sinks.relational.statements import Name, Sql, Value, joined, names, sql

if TYPE_CHECKING:
    import polars as pl

Totals: TypeAlias = dict[str, tuple[int, int]]
"""By column: how many rows have a value there, and the checksum; 0 for a column that has none."""

_LINEAGE_ROWS = 500_000
_HASHED_ROWS = 20_000
_BLOCK_ROWS = 100_000
_TRIES = 3
_LINEAGE = [Fitting(name, name, TECHNICAL[name]) for name in (PART, ROW, PAGE)]


@dataclass(frozen=True)
class Verification:
    """The rows of one run, as a table shows them and as its parts have them."""

    connection: Connection
    table: Table
    manifest: Manifest
    runs: LakeRuns
    fittings: list[Fitting] = field(init=False)

    def __post_init__(self) -> None:
        contract = self.table.contract or self.manifest.contract
        seen = {entry.column for entry in self.table.mapped.values() if entry.is_seen}
        found = [item for item in fittings_of(self.table, contract) if item.column in seen]
        object.__setattr__(self, "fittings", found)

    def differences(self) -> list[str]:
        """Return what differs, a sentence for each column; a row that a newer run takes meanwhile is no difference."""
        found: list[str] = []
        for _ in range(_TRIES):
            condition, lanes = self._condition(), frozenset[str]()
            count, shown = self._shown(condition)
            if count > _LINEAGE_ROWS and count != self.manifest.rows:
                lanes = self._first_partitions()
                listed = joined(", ", (Value(lane) for lane in sorted(lanes)))
                condition = sql("{} AND {} IN ({})", condition, Name(PART), listed)
                count, shown = self._shown(condition)
            rows = None if count == self.manifest.rows else self._lineage(condition)
            found = self._compared(shown, self._expected(rows, lanes))
            if not found or self._shown(condition) == (count, shown):
                return found
        return []

    def _is_summed(self, item: Fitting) -> bool:
        """Return whether the column keeps what it is given, so that its values can be compared."""
        dialect = self.connection.dialect
        keeps = item.kind is not Kind.JSON or dialect.keeps_json
        return keeps and dialect.is_own(self.table.actual[item.column].type, item.kind)

    @property
    def _every(self) -> int:
        """Return which rows' texts are hashed: one in so many."""
        return max(1, self.manifest.rows // _HASHED_ROWS)

    def _condition(self) -> Sql:
        """Return which rows the table shows as the run's."""
        condition = sql("{} = {}", Name(RUN), Value(self.manifest.run_id))
        return sql("{} AND {} IS NULL", condition, Name(DELETED_AT)) if self.table.has_deletions else condition

    def _shown(self, condition: Sql) -> tuple[int, Totals]:
        """Return how many rows the table shows, and what they hold."""
        dialect, totals = self.connection.dialect, [sql("count(*)")]
        for item in self.fittings:
            column = sql("{}", Name(item.column))
            total = summed(dialect, column, item.kind, every=self._every) if self._is_summed(item) else sql("0")
            totals += [sql("count({})", column), total]
        query = sql("SELECT {} FROM {} WHERE {}", joined(", ", totals), dialect.table(self.table.name), condition)
        with self.connection.transaction(limit_s=STATEMENT_LIMIT_S, only_reads=True):
            count, *found = (int(number or 0) for number in self.connection.rows(query)[0])
        pairs = zip(found[::2], found[1::2], strict=True)
        return count, {item.column: pair for item, pair in zip(self.fittings, pairs, strict=True)}

    def _lineage(self, condition: Sql) -> "pl.DataFrame":
        """Return where the shown rows came from."""
        import polars as pl  # noqa: PLC0415 (heavy)

        columns, table = names([PART, ROW, PAGE]), self.connection.dialect.table(self.table.name)
        with self.connection.transaction(limit_s=STATEMENT_LIMIT_S, only_reads=True):
            found = self.connection.rows(sql("SELECT {} FROM {} WHERE {}", columns, table, condition))
        schema = {PART: pl.String, ROW: pl.Int64, PAGE: pl.Int64}
        return pl.DataFrame(found, schema=schema, orient="row")

    def _first_partitions(self) -> frozenset[str]:
        """Return partitions, from the first on, that together have about as many rows as may be told apart by lineage."""
        sizes: Counter[str] = Counter()
        for part in self.manifest.parts:
            if sizes and sizes.total() + part.rows > _LINEAGE_ROWS:
                break
            sizes[f"{part.lane}-{part.link}"] += part.rows
        return frozenset(sizes)

    def _expected(self, rows: "pl.DataFrame | None", lanes: frozenset[str]) -> Totals:
        """Return what the parts hold in these rows."""
        ctx, totals = self.runs.ctx, {item.column: (0, 0) for item in self.fittings}
        for part in self.manifest.parts:
            if lanes and f"{part.lane}-{part.link}" not in lanes:
                continue
            with ctx.lake.open(part.key) as stream:
                for block in read_blocks(stream, part, longest=_BLOCK_ROWS):
                    ctx.beat()
                    frame = block if rows is None else _only(block, rows, self.runs)
                    fitted = fit(frame, self.fittings, ctx=ctx, contract=self.manifest.contract)
                    for item in self.fittings:
                        count, total = totals[item.column]
                        values = fitted[item.column]
                        added = 0
                        if self._is_summed(item):
                            added = checksum(values, item.kind, rows=frame[ROW], every=self._every)
                        totals[item.column] = (count + values.len() - values.null_count(), total + added)
        return totals

    def _compared(self, shown: Totals, expected: Totals) -> list[str]:
        sources = {item.column: item.source for item in self.fittings}
        found = []
        for column, (count, total) in expected.items():
            shown_count, shown_total = shown[column]
            if shown_count != count:
                found.append(f"{sources[column]} has {shown_count} values instead of {count}")
            elif shown_total != total:
                found.append(f"{sources[column]} has other values")
        return found


def _only(block: "pl.DataFrame", rows: "pl.DataFrame", runs: LakeRuns) -> "pl.DataFrame":
    """Return those rows of a block whose lineage is among `rows`."""
    import polars as pl  # noqa: PLC0415 (heavy)

    own = block.select(pl.col(PART).cast(pl.String), pl.col(ROW).cast(pl.Int64), pl.col(PAGE).cast(pl.Int64))
    place = own.with_row_index("\0place").join(rows, on=[PART, ROW, PAGE], how="semi", nulls_equal=True)
    return block[place["\0place"]]
