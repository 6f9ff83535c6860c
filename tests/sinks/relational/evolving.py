"""Columns that follow the contract and the data: planned, shown, applied, undone."""

from typing import Any

import pyarrow as pa
import pytest

from ingestion.ports.errors import ConfigError, SinkRejected
from ingestion.ports.housekeeping import SchemaChange
from ingestion.ports.messages import find_message
from ingestion.ports.publication import WriteMode
from ingestion.ports.schema import Column, ColumnType, ExtraColumns
from sinks.relational.connection import Connection
from tests.conformance.parts import delivery_of
from tests.sinks.relational.place import (
    PRICED,
    RelationalPlace,
    contract_of,
    integer,
    number,
    priced,
    table_of,
    text,
)

TEXTUAL = contract_of(text("name"), text("price"))
TEXTUAL_ROWS = [
    {"id": n, "name": f"x{n}", "price": price}
    for n, price in enumerate(("1.5", " -2 ", "3.00", "", None, "1e300", "-0", ".5e1"))
]
TEXTUAL_AS_PRICES = [(0, 1.5), (1, -2.0), (2, 3.0), (5, 1e300), (6, 0.0), (7, 5.0)]

STRING, INTEGER, NUMBER = ColumnType.STRING, ColumnType.INTEGER, ColumnType.NUMBER
BOOLEAN, DATE, DATETIME = ColumnType.BOOLEAN, ColumnType.DATE, ColumnType.DATETIME
CASTS: list[tuple[ColumnType, ColumnType, Any, Any]] = [
    (STRING, INTEGER, "-12", -12),
    (STRING, INTEGER, "", None),
    (STRING, BOOLEAN, "true", True),
    (STRING, DATE, "2024-02-29", "2024-02-29"),
    (STRING, DATETIME, "2024-02-29T12:30:00Z", "2024-02-29 12:30:00"),
    (INTEGER, STRING, 2**53 + 1, str(2**53 + 1)),
    (INTEGER, NUMBER, 7, 7.0),
    (NUMBER, INTEGER, 7.0, 7),
    (NUMBER, STRING, 0.1 + 0.2, "0.30000000000000004"),
    (BOOLEAN, STRING, False, "false"),
]
"""Kind before, kind after, value, what it becomes."""


class KilledError(BaseException):
    """The process ends here."""


