"""Statements in which names and values cannot be taken for SQL."""

import pytest

from sinks.relational.statements import Name, Sql, Value, column_of, joined, names, sql


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def written(statement: Sql, mark: str = "%s") -> tuple[str, list[object]]:
    return statement.written_for(quote=quote, mark=mark)


def test_names_are_quoted_and_values_bound() -> None:
    statement = sql("DELETE FROM {} WHERE {} = {}", Name("lab", 'a"b'), Name("id"), Value("x' OR 1=1"))

    assert written(statement) == ('DELETE FROM "lab"."a""b" WHERE "id" = %s', ["x' OR 1=1"])
    assert written(statement, "?") == ('DELETE FROM "lab"."a""b" WHERE "id" = ?', ["x' OR 1=1"])


@pytest.mark.parametrize("name", ["{}", "100%", "%s", "?", "a.b", "\0"])
def test_a_name_is_never_read_as_anything_else(name: str) -> None:
    text, values = written(sql("SELECT {} FROM {}", Name(name), sql("{}", Name("t"))), "?")

    assert (text, values) == (f'SELECT "{name}" FROM "t"', [])  # noqa: S608


def test_a_percent_sign_is_doubled_only_where_the_driver_halves_it() -> None:
    named = sql("SELECT '%Y', {}", Name("100%"))

    assert written(named)[0] == "SELECT '%Y', \"100%\""
    assert written(sql("{} WHERE a = {}", named, Value(1)))[0] == "SELECT '%%Y', \"100%%\" WHERE a = %s"
    assert written(sql("{} WHERE a = {}", named, Value(1)), "?")[0] == "SELECT '%Y', \"100%\" WHERE a = ?"


def test_pieces_nest_and_join_in_order() -> None:
    condition = joined(" AND ", (sql("{} = {}", column_of("t", name), Value(n)) for n, name in enumerate("ab")))

    text, values = written(sql("SELECT {} WHERE {}", names(("a", "b"), of="t"), condition))

    assert text == 'SELECT t."a", t."b" WHERE t."a" = %s AND t."b" = %s'
    assert values == [0, 1]


def test_a_person_sees_the_values_in_their_places() -> None:
    assert sql("SELECT {} + {}", Value(1), Value("a")).shown(quote) == "SELECT 1 + 'a'"


def test_a_template_with_too_few_arguments_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="2 places for 1"):
        sql("{} = {}", Name("a"))
