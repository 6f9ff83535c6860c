"""Names and types of columns in Druid."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.ports.schema import Column, ColumnType, ContractBody
from sinks.druid.columns import (
    LONGEST_NAME,
    DruidType,
    as_notes,
    can_be_read_as_parquet,
    columns_hash,
    druid_columns,
    from_notes,
    is_changed,
    safe_name,
    types_of_part,
)

PLAIN = ContractBody(name="plain")
NAMES = st.text(max_size=200)
KINDS = ("int64", "double", "bool", "string", "uint64", "timestamp[us, tz=UTC]", "date32[day]")


def declared(**types: ColumnType) -> ContractBody:
    return ContractBody(name="c", columns=tuple(Column(name=name, type=kind) for name, kind in types.items()))


def types_of(contract: ContractBody, *parts: Mapping[str, str]) -> dict[str, DruidType]:
    columns = druid_columns(contract, [types_of_part(contract, part) for part in parts])
    return {column.source: column.type for column in columns if not column.source.startswith("_")}


@given(NAMES)
def test_a_name_that_druid_bears_stays(name: str) -> None:
    plain = name.replace(",", "").replace("\r", "").replace("\n", "").strip("_")[:60]

    assert not plain or safe_name(plain) == plain


@given(NAMES)
def test_any_name_becomes_one_that_can_be_loaded_and_asked_for(name: str) -> None:
    safe = safe_name(name)

    assert 0 < len(safe.encode("utf-16-le", "surrogatepass")) // 2 <= LONGEST_NAME
    assert not set(safe) & set(",\r\n")
    assert safe != "__time"
    assert safe_name(name) == safe


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a,b",
        "a\nb",
        "a\rb",
        ",",
        "__time",
        "__headgate_time",
        "__headgate_no_time",
        "x" * 129,
        "\N{GRINNING FACE}" * 65,
        ",\n" * 100,
    ],
)
def test_a_name_that_breaks_a_load_is_changed(name: str) -> None:
    assert safe_name(name) != name


@pytest.mark.parametrize(
    "name",
    ["a b", 'c"d', "e.f", "g'h", "i\\j", "ü", "x" * 128, "\N{GRINNING FACE}" * 64, "Energy", "select", " ", "\t"],
)
def test_a_name_that_only_looks_strange_stays(name: str) -> None:
    assert safe_name(name) == name


@given(st.sets(NAMES, max_size=12))
def test_names_stay_unique(names: set[str]) -> None:
    columns = druid_columns(PLAIN, [dict.fromkeys(names, DruidType.STRING)])

    assert len({column.name for column in columns}) == len(columns)


def test_a_changed_name_avoids_one_that_is_taken() -> None:
    made = safe_name("a,b")

    columns = druid_columns(PLAIN, [{made: DruidType.STRING, "a,b": DruidType.LONG}])

    names = {column.source: column.name for column in columns}
    assert names[made] == made
    assert names["a,b"] not in (made, "a,b")


def test_names_that_differ_in_case_are_two_columns() -> None:
    found = types_of(PLAIN, {"Energy": "double", "energy": "string"})

    assert found == {"Energy": DruidType.DOUBLE, "energy": DruidType.STRING}


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (ColumnType.STRING, DruidType.STRING),
        (ColumnType.INTEGER, DruidType.LONG),
        (ColumnType.NUMBER, DruidType.DOUBLE),
        (ColumnType.BOOLEAN, DruidType.LONG),
        (ColumnType.DATE, DruidType.LONG),
        (ColumnType.DATETIME, DruidType.LONG),
        (ColumnType.OBJECT, DruidType.JSON),
        (ColumnType.ARRAY, DruidType.JSON),
        (ColumnType.ANY, DruidType.STRING),
    ],
)
def test_every_declared_type_has_its_own(kind: ColumnType, found: DruidType) -> None:
    assert types_of(declared(a=kind)) == {"a": found}


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        (["int64", "int64"], DruidType.LONG),
        (["int64", "int32"], DruidType.LONG),
        (["int64", "bool"], DruidType.LONG),
        (["int64", "double"], DruidType.STRING),
        (["int64", "string"], DruidType.STRING),
        (["string", "int64"], DruidType.STRING),
        (["double", "string", "double"], DruidType.STRING),
        (["uint64"], DruidType.STRING),
        (["timestamp[us, tz=UTC]"], DruidType.LONG),
        (["date32[day]"], DruidType.LONG),
        (["list<item: int64>"], DruidType.STRING),
    ],
)
def test_an_undeclared_column_that_parts_disagree_about_is_text(kinds: list[str], found: DruidType) -> None:
    assert types_of(PLAIN, *({"a": kind} for kind in kinds)) == {"a": found}


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        (ColumnType.INTEGER, ColumnType.NUMBER, DruidType.DOUBLE),
        (ColumnType.NUMBER, ColumnType.INTEGER, DruidType.STRING),
        (ColumnType.STRING, ColumnType.INTEGER, DruidType.STRING),
        (ColumnType.STRING, ColumnType.NUMBER, DruidType.STRING),
        # Text that an object column would make null without a word.
        (ColumnType.STRING, ColumnType.OBJECT, DruidType.STRING),
        (ColumnType.OBJECT, ColumnType.STRING, DruidType.STRING),
        (ColumnType.BOOLEAN, ColumnType.INTEGER, DruidType.LONG),
    ],
)
def test_a_column_that_was_something_else_under_an_earlier_contract_loses_nothing(
    before: ColumnType, now: ColumnType, found: DruidType
) -> None:
    kinds = {
        ColumnType.INTEGER: "int64",
        ColumnType.NUMBER: "double",
        ColumnType.BOOLEAN: "bool",
        ColumnType.STRING: "string",
        ColumnType.OBJECT: "string",
    }
    parts = [
        types_of_part(declared(a=before), {"a": kinds[before]}),
        types_of_part(declared(a=now), {"a": kinds[now]}),
    ]

    columns = druid_columns(declared(a=now), parts)

    assert columns[0].type is found


def test_the_order_of_parts_does_not_matter() -> None:
    one, other = {"a": "int64", "b": "string"}, {"b": "double", "a": "bool"}

    assert types_of(PLAIN, one, other) == types_of(PLAIN, other, one)


def test_a_source_cannot_take_the_place_of_our_own_columns() -> None:
    columns = druid_columns(PLAIN, [types_of_part(PLAIN, {"_run": "string", "_part": "int64", "a": "string"})])

    assert {column.name: column.type for column in columns if column.name.startswith("_")} == {
        "_run": DruidType.LONG,
        "_part": DruidType.STRING,
        "_row": DruidType.LONG,
        "_page": DruidType.LONG,
    }


@pytest.mark.parametrize(
    ("contract", "parts", "is_readable"),
    [
        (PLAIN, [{"a": "string", "b": "int64", "c": "double"}], True),
        (PLAIN, [{"a": "large_string"}], True),
        (PLAIN, [{"a": "string"}, {}], True),
        (PLAIN, [{"a": "uint64"}], False),
        (PLAIN, [{"a": "string"}, {"a": "int64"}], False),
        (PLAIN, [{"a": "string"}, {"a": "timestamp[us, tz=UTC]"}], False),
        (PLAIN, [{"a,b": "string"}], False),
        (declared(a=ColumnType.OBJECT), [{"a": "string"}], True),
    ],
)
def test_parquet_is_read_as_it_is_only_where_text_is_text(
    contract: ContractBody, parts: list[dict[str, str]], is_readable: bool
) -> None:
    columns = druid_columns(contract, [types_of_part(contract, part) for part in parts])

    assert can_be_read_as_parquet(columns, parts) is is_readable


@given(st.dictionaries(NAMES, st.sampled_from(KINDS), max_size=8))
def test_columns_can_be_noted_and_told_apart(kinds: dict[str, str]) -> None:
    columns = druid_columns(PLAIN, [types_of_part(PLAIN, kinds)])

    assert from_notes(as_notes(columns)) == columns
    assert columns_hash(from_notes(as_notes(columns))) == columns_hash(columns)
    assert columns_hash(columns[:-1]) != columns_hash(columns)
    assert is_changed(columns) == any(column.source != column.name for column in columns)
