"""Column names become safe, and what changed is told."""

import pytest

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.tabular.assembly import clean_header


@pytest.mark.parametrize(
    ("found", "columns", "renamed"),
    [
        (["a", "b"], ("a", "b"), {}),
        (["_x", "__time", "___y"], ("x_", "time_", "y_"), {"x_": "_x", "time_": "__time", "y_": "___y"}),
        (["_x", "x_"], ("x__", "x_"), {"x__": "_x"}),
        (["_x", "__x"], ("x_", "x__"), {"x_": "_x", "x__": "__x"}),
        (["a", "", ""], ("a", "column_2", "column_3"), {"column_2": "", "column_3": ""}),
        (["column_2", ""], ("column_2", "column_2_"), {"column_2_": ""}),
        (["_", "__"], ("column_1", "column_2"), {"column_1": "_", "column_2": "__"}),
        (["n" * 300], ("n" * 200,), {"n" * 200: "n" * 300}),
        (['<script>"; DROP', "😀"], ('<script>"; DROP', "😀"), {}),
    ],
)
def test_names_are_cleaned(found: list[str], columns: tuple[str, ...], renamed: dict[str, str]) -> None:
    header = clean_header(found, name="a.csv")

    assert header.columns == columns
    assert header.renamed == renamed


def test_long_names_that_begin_alike_stay_apart() -> None:
    header = clean_header(["n" * 300, "n" * 301, "n" * 302, "_" + "n" * 300], name="a.csv")

    assert len(set(header.columns)) == 4
    assert all(len(column) <= 200 for column in header.columns)


def test_a_doubled_name_is_refused() -> None:
    with pytest.raises(ConfigError) as raised:
        clean_header(["a", "b", "a"], name="a.csv")

    assert (raised.value.code, raised.value.values["column"]) == ("file.duplicate_column", "a")
