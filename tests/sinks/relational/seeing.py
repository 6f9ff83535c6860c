"""Any order of runs, contracts, roll backs and late deliveries, beside the rows that readers should see."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ingestion.ports.publication import Manifest, WriteMode
from ingestion.ports.schema import Column, ColumnType, ContractBody, ExtraColumns
from tests.sinks.relational.place import RelationalPlace, contract_of

_STRING, _INTEGER, _NUMBER = ColumnType.STRING, ColumnType.INTEGER, ColumnType.NUMBER
_SHAPES: list[dict[str, ColumnType]] = [
    {"qty": _INTEGER},
    {"qty": _NUMBER, "note": _STRING},
    {"qty": _STRING},
    {"note": _STRING, "size": _INTEGER},
    {"note": _INTEGER, "qty": _INTEGER, "size": _STRING},
]
Rows = dict[int, dict[str, Any]]


class Seeing(RelationalPlace):
    """Tests of the published state in a table."""

    seeds = range(2)

    @pytest.mark.parametrize("has_key", [True, False])
    def test_a_table_shows_what_it_was_brought_through_the_newest_contract(self, has_key: bool) -> None:
        for seed in self.seeds:
            self.begin()
            self.brought: dict[int, Rows] = {}
            self.live(random.Random(seed), has_key=has_key)

    def live(self, chance: random.Random, *, has_key: bool) -> None:
        """Publish runs, bring most of them at once and the others late, and compare after every delivery."""
        waiting: list[Manifest] = []
        there: list[Manifest] = []
        contract = self.contract(chance, has_key=has_key)
        for run_id in range(1, 13):
            contract = self.contract(chance, has_key=has_key) if chance.random() < 0.5 else contract
            manifest = self.next_run(run_id, there + waiting, contract, chance)
            self.published.seen(manifest)
            waiting.append(manifest)
            while waiting and chance.random() < 0.6:
                there.append(waiting.pop(chance.randrange(len(waiting))))
                self.publish(there[-1])
                self.compare(there)
        while waiting:
            there.append(waiting.pop(chance.randrange(len(waiting))))
            self.publish(there[-1])
        self.compare(there)

    def contract(self, chance: random.Random, *, has_key: bool) -> ContractBody:
        """Return a contract of one of the shapes, which keeps other columns or not."""
        columns = [Column(name=name, type=kind) for name, kind in chance.choice(_SHAPES).items()]
        extras = chance.choice([ExtraColumns.KEEP, ExtraColumns.DISCARD])
        return contract_of(*columns, key=("id",) if has_key else (), extra_columns=extras)

    def next_run(
        self, run_id: int, earlier: Sequence[Manifest], contract: ContractBody, chance: random.Random
    ) -> Manifest:
        """Return a run of some rows, or one that publishes an earlier one again."""
        if earlier and chance.random() < 0.15:
            again = chance.choice(list(earlier))
            self.brought[run_id] = self.brought[again.run_id]
            return replace(again, run_id=run_id)
        names = {column.name: column.type for column in contract.columns if column.name != "id"}
        if contract.extra_columns is ExtraColumns.KEEP:
            names["more"] = _STRING
        makes: dict[ColumnType, Any] = {_STRING: str, _INTEGER: int, _NUMBER: float}
        rows = {
            number: {
                name: None if chance.random() < 0.2 else makes[kind](chance.randrange(3))
                for name, kind in names.items()
            }
            for number in chance.sample(range(7), chance.randrange(1, 5))
        }
        self.brought[run_id] = rows
        mode = WriteMode.MERGE if contract.key else WriteMode.APPEND
        mode = WriteMode.REPLACE if chance.random() < 0.15 else mode
        given = [{"id": number, **row} for number, row in rows.items()]
        halves = [given[:2], given[2:]] if len(given) > 2 else [given]  # noqa: PLR2004
        return self.manifest(run_id, *halves, mode=mode, contract=contract)

    def compare(self, there: Sequence[Manifest]) -> None:
        """Check every column that readers see against what the runs brought."""
        newest = self.published.runs[max(self.published.runs)].contract
        current: list[tuple[int, dict[str, Any]]] = []
        for manifest in sorted(there, key=lambda found: found.run_id):
            rows = self.brought[manifest.run_id]
            kept = [] if manifest.mode is WriteMode.REPLACE else current
            current = [found for found in kept if not newest.key or found[0] not in rows] + list(rows.items())
        declared = {column.name: column.type for column in newest.columns if column.name != "id"}
        names = list(declared)
        if newest.extra_columns is ExtraColumns.KEEP:
            names += sorted({name for _, row in current for name in row} - set(declared))
        expected = [(number, *(_text(row.get(name)) for name in names)) for number, row in current]
        shown = [name for name in names if name in self.columns()]
        found = [
            (row[0], *(_text(dict(zip(shown, row[1:], strict=True)).get(name)) for name in names))
            for row in self.read(f"SELECT {', '.join(['id', *shown])} FROM samples")  # noqa: S608
        ]
        runs = [manifest.run_id for manifest in there]
        assert sorted(found, key=repr) == sorted(expected, key=repr), (runs, names)
        assert set(shown) >= set(declared)

    def columns(self, table: str = "samples") -> list[str]:
        """Return the names of a table's columns."""
        raise NotImplementedError


def _text(value: Any) -> str | None:
    return None if value is None else str(int(float(value)))
