"""Columns of a table filled anew from the lake, as a contract sees the rows that are there.

The table alone does not know: a value that one contract cast is not what the next one would have made of the original,
and a row that came again unchanged is another run's by now. So every run that the table holds is read, in the order of
runs, and of each key the last one stays.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingestion.ports.context import Context
from ingestion.ports.errors import SinkRejected
from ingestion.ports.publication import DeliveryView, Manifest, PartView, WriteMode
from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.connection import Connection
from sinks.relational.inspection import describe
from sinks.relational.loading import load_part
from sinks.relational.naming import PAGE, PART, PART_NUMBER, PLACE, ROW, filling_name
from sinks.relational.parts import Fitting, read_as, read_blocks, read_contents
from sinks.relational.rejecting import Rejections
from sinks.relational.schema_plan import TECHNICAL, Table
from sinks.relational.statements import sql
from sinks.relational.table_kinds import Content, unify

_LONGEST_VALUE = 80


@dataclass(frozen=True)
class LakeRuns:
    """The runs of a pipeline in the lake, for a delivery that has to write rows of theirs again."""

    delivery: DeliveryView
    ctx: Context

    def manifests(self, run_ids: Sequence[int]) -> list[Manifest]:
        """Return what these runs published, in their order; one that was withdrawn is left out."""
        if not run_ids or self.ctx.published is None:
            return []
        found = self.ctx.published.manifests(run_ids, pipeline_id=self.delivery.pipeline_id)
        return [manifest for run_id in sorted(found) if (manifest := found[run_id]) is not None]

    def contents(self, run_ids: Sequence[int]) -> dict[str, Content]:
        """Return what the columns of these runs hold, from the footers of their parts."""
        whole: dict[str, Content] = {}
        for manifest in self.manifests(run_ids):
            for part in manifest.parts:
                with self.ctx.lake.open(part.key) as stream:
                    for name, content in read_contents(stream, part).items():
                        whole[name] = unify(whole.get(name, Content(None)), content)
            self.ctx.beat()
        return whole

    def ensure_castable(self, run_ids: Sequence[int], fittings: Sequence[Fitting], *, key: Sequence[str]) -> None:
        """Raise SinkRejected where these runs have a value that its column cannot show and no later run replaces.

        Runs count as later that were published, whether or not the table has them yet, and the one on its way.
        """
        if self.ctx.published is None:
            return
        state = {manifest.run_id: manifest for manifest in self.ctx.published.state(self.delivery.pipeline_id)}
        state |= {manifest.run_id: manifest for manifest in self.manifests([*run_ids, self.delivery.run_id])}
        refresh = max((found.run_id for found in state.values() if found.mode is WriteMode.REPLACE), default=0)
        current = [state[run_id] for run_id in sorted(state) if run_id >= refresh]
        narrow = [item for item in fittings if item.kind is not Kind.TEXT]
        parts = [(manifest, part) for manifest in current for part in manifest.parts]
        replaced: Mapping[int, Any] | None = None
        for place, (manifest, part) in enumerate(parts):
            for item, position, value in (
                self._not_castable(manifest, part, narrow) if manifest.run_id in run_ids else ()
            ):
                if replaced is None:
                    from ingestion.toolkit.clean.current import replaced_rows  # noqa: PLC0415 (heavy, and rare)

                    views = [view for _, view in parts]
                    replaced = replaced_rows(self.ctx.lake, views, key=key) if key else {}
                if position not in replaced.get(place, ()):
                    values = {"column": item.source, "kind": item.kind.value, "value": value, "run": manifest.run_id}
                    raise SinkRejected("sink.value_not_castable", destination=self.delivery.destination, **values)

    def _not_castable(
        self, manifest: Manifest, part: PartView, fittings: Sequence[Fitting]
    ) -> Iterator[tuple[Fitting, int, str]]:
        """Yield the values of a part that cannot be read as their columns' kinds, each with its position."""
        first = 0
        columns = [str(item.source) for item in fittings]
        with self.ctx.lake.open(part.key) as stream:
            for frame in read_blocks(stream, part, longest=_BLOCK_ROWS, columns=columns):
                self.ctx.beat()
                for item in fittings:
                    if item.source in frame.columns:
                        values = frame[item.source]
                        _, invalid = read_as(values, item, ctx=self.ctx, contract=manifest.contract)
                        for position in () if invalid is None else invalid:
                            yield item, first + position, str(values[position])[:_LONGEST_VALUE]
                first += frame.height


_BLOCK_ROWS = 100_000


@dataclass(frozen=True)
class Refill:
    """Columns of a table that are filled from the lake; `columns` are their fittings and the types they have there."""

    connection: Connection
    table: Table
    columns: Sequence[tuple[Fitting, str]]
    runs: LakeRuns

    @property
    def staging(self) -> str:
        """Return the table in which the values wait."""
        return filling_name(self.table.name)

    @property
    def _fittings(self) -> list[Fitting]:
        return [item for item, _ in self.columns]

    @property
    def _key(self) -> list[Fitting]:
        return key_fittings(self.table)

    def prepare(self) -> None:
        """Make the table in which the values wait."""
        dialect, key = self.connection.dialect, self._key or _LINEAGE
        types = {item.column: self.table.actual[item.column].type for item in key}
        types |= {item.column: column_type for item, column_type in self.columns}
        # The number of the row is enough of a lineage for an index, which not every database makes of a long text.
        indexed = [item.column for item in self._key] or [ROW]
        creating = dialect.creating_staging(self.staging, target=self.table.name, columns=types, key=indexed)
        self.connection.execute(dialect.dropping(self.staging), *creating)

    @property
    def is_prepared(self) -> bool:
        """Return whether the values can wait."""
        names = [item.column for item in (*self._fittings, *(self._key or _LINEAGE))]
        needed = {PART_NUMBER, PLACE, *names}
        return needed <= set(describe(self.connection, self.staging))

    def fill(self, run_ids: Sequence[int]) -> None:
        """Fill the columns, within the open transaction, with what these runs brought."""
        dialect, key = self.connection.dialect, self._key
        for manifest in self.runs.manifests(run_ids):
            self.connection.execute(sql("DELETE FROM {}", dialect.table(self.staging)))
            for part in manifest.parts:
                with self.runs.ctx.lake.open(part.key) as stream:
                    load_part(
                        self.connection,
                        part,
                        stream,
                        into=self.staging,
                        fittings=[*(key or _LINEAGE), *self._fittings],
                        contract=manifest.contract,
                        rejections=Rejections(self.runs.delivery.destination, limit=part.rows),
                        ctx=self.runs.ctx,
                    )
            self.connection.execute(
                dialect.filling(
                    self.table.name,
                    self.staging,
                    columns=[item.column for item in self._fittings],
                    key=[item.column for item in key],
                    run_id=manifest.run_id,
                )
            )
            self.runs.ctx.beat()


_LINEAGE = [Fitting(name, name, TECHNICAL[name]) for name in (PART, ROW, PAGE)]


def key_fittings(table: Table) -> list[Fitting]:
    """Return how the key by which the table tells its rows apart now is read from a part."""
    by_column = {entry.column: (source, entry.kind) for source, entry in table.mapped.items()}
    return [Fitting(column, *by_column[column]) for column in table.key if column in by_column]
