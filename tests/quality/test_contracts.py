"""Contracts as people write them."""

import json

import pytest

from ingestion.ports.errors import ConfigError
from ingestion.ports.schema import Column, ColumnType, ContractBody
from ingestion.quality.contracts import compile_contract, contract_hash, dump_contract, parse_contract

SAMPLE = """
name: sample                # version is given by us
key: [id]
columns:
  - {name: id, type: integer, nullable: false}
  - {name: formula, type: string, pattern: "^[A-Z].*"}
  - {name: energy, type: number, unit: eV/atom, min: -100, max: 100}
  - {name: measured_at, type: datetime, min: 2000-01-01}
time: measured_at
extra_columns: keep
"""


def problems_of(source: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_contract(source)  # type: ignore[arg-type]
    assert caught.value.code == "contract.invalid"
    problems = caught.value.values["problems"]
    assert all(problem in str(caught.value) for problem in problems)
    return list(problems)


def test_the_contract_of_the_design_is_read() -> None:
    body = parse_contract(SAMPLE)

    assert body.key == ("id",)
    assert [column.type for column in body.columns] == ["integer", "string", "number", "datetime"]
    assert body.columns[3].min == "2000-01-01"


def test_yaml_json_and_mapping_mean_the_same() -> None:
    body = parse_contract(SAMPLE)
    as_json = json.dumps(dump_contract(body))

    assert parse_contract(as_json) == parse_contract(as_json.encode()) == parse_contract(dump_contract(body)) == body


def test_a_byte_order_mark_is_ignored() -> None:
    assert parse_contract(b"\xef\xbb\xbfname: a").name == "a"


def test_the_hash_depends_on_the_meaning_alone() -> None:
    body = parse_contract(SAMPLE)
    reordered = parse_contract(dict(reversed(dump_contract(body).items())))
    changed = parse_contract(SAMPLE.replace("100}", "101}"))

    assert contract_hash(body) == contract_hash(reordered)
    assert contract_hash(body) != contract_hash(changed)


def test_every_problem_is_named_by_its_path() -> None:
    source = {
        "name": "",
        "columns": [{"name": "a", "type": "decimal"}, {"name": "b", "minimum": 1}],
        "extra_columns": "drop",
    }

    problems = problems_of(source)

    assert [problem.split(":")[0] for problem in problems] == [
        "name",
        "columns.0.type",
        "columns.1.minimum",
        "extra_columns",
    ]


@pytest.mark.parametrize(
    ("column", "path"),
    [
        ({"name": "_row"}, "columns.0.name"),
        ({"name": "__time"}, "columns.0.name"),
        ({"name": "a", "pattern": "(?=x)"}, "columns.0.pattern"),
        ({"name": "a", "pattern": "("}, "columns.0.pattern"),
        ({"name": "a", "type": "string", "format": "%Y"}, "columns.0.format"),
        ({"name": "a", "type": "date", "format": "nonsense"}, "columns.0.format"),
        ({"name": "a", "type": "datetime", "format": "%H:%M"}, "columns.0.format"),
        ({"name": "a", "type": "string", "min": 1}, "columns.0"),
        ({"name": "a", "type": "integer", "min": "x"}, "columns.0.min"),
        ({"name": "a", "type": "number", "max": "1e999"}, "columns.0.max"),
        ({"name": "a", "type": "date", "min": "2024-02-30"}, "columns.0.min"),
        ({"name": "a", "type": "datetime", "max": "soon"}, "columns.0.max"),
        ({"name": "a", "type": "integer", "min": 2, "max": 1}, "columns.0.min"),
        ({"name": "a", "type": "integer", "enum": [1, "x"]}, "columns.0.enum.1"),
        ({"name": "a", "type": "string", "enum": [True]}, "columns.0.enum.0"),
        ({"name": "a", "enum": []}, "columns.0.enum"),
        ({"name": "a", "type": "object", "enum": ["{}"]}, "columns.0.enum"),
    ],
)
def test_a_rule_that_could_never_hold_is_refused(column: dict[str, object], path: str) -> None:
    problems = problems_of({"name": "x", "columns": [column]})

    assert [problem.split(": ")[0] for problem in problems] == [path]


@pytest.mark.parametrize(
    "source",
    [
        "- a\n- b",
        "name: [",
        "name: a\nname: b",
        '{"name": "a", "name": "b"}',
        "a: &x [1]\nname: *x",
        "name: a\nkey: [id]",
        "name: a\ntime: t",
        '{"name": "x", "columns": [{"name": "a", "type": "number", "min": NaN}]}',
        "!!python/object/apply:os.system ['true']",
        "[" * 5_000,
        '{"a":' * 5_000,
        b"\xff\xfe",
        "name: 2024-13-45",
        "#" * (1 << 21),
        "",
    ],
)
def test_a_text_that_is_no_contract_is_one_clear_error(source: str | bytes) -> None:
    assert problems_of(source)


@pytest.mark.parametrize("kind", [ColumnType.OBJECT, ColumnType.ARRAY, ColumnType.ANY])
def test_nested_values_cannot_be_a_key(kind: ColumnType) -> None:
    body = ContractBody(name="x", key=("a",), columns=(Column(name="a", type=kind),))

    with pytest.raises(ConfigError, match="key.0"):
        compile_contract(body)


def test_a_number_that_yaml_takes_for_text_is_read() -> None:
    body = parse_contract("name: a\ncolumns: [{name: x, type: number, min: 1e-9}]")

    assert compile_contract(body).body.columns[0].min == "1e-9"