class Evolving(RelationalPlace):
    """Tests of schema evolution."""

    def columns(self, table: str = "samples") -> list[str]:
        """Return the names of a table's columns."""
        raise NotImplementedError

    def data_columns(self) -> list[str]:
        """Return the columns of the data, old ones set aside included."""
        return [name for name in self.columns() if not name.startswith("_")]

    def changes(self) -> list[SchemaChange]:
        return list(self.make_relational().schema_changes("samples", self.ctx))

    def revert(self, change: SchemaChange) -> SchemaChange:
        return self.make_relational().revert_schema("samples", change.id, self.ctx)

    def test_a_plan_shows_the_table_that_will_be_made_and_makes_nothing(self) -> None:
        self.begin()

        plan = self.make_relational().plan_schema("samples", PRICED, self.ctx)

        assert [change.column for change in plan] == [""]
        assert "CREATE TABLE" in plan[0].statement
        assert not self.has_table("samples")
        assert self.own_tables() == []

    def test_columns_stand_in_the_order_of_the_contract_before_those_of_ours(self) -> None:
        self.begin()

        self.deliver(1, [{"extra": "e", **row} for row in priced((1, 1.0))])

        assert self.columns() == ["id", "name", "price", "extra", "_run", "_part", "_row", "_page"]

    def test_a_new_column_is_planned_then_added_empty_then_filled(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0), (2, 2.0)))
        wider = contract_of(text("name"), number("price"), integer("stock"))

        plan = self.make_relational().plan_schema("samples", wider, self.ctx)
        told = self.deliver(2, [{"id": 2, "name": "x2", "price": 2.0, "stock": 9}], contract=wider)

        assert [(change.column, change.id) for change in plan] == [("stock", "")]
        assert "destination.schema_changed" in self.recording.event_kinds()
        assert told.counts == (0, 1, 0, 0)
        assert self.read("SELECT id, stock FROM samples ORDER BY id") == [(1, None), (2, 9)]
        assert self.make_relational().plan_schema("samples", wider, self.ctx) == []

    def test_an_added_column_can_be_taken_back(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0)))
        self.deliver(2, [{"id": 1, "name": "x1", "price": 1.0, "note": "n"}])
        change = self.changes()[0]

        reverted = self.revert(change)

        assert (change.column, reverted.column) == ("note", "note")
        assert "note" not in self.columns()
        assert self.changes() == []
        assert self.deliver(3, priced((1, 1.5))).counts == (0, 1, 0, 0)

    def test_a_column_of_another_kind_is_set_aside_and_filled_from_the_lake(self) -> None:
        self.begin()
        self.deliver(1, TEXTUAL_ROWS, contract=TEXTUAL)

        plan = self.make_relational().plan_schema("samples", PRICED, self.ctx)
        told = self.deliver(2, priced((0, 1.5)), contract=PRICED, mode=WriteMode.MERGE)

        aside = next(name for name in self.columns() if name.startswith("price__old"))
        assert [change.column for change in plan] == ["price"]
        assert aside in plan[0].what
        assert self.read("SELECT id, price FROM samples WHERE price IS NOT NULL ORDER BY id") == TEXTUAL_AS_PRICES
        assert self.read(f"SELECT id FROM samples WHERE {aside} = '3.00'") == [(2,)]  # noqa: S608
        assert told.counts == (0, 0, 1, 0)

    def test_a_change_of_kind_is_undone_with_the_old_values_and_the_new_ones(self) -> None:
        self.begin()
        self.deliver(1, TEXTUAL_ROWS, contract=TEXTUAL)
        self.deliver(2, priced((1, 7.25), (3, None), (9, 9.0)), contract=PRICED)
        change = self.changes()[0]

        self.revert(change)

        assert set(self.data_columns()) == {"id", "name", "price"}
        found = dict(self.read("SELECT id, price FROM samples"))
        assert {n: found[n] for n in (0, 2, 4, 5)} == {0: "1.5", 2: "3.00", 4: None, 5: "1e300"}
        assert (found[1], found[9]) == ("7.25", "9")
        assert found[3] == ""
        assert self.make_relational().plan_schema("samples", TEXTUAL, self.ctx) == []
        assert self.deliver(3, [{"id": 2, "name": "x2", "price": "4"}], contract=TEXTUAL).counts == (0, 1, 0, 0)

    def test_values_become_those_of_the_new_kind_where_they_can(self) -> None:
        self.begin()
        names = [f"v{n}" for n in range(len(CASTS))]
        before, after = (
            contract_of(*(Column(name=name, type=case[side]) for name, case in zip(names, CASTS, strict=True)))
            for side in (0, 1)
        )
        self.deliver(
            1, [{"id": 1, **{name: case[2] for name, case in zip(names, CASTS, strict=True)}}], contract=before
        )

        self.deliver(2, [{"id": 2}], contract=after)

        found = self.read(f"SELECT {', '.join(names)} FROM samples WHERE id = 1")[0]  # noqa: S608
        for value, case in zip(found, CASTS, strict=True):
            expected = case[3]
            assert (str(value)[: len(expected)] if isinstance(expected, str) else value) == expected, case

    def test_a_value_that_the_new_kind_cannot_take_fails_the_delivery_until_its_row_is_replaced(self) -> None:
        self.begin()
        self.check_not_castable(STRING, NUMBER, "about 3")

    def check_not_castable(self, kind: ColumnType, new_kind: ColumnType, value: Any) -> None:
        """Check that a row with such a value stands in the way of the new kind, and that nothing is changed then."""
        before, after = (contract_of(Column(name="v", type=of)) for of in (kind, new_kind))
        self.deliver(1, [{"id": 1, "v": value}, {"id": 2, "v": None}], contract=before)

        with pytest.raises(SinkRejected) as caught:
            self.deliver(2, [{"id": 2, "v": None}], contract=after)
        columns = self.data_columns()
        self.deliver(3, [{"id": 1, "v": None}], contract=after)

        assert caught.value.code == "sink.value_not_castable"
        assert str(value) in str(caught.value)
        assert columns == ["id", "v"]
        assert self.read("SELECT id, v FROM samples ORDER BY id") == [(1, None), (2, None)]

    def test_a_released_column_is_removed_after_the_days_of_grace_and_filled_again_where_it_comes_back(self) -> None:
        self.begin()
        fewer = contract_of(text("name"), extra_columns=ExtraColumns.DISCARD)
        self.deliver(1, priced((1, 1.0), (2, 2.0)))
        self.deliver(2, [{"id": 1, "name": "x1"}, {"id": 3, "name": "x3"}], contract=fewer)
        (change,) = self.changes()
        kept = self.data_columns()
        self.later(days=7, hours=1)
        self.deliver(3, [{"id": 3, "name": "x3"}], contract=fewer)
        removed = self.data_columns()

        told = self.deliver(4, priced((3, 3.0), name="x"))

        assert ("price" in kept, "price" in removed) == (True, False)
        assert "removed" in change.what
        assert told.counts == (0, 1, 0, 0)
        assert self.read("SELECT id, price FROM samples ORDER BY id") == [(1, None), (2, 2.0), (3, 3.0)]

    def test_a_column_that_comes_back_within_the_days_of_grace_shows_what_the_newest_rows_have(self) -> None:
        self.begin()
        fewer = contract_of(text("name"), extra_columns=ExtraColumns.DISCARD)
        self.deliver(1, priced((1, 1.0), (2, 2.0)))
        same = self.deliver(2, [{"id": 1, "name": "x1"}], contract=fewer)

        self.deliver(3, priced((3, 3.0)))
        self.later(days=8)
        self.deliver(4, priced((4, 4.0)))

        assert same.counts == (0, 0, 1, 0)
        assert self.read("SELECT id, price FROM samples ORDER BY id") == [(1, None), (2, 2.0), (3, 3.0), (4, 4.0)]
        assert set(self.data_columns()) == {"id", "name", "price"}

    def test_the_later_of_two_changes_of_a_column_is_undone_first(self) -> None:
        self.begin()
        self.deliver(1, [{"id": 1, "v": "5"}], contract=contract_of(text("v")))
        self.deliver(2, [{"id": 2, "v": 6}], contract=contract_of(integer("v")))
        self.deliver(3, [{"id": 3, "v": 7.5}], contract=contract_of(number("v")))
        newest, older = self.changes()

        with pytest.raises(ConfigError) as caught:
            self.revert(older)
        self.revert(newest)
        self.revert(older)

        assert caught.value.code == "sink.schema_not_revertible"
        assert newest.id in str(caught.value)
        assert self.read("SELECT id, v FROM samples ORDER BY id") == [(1, "5"), (2, "6"), (3, None)]
        assert set(self.data_columns()) == {"id", "v"}

    def test_after_the_days_of_grace_a_change_stays_and_the_old_column_goes(self) -> None:
        self.begin()
        self.deliver(1, TEXTUAL_ROWS, contract=TEXTUAL)
        self.deliver(2, priced((0, 1.5)), contract=PRICED)
        change = self.changes()[0]
        self.later(days=6, hours=23)
        self.deliver(3, priced((0, 1.5)), contract=PRICED)
        kept = self.data_columns()

        self.later(hours=2)
        still_open = self.changes()
        with pytest.raises(ConfigError) as caught:
            self.revert(change)
        self.deliver(4, priced((0, 1.5)), contract=PRICED)

        assert len(kept) == 4
        assert still_open == []
        assert find_message(caught.value.code)
        assert set(self.data_columns()) == {"id", "name", "price"}
        assert "destination.column_removed" in self.recording.event_kinds()

    def test_an_unknown_change_cannot_be_reverted(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0)))

        with pytest.raises(ConfigError, match="nonsense"):
            self.make_relational().revert_schema("samples", "nonsense", self.ctx)

    def test_a_pipeline_without_a_table_has_no_changes(self) -> None:
        self.begin()

        assert self.changes() == []

    def test_parts_of_a_run_that_disagree_about_a_column_share_text(self) -> None:
        self.begin()
        tables = [
            table_of([{"id": n, "extra": value}], contract_of(), types={"extra": kind})
            for n, (value, kind) in enumerate(
                ((1, pa.int64()), ("two", pa.string()), (True, pa.bool_()), (4.0, pa.float64()))
            )
        ]

        told = self.deliver(1, *tables, contract=contract_of())

        assert told.counts == (4, 0, 0, 0)
        assert self.read("SELECT id, extra FROM samples ORDER BY id") == [(0, "1"), (1, "two"), (2, "true"), (3, "4")]
        assert self.deliver(2, *tables, contract=contract_of()).counts == (0, 0, 4, 0)

    def test_whole_numbers_and_floats_share_floats_where_these_hold_them(self) -> None:
        self.begin()
        tables = [
            table_of([{"id": n, "exact": exact, "large": large}], contract_of())
            for n, (exact, large) in enumerate(((1, 2**53 + 1), (2.5, 2.5), (3, 3)))
        ]

        told = self.deliver(1, *tables, contract=contract_of())

        assert told.counts == (3, 0, 0, 0)
        assert self.read("SELECT exact FROM samples ORDER BY id") == [(1.0,), (2.5,), (3.0,)]
        assert self.read("SELECT large FROM samples ORDER BY id") == [(str(2**53 + 1),), ("2.5",), ("3",)]

    def test_an_extra_column_without_values_is_made_once_it_has_some(self) -> None:
        self.begin()
        empty = table_of([{"id": 1, "late": None}], contract_of(), types={"late": pa.string()})
        whole = table_of([{"id": 2, "late": 7}], contract_of())

        self.deliver(1, empty, contract=contract_of())
        before = self.data_columns()
        self.deliver(2, empty, whole, contract=contract_of())

        assert before == ["id"]
        assert self.read("SELECT id, late FROM samples ORDER BY id") == [(1, None), (2, 7)]

    def test_a_column_of_a_table_without_rows_changes_where_it_stands(self) -> None:
        self.begin()
        self.deliver(1, contract=TEXTUAL)

        self.deliver(2, priced((1, 1.5)), contract=PRICED)

        assert set(self.data_columns()) == {"id", "name", "price"}
        assert self.read("SELECT price FROM samples") == [(1.5,)]

    def test_a_column_that_must_not_be_null_may_be_once_its_contract_lets_go(self) -> None:
        self.begin()
        strict = contract_of(text("name", nullable=False), text("code", nullable=False))
        self.deliver(1, [{"id": 1, "name": "a", "code": "c"}], contract=strict)
        loose = contract_of(text("name"), extra_columns=ExtraColumns.DISCARD)

        told = self.deliver(2, [{"id": 2, "name": None}], contract=loose)

        assert told.counts == (1, 0, 0, 0)
        assert self.read("SELECT id, name, code FROM samples ORDER BY id") == [(1, "a", "c"), (2, None, None)]

    def test_another_key_tells_rows_apart_from_then_on(self) -> None:
        self.begin()
        contract = contract_of(text("code", nullable=False))
        self.deliver(1, [{"id": 1, "code": "a"}, {"id": 2, "code": "b"}], contract=contract)
        by_code = contract.model_copy(update={"key": ("code",)})

        told = self.deliver(2, [{"id": 1, "code": "c"}, {"id": 7, "code": "b"}], contract=by_code)
        change = next(change for change in self.changes() if "told apart" in change.what)
        back = self.deliver(
            3, [{"id": 7, "code": "z"}], contract=by_code.model_copy(update={"key": ()}), mode=WriteMode.APPEND
        )

        assert told.counts == (1, 1, 0, 0)
        assert "code" in change.what
        assert back.counts == (1, 0, 0, 0)
        assert self.read("SELECT id, code FROM samples ORDER BY id, code") == [(1, "a"), (1, "c"), (7, "b"), (7, "z")]

    def test_a_key_that_the_rows_do_not_have_is_a_contract_to_correct(self) -> None:
        self.begin()
        contract = contract_of(text("code", nullable=False))
        self.deliver(1, [{"id": 1, "code": "a"}, {"id": 2, "code": "a"}], contract=contract)

        with pytest.raises(ConfigError) as caught:
            self.deliver(2, [{"id": 3, "code": "b"}], contract=contract.model_copy(update={"key": ("code",)}))

        assert caught.value.code == "sink.key_refused"
        assert not [change for change in self.changes() if "told apart" in change.what]
        assert self.deliver(3, [{"id": 3, "code": "b"}], contract=contract).counts == (1, 0, 0, 0)

    def test_a_key_column_changes_its_kind_with_its_rows(self) -> None:
        self.begin()
        rows = [{"id": n, "code": str(n)} for n in range(4)]
        self.deliver(1, rows, contract=contract_of(text("code", nullable=False), key=("code",)))
        whole = contract_of(integer("code", nullable=False), key=("code",))

        told = self.deliver(2, [{"id": 9, "code": 2}, {"id": 5, "code": 5}], contract=whole)

        assert told.counts == (1, 1, 0, 0)
        assert self.read("SELECT code, id FROM samples ORDER BY code") == [(0, 0), (1, 1), (2, 9), (3, 3), (5, 5)]

    def test_what_is_staged_before_a_change_is_staged_again(self) -> None:
        self.begin()
        contract = contract_of()
        first = self.manifest(5, table_of([{"id": 1, "extra": 1}], contract), contract=contract)
        sink = self.make_relational()
        sink.stage(first.parts[0], delivery_of(first), self.ctx)
        self.deliver(4, table_of([{"id": 2, "extra": "text", "more": 1.5}], contract), contract=contract)

        step = sink.commit(first, delivery_of(first), self.ctx)

        assert step.receipt is not None
        assert step.receipt.inserted == 1
        assert self.read("SELECT id, extra FROM samples ORDER BY id") == [(1, "1"), (2, "text")]

    @pytest.mark.parametrize(
        ("first", "stride"),
        [(11, 11), *(pytest.param(first, 3, marks=pytest.mark.slow) for first in (1, 2, 3))],
    )
    def test_a_change_that_is_killed_at_any_statement_is_made_by_the_next_delivery(
        self, monkeypatch: pytest.MonkeyPatch, first: int, stride: int
    ) -> None:
        connection_class: Any = self.make_relational().connection_class
        plain = connection_class.send
        left = [0]

        def send(connection: Connection, text: str, values: Any) -> Any:
            left[0] -= not text.startswith(("SELECT", "SHOW"))
            if left[0] == 0 and not text.startswith(("SELECT", "SHOW")):
                raise KilledError
            return plain(connection, text, values)

        monkeypatch.setattr(connection_class, "send", send)
        at_statement, was_killed = first - stride, True
        while was_killed:
            at_statement += stride
            self.begin()
            left[0] = 0
            self.deliver(1, TEXTUAL_ROWS, contract=TEXTUAL)
            changed = self.manifest(2, [{**row, "more": 1} for row in priced((0, 2.5), (9, 9.0))], contract=PRICED)
            left[0] = at_statement
            try:
                self.publish(changed)
                was_killed = False
            except KilledError:
                left[0] = 0
                told = self.publish(changed)
                assert told.counts == (1, 1, 0, 0), at_statement
            finally:
                left[0] = 0

            found = self.read("SELECT id, price, more FROM samples WHERE price IS NOT NULL ORDER BY id")
            kept = [(number_, price, None) for number_, price in TEXTUAL_AS_PRICES[1:]]
            assert found == [(0, 2.5, 1), *kept, (9, 9.0, 1)], at_statement
            assert self.read(f"SELECT count(*) FROM samples WHERE {self.aside()} = '3.00'") == [(1,)], at_statement  # noqa: S608

    def aside(self) -> str:
        """Return the column in which the first values of the price are kept."""
        return min(name for name in self.columns() if name.startswith("price__old"))
