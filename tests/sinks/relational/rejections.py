"""Rows that the database rejects: named one by one, while all others land."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from ingestion.ports.errors import SinkRejected
from ingestion.ports.messages import find_message
from ingestion.ports.publication import Rejection, WriteMode
from ingestion.ports.schema import Column, ColumnType
from tests.conformance.parts import delivery_of
from tests.sinks.relational.place import PRICED, RelationalPlace, Rows, Told, contract_of, priced, table_of, text

KEYLESS = PRICED.model_copy(update={"key": ()})
MODES = [
    pytest.param(WriteMode.APPEND, KEYLESS, id="append"),
    pytest.param(WriteMode.MERGE, PRICED, id="merge"),
    pytest.param(WriteMode.REPLACE, PRICED, id="replace"),
    pytest.param(WriteMode.REPLACE, KEYLESS, id="replace-keyless"),
]


def places(told: Told) -> list[tuple[str, int]]:
    return [(rejection.part, rejection.index) for rejection in told.receipt.rejections]


class Rejecting(RelationalPlace):
    """Tests of rejections. `rules` are what this database calls the rules broken, by the name of the test's rule."""

    def make_table(
        self, *columns: str, with_table: str = "id bigint NOT NULL, name {text}, price double precision"
    ) -> None:
        """Make the pipeline's table by hand, with rules of a person."""
        made = with_table.format(text=self.text_type)
        self.run(f"CREATE TABLE samples ({', '.join((made, *columns))})")

    text_type = "text"

    @pytest.mark.parametrize(("mode", "contract"), MODES)
    def test_rows_that_break_a_check_are_named_and_the_others_land(self, mode: WriteMode, contract: Any) -> None:
        self.begin()
        self.make_table("CONSTRAINT price_positive CHECK (price > 0)")
        rows = priced(*((n, -1.0 if n in (3, 17, 59) else 1.0) for n in range(60)))

        told = self.deliver(1, rows[:40], rows[40:], mode=mode, contract=contract)
        again = self.publish(told.manifest)

        assert told.counts == (57, 0, 0, 3)
        assert places(told) == [("0-0-000000", 3), ("0-0-000000", 17), ("1-0-000000", 19)]
        assert {rejection.rule for rejection in told.receipt.rejections} == {"price_positive"}
        assert "price_positive" in told.receipt.rejections[0].message
        assert again.receipt == told.receipt
        assert self.read("SELECT count(*) FROM samples") == [(57,)]

    @pytest.mark.parametrize(("mode", "contract"), MODES)
    def test_a_column_that_a_person_forbade_to_be_null_is_named(self, mode: WriteMode, contract: Any) -> None:
        self.begin()
        self.make_table(with_table="id bigint NOT NULL, name {text}, price double precision NOT NULL")

        told = self.deliver(1, priced((1, None), (2, 2.0), (3, None)), mode=mode, contract=contract)

        assert told.counts == (1, 0, 0, 2)
        assert {(rejection.index, rejection.column) for rejection in told.receipt.rejections} == {
            (0, "price"),
            (2, "price"),
        }
        assert "null" in told.receipt.rejections[0].rule

    def test_an_update_that_is_refused_leaves_the_row_as_it_was(self) -> None:
        self.begin()
        self.make_table("CONSTRAINT price_positive CHECK (price > 0)")
        self.deliver(1, priced((1, 1.0), (2, 2.0)))

        told = self.deliver(2, priced((1, -1.0), (2, 2.5)))

        assert told.counts == (0, 1, 0, 1)
        assert self.read("SELECT id, price FROM samples ORDER BY id") == [(1, 1.0), (2, 2.5)]

    def test_a_full_refresh_takes_a_row_out_whose_new_values_are_refused(self) -> None:
        self.begin()
        self.make_table("CONSTRAINT price_positive CHECK (price > 0)")
        self.deliver(1, priced((1, 1.0), (2, 2.0)), mode=WriteMode.REPLACE)

        told = self.deliver(2, priced((1, -1.0), (2, 2.0)), mode=WriteMode.REPLACE)

        assert told.counts == (0, 0, 1, 1)
        assert self.read("SELECT id, price FROM samples") == [(2, 2.0)]

    @pytest.mark.parametrize(("mode", "contract"), MODES[:2])
    def test_another_unique_column_refuses_the_second_row(self, mode: WriteMode, contract: Any) -> None:
        self.begin()
        self.make_table("CONSTRAINT one_price UNIQUE (price)")

        told = self.deliver(1, priced((1, 1.0), (2, 2.0), (3, 1.0), (4, None)), mode=mode, contract=contract)

        assert told.counts == (3, 0, 0, 1)
        assert places(told) == [("0-0-000000", 2)]

    @pytest.mark.parametrize(("mode", "contract"), MODES[:2])
    def test_a_reference_to_nowhere_is_refused(self, mode: WriteMode, contract: Any) -> None:
        self.begin()
        self.run("CREATE TABLE prices (price bigint PRIMARY KEY)", "INSERT INTO prices VALUES (1), (2)")
        self.make_table(
            "CONSTRAINT known_price FOREIGN KEY (price) REFERENCES prices (price)",
            with_table="id bigint NOT NULL, name {text}, price bigint",
        )
        contract = contract.model_copy(
            update={"columns": (*contract.columns[:2], Column(name="price", type=ColumnType.INTEGER))}
        )
        rows = [{"id": n, "name": "x", "price": price} for n, price in enumerate((1, 7, 2, None))]

        told = self.deliver(1, rows, mode=mode, contract=contract)

        assert told.counts == (3, 0, 0, 1)
        assert places(told) == [("0-0-000000", 1)]

    def test_more_refusals_than_are_allowed_fail_the_delivery_and_nothing_lands(self) -> None:
        self.begin()
        self.make_table("CONSTRAINT price_positive CHECK (price > 0)")
        sink = self.make_relational(refused_limit=4)
        rows = priced(*((n, -1.0 if n % 10 == 0 else 1.0) for n in range(60)))

        for mode, contract in ((WriteMode.APPEND, KEYLESS), (WriteMode.MERGE, PRICED)):
            manifest = self.manifest(1, rows, mode=mode, contract=contract)
            with pytest.raises(SinkRejected) as caught:
                self.publish(manifest, sink=sink)

            assert caught.value.code == "sink.too_many_refused"
            assert find_message(caught.value.code)
            assert sink.count(manifest, delivery_of(manifest), self.ctx) == 0
            assert self.read("SELECT count(*) FROM samples") == [(0,)]

    def test_no_refusal_is_allowed_where_the_limit_is_none(self) -> None:
        self.begin()
        self.make_table("CONSTRAINT price_positive CHECK (price > 0)")

        with pytest.raises(SinkRejected):
            self.deliver(1, priced((1, -1.0)), sink=self.make_relational(refused_limit=0))

    def test_a_run_of_which_every_row_is_refused_is_published_as_empty(self) -> None:
        self.begin()
        self.make_table("CONSTRAINT price_positive CHECK (price > 0)")

        told = self.deliver(1, priced((1, -1.0), (2, -2.0)), priced((3, -3.0)))

        assert told.counts == (0, 0, 0, 3)
        assert self.read("SELECT count(*) FROM samples") == [(0,)]

    def test_the_refusals_of_a_run_that_a_retry_completes_are_named_once(self) -> None:
        self.begin()
        self.make_table("CONSTRAINT price_positive CHECK (price > 0)")
        whole = self.manifest(1, priced((1, -1.0), (2, 2.0)), priced((3, -3.0), (4, 4.0)))
        self.publish(replace(whole, parts=whole.parts[:1], rows=2))

        told = self.publish(whole)

        assert told.counts == (2, 0, 0, 2)
        assert places(told) == [("0-0-000000", 0), ("1-0-000000", 0)]

    def rejected_alone(self, rows: Rows, contract: Any, *, types: dict[str, pa.DataType] | None = None) -> Rejection:
        """Return the rejection of the only row that a merge and an append of the rows reject."""
        found = []
        for run_id, mode in ((1, WriteMode.MERGE), (2, WriteMode.APPEND)):
            body = contract if mode is WriteMode.MERGE else contract.model_copy(update={"key": ()})
            pipeline = f"samples{run_id}"
            told = self.deliver(run_id, table_of(rows, body, types=types), mode=mode, contract=body, pipeline=pipeline)
            assert told.counts == (len(rows) - 1, 0, 0, 1)
            found.append(told.receipt.rejections[0])
        assert found[0].index == found[1].index
        return found[0]


def too_long(place: Rejecting, *, narrowed: str) -> list[Rejection]:
    """Return what is rejected of names of 3 and of 30 characters where a person allows 20."""
    place.begin()
    contract = contract_of(text("name"))
    place.run(f"CREATE TABLE samples (id bigint NOT NULL, name {narrowed})")
    told = place.deliver(1, [{"id": n, "name": "x" * length} for n, length in enumerate((3, 30, 3))], contract=contract)
    assert told.counts == (2, 0, 0, 1)
    return list(told.receipt.rejections)
