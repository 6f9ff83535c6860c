"""The changes that a table needs to take a run: planned from names and kinds alone."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ingestion.ports.schema import ContractBody
from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.naming import LINEAGE, Limits
from sinks.relational.schema_plan import (
    ActualColumn,
    AddColumn,
    ChangeKey,
    CreateTable,
    MappedColumn,
    NewColumn,
    Plan,
    RelaxColumn,
    ReleaseColumn,
    ReplaceColumn,
    RequiredColumn,
    RetypeColumn,
    Table,
    plan_changes,
)
from sinks.relational.table_kinds import Content

LIMITS = Limits(longest=63)
INTEGER, NUMBER, TEXT = Content(Kind.INTEGER), Content(Kind.NUMBER), Content(Kind.TEXT)


def declared(source: str, content: Content = INTEGER, **changes: Any) -> RequiredColumn:
    return RequiredColumn(source, content, is_declared=True, **changes)


def table(
    key: tuple[str, ...] = (), *, asides: frozenset[str] = frozenset(), is_empty: bool = False, **columns: MappedColumn
) -> Table:
    """Return a table with these columns of the data, and ours."""
    found = {entry.column: ActualColumn(entry.kind.value, not entry.is_required) for entry in columns.values()}
    return Table(
        "t",
        {**found, **dict.fromkeys(LINEAGE, ActualColumn("integer"))},
        columns,
        key=key,
        asides=asides,
        is_empty=is_empty,
    )


def known(column: str, kind: Kind = Kind.INTEGER, **changes: Any) -> MappedColumn:
    return MappedColumn(column, kind, **changes)


def plan(
    before: Table, *wanted: RequiredColumn, key: tuple[str, ...] = (), fits: Mapping[str, bool] | None = None, **of: Any
) -> Plan:
    return plan_changes(
        before,
        wanted,
        key=key,
        marks_deletions=of.get("marks_deletions", False),
        limits=of.get("limits", LIMITS),
        day="20260102",
        fits_number=lambda column: (fits or {})[column],
        keeps_extras=of.get("keeps_extras", True),
    )


def test_a_missing_table_is_created_in_the_order_of_the_contract_with_ours_behind() -> None:
    made = plan(
        Table("t"), declared("b", nullable=False), declared("a", TEXT), RequiredColumn("extra", NUMBER), key=("b",)
    )

    (created,) = made.changes
    assert isinstance(created, CreateTable)
    assert [column.column for column in created.columns] == ["b", "a", "extra", *LINEAGE]
    assert created.columns[0] == NewColumn("b", Kind.INTEGER, nullable=False, is_key=True)
    assert created.key == ("b",)
    assert made.mapped["b"] == MappedColumn("b", Kind.INTEGER, was_declared=True, is_required=True)
    assert made.mapped["extra"] == MappedColumn("extra", Kind.NUMBER)


def test_a_table_that_fits_needs_nothing() -> None:
    before = table(("a",), a=known("a", was_declared=True))

    made = plan(before, declared("a"), key=("a",))

    assert made.changes == ()
    assert not made.is_needed_by(before)


def test_a_missing_column_is_added_and_may_be_null_though_the_contract_forbids_it() -> None:
    made = plan(table(a=known("a")), declared("a"), declared("b", TEXT, nullable=False))

    assert made.changes == (AddColumn(NewColumn("b", Kind.TEXT)),)


def test_a_column_that_a_person_dropped_comes_back() -> None:
    before = table(a=known("a"), b=known("b"))
    before = replace(before, actual={name: found for name, found in before.actual.items() if name != "b"})

    assert plan(before, declared("a"), declared("b")).changes == (AddColumn(NewColumn("b", Kind.INTEGER)),)


def test_a_declared_column_of_another_kind_is_set_aside() -> None:
    made = plan(table(a=known("a", Kind.TEXT)), declared("a"))

    assert made.changes == (ReplaceColumn(NewColumn("a", Kind.INTEGER), Kind.TEXT, aside="a__old_20260102"),)
    assert made.mapped["a"].kind is Kind.INTEGER


def test_a_column_of_a_table_without_rows_is_retyped() -> None:
    assert plan(table(is_empty=True, a=known("a", Kind.TEXT)), declared("a")).changes == (
        RetypeColumn(NewColumn("a", Kind.INTEGER)),
    )


def test_an_extra_column_only_ever_widens() -> None:
    before = table(a=known("a", Kind.TEXT), b=known("b"), c=known("c"))

    made = plan(
        before, RequiredColumn("a", INTEGER), RequiredColumn("b", TEXT), RequiredColumn("c", NUMBER), fits={"c": True}
    )

    assert [
        (type(change), change.new.column, change.new.kind)
        for change in made.changes
        if isinstance(change, ReplaceColumn)
    ] == [
        (ReplaceColumn, "b", Kind.TEXT),
        (ReplaceColumn, "c", Kind.NUMBER),
    ]


def test_whole_numbers_that_a_float_does_not_hold_become_text_beside_floats() -> None:
    made = plan(table(c=known("c")), RequiredColumn("c", NUMBER), fits={"c": False})

    (change,) = made.changes
    assert isinstance(change, ReplaceColumn)
    assert change.new.kind is Kind.TEXT


def test_an_extra_column_without_values_asks_for_nothing() -> None:
    before = table(a=known("a"))

    assert not plan(before, RequiredColumn("a", Content(None)), RequiredColumn("b", Content(None))).is_needed_by(before)


def test_what_a_contract_declares_anew_is_noted_without_a_change() -> None:
    before = table(a=known("a"))

    made = plan(before, declared("a"))

    assert made.changes == ()
    assert made.is_needed_by(before)
    assert made.mapped["a"].was_declared


def test_only_our_own_not_null_is_lifted_while_the_contract_names_the_column() -> None:
    before = table(ours=known("ours", was_declared=True, is_required=True), theirs=known("theirs", was_declared=True))
    before = replace(before, actual={**before.actual, "theirs": ActualColumn("integer", nullable=False)})

    made = plan(before, declared("ours"), declared("theirs"))

    assert made.changes == (RelaxColumn("ours", "integer"),)
    assert not made.mapped["ours"].is_required


def test_a_column_that_the_contract_gave_up_stays_and_may_be_null() -> None:
    before = table(a=known("a"), b=known("b", was_declared=True))
    before = replace(before, actual={**before.actual, "b": ActualColumn("text", nullable=False)})

    made = plan(before, declared("a"))

    assert made.changes == (RelaxColumn("b", "text"),)
    assert "b" in made.mapped


def test_another_key_replaces_the_old_one() -> None:
    before = table(("a",), a=known("a", was_declared=True), b=known("b", was_declared=True))

    assert plan(before, declared("a"), declared("b"), key=("b",)).changes == (ChangeKey(("a",), ("b",)),)
    assert plan(before, declared("a"), declared("b")).changes == (ChangeKey(("a",), ()),)


def test_a_key_is_lifted_while_a_column_of_it_is_replaced() -> None:
    made = plan(table(("a",), a=known("a", Kind.TEXT)), declared("a"), key=("a",))

    assert [type(change) for change in made.changes] == [ChangeKey, ReplaceColumn, ChangeKey]
    assert (made.changes[0], made.changes[-1]) == (ChangeKey(("a",), ()), ChangeKey((), ("a",)))


def test_deletions_get_their_column_once_they_are_marked() -> None:
    before = table(a=known("a"))

    (change,) = plan(before, RequiredColumn("a", INTEGER), marks_deletions=True).changes

    assert isinstance(change, AddColumn)
    assert change.new.column == "_deleted_at"


def test_a_column_of_somebody_else_is_taken_over_but_none_that_was_set_aside() -> None:
    before = replace(
        table(), actual={"Note": ActualColumn("varchar(9)"), "a__old": ActualColumn("text"), **table().actual}
    )
    before = replace(before, asides=frozenset({"a__old"}))

    made = plan(
        before,
        RequiredColumn("note", TEXT),
        RequiredColumn("a__old", TEXT),
        limits=Limits(longest=63, ignores_case=True),
    )

    assert made.mapped["note"].column == "Note"
    assert made.changes == (AddColumn(NewColumn("a__old_2", Kind.TEXT)),)


def test_a_contract_that_was_noted_and_read_again_is_the_same() -> None:
    given = ContractBody.model_validate(
        {
            "name": "samples",
            "key": ["a"],
            "columns": [
                {"name": "a", "type": "integer", "nullable": False, "min": 1, "enum": [1, 2]},
                {"name": "day", "type": "date", "max": "2026-01-01", "format": "%d.%m.%Y"},
            ],
        }
    )
    noted = json.loads(json.dumps(given.model_dump(mode="json", exclude_defaults=True)))

    assert Table("t", contract=ContractBody.model_validate(noted)).follows(given)
    assert not Table("t", contract=given).follows(given.model_copy(update={"key": ()}))
    assert not Table("t").follows(given)


def test_a_column_that_the_contract_has_no_more_is_released_and_filled_again_where_it_comes_back() -> None:
    before = table(a=known("a"), b=known("b", was_declared=True))

    released = plan(before, declared("a"), keeps_extras=False)
    kept = plan(before, declared("a"))
    back = plan(replace(before, mapped=released.mapped), declared("a"), declared("b"), keeps_extras=False)

    assert released.changes == (ReleaseColumn("b"),)
    assert not released.mapped["b"].is_seen
    assert kept.changes == ()
    assert back.changes == (ReplaceColumn(NewColumn("b", Kind.INTEGER), Kind.INTEGER, aside="b__old_20260102"),)
    assert back.mapped["b"].is_seen


def test_a_missing_column_is_filled_where_the_rows_that_are_there_have_values_in_it() -> None:
    held = declared("b", TEXT, is_held=True)

    assert plan(table(a=known("a")), declared("a"), held).changes == (
        AddColumn(NewColumn("b", Kind.TEXT), is_filled=True),
    )
    assert plan(table(is_empty=True, a=known("a")), declared("a"), held).changes == (
        AddColumn(NewColumn("b", Kind.TEXT)),
    )
