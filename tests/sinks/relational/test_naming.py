"""Names within the limits of a database."""

import pytest

from ingestion.ports.publication import PartView
from sinks.relational.naming import (
    Limits,
    aside_name,
    column_name,
    number_of,
    part_of,
    problem_of_table,
    problem_of_template,
    run_of,
    staging_name,
    table_name,
)

BYTES = Limits(longest=63, counts_bytes=True)
CHARACTERS = Limits(longest=64, ignores_case=True, last_character=0xFFFF)


@pytest.mark.parametrize(
    "template", ["", "  ", "{run}", "{pipeline", "pipeline}", "{pipeline.__class__}", "a\nb", "{0}"]
)
def test_a_template_has_one_placeholder_and_no_other_braces(template: str) -> None:
    assert problem_of_template(template)


@pytest.mark.parametrize(
    "template", ["{pipeline}", "lab_{pipeline}", "{pipeline}_{pipeline}", "materials", "ü {pipeline}"]
)
def test_a_template_may_surround_the_pipeline(template: str) -> None:
    assert problem_of_template(template) == ""
    assert table_name(template, pipeline="p") == template.replace("{pipeline}", "p")


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("x" * 64, BYTES),
        ("ü" * 32, BYTES),
        ("x" * 65, CHARACTERS),
        ("a😀", CHARACTERS),
        ("headgate_tables", BYTES),
        ("Headgate_x", CHARACTERS),
        (" x", BYTES),
        ("x ", CHARACTERS),
        ("a\0b", BYTES),
    ],
)
def test_a_table_name_that_the_database_does_not_take_is_refused(name: str, limits: Limits) -> None:
    assert problem_of_table(name, limits=limits)


def test_a_table_name_may_be_as_long_as_the_limit() -> None:
    assert problem_of_table("ü" * 31 + "x", limits=BYTES) == ""
    assert problem_of_table("ü" * 64, limits=CHARACTERS) == ""


@pytest.mark.parametrize(
    ("wanted", "taken", "limits", "expected"),
    [
        ("price", (), BYTES, "price"),
        ("Price", ("price",), BYTES, "Price"),
        ("Price", ("price",), CHARACTERS, "Price_2"),
        ("Price", ("price", "Price_2"), CHARACTERS, "Price_3"),
        ("a\tb\0", (), BYTES, "a_b_"),
        (" x ", (), BYTES, "x"),
        ("😀", (), CHARACTERS, "_"),
        ("", (), BYTES, "_"),
        ("ü" * 40, (), BYTES, "ü" * 31),
        ("ü" * 41, ("ü" * 31,), BYTES, "ü" * 30 + "_2"),
    ],
)
def test_a_column_keeps_its_name_as_far_as_it_can(
    wanted: str, taken: tuple[str, ...], limits: Limits, expected: str
) -> None:
    assert column_name(wanted, taken=taken, limits=limits) == expected


def test_a_column_set_aside_says_since_when() -> None:
    assert aside_name("price", day="20260102", taken=(), limits=BYTES) == "price__old_20260102"
    assert aside_name("price", day="20260102", taken=("price__old_20260102",), limits=BYTES) == "price__old_20260102_2"
    assert len(aside_name("x" * 63, day="20260102", taken=(), limits=BYTES)) == 63


def test_a_part_is_known_by_its_number() -> None:
    for lane, link, seq in ((0, 0, 0), (3, 14, 15), (2**22, 2**19, 2**19), (0, 1, 0)):
        part = PartView("key", lane, link, seq, rows=1, size_bytes=1, sha256="0")

        assert part_of(number_of(part.name)) == part.name
        assert number_of(part.name) < 2**63


def test_a_staging_table_is_known_by_its_name() -> None:
    name = staging_name("samples", run_id=17)

    assert run_of(name, table="samples") == 17
    assert run_of(name, table="others") is None
    assert run_of("samples", table="samples") is None
    assert len(staging_name("x" * 63, run_id=2**63)) < 63
