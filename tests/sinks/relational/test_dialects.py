"""The SQL of every dialect, without a server."""

import pytest

from ingestion.toolkit.clean.kinds import Kind
from sinks.relational.dialect import Dialect, Merge
from sinks.relational.mysql.dialect import MySQLDialect
from sinks.relational.naming import LINEAGE
from sinks.relational.postgres import dialect as postgres
from sinks.relational.postgres.dialect import PostgresDialect
from sinks.relational.schema_plan import ActualColumn, NewColumn, TableKey
from sinks.relational.sqlite.dialect import SqliteDialect
from sinks.relational.statements import Name, sql

POSTGRES, MYSQL, SQLITE = PostgresDialect("lab"), MySQLDialect("lab"), SqliteDialect("/lab.sqlite3")
DIALECTS: list[Dialect] = [POSTGRES, MYSQL, SQLITE]
COLUMN = sql("{}", Name("v"))
MERGE = Merge(
    target="samples",
    staging="staged",
    columns={"id": "bigint", "name": "text"},
    key=("id",),
    run_id=7,
    has_deletions=False,
)
each = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


@each
@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.NOTHING])
def test_every_kind_has_a_type_and_is_read_from_text_and_written_as_text(dialect: Dialect, kind: Kind) -> None:
    assert dialect.type_of(NewColumn("v", kind))
    assert '"v"' in dialect.render(dialect.as_text(COLUMN, kind))[0].replace("`", '"')
    if kind is not Kind.TEXT:
        assert '"v"' in dialect.render(dialect.recast(COLUMN, old=Kind.TEXT, new=kind))[0].replace("`", '"')


@each
def test_a_name_cannot_leave_its_quotes(dialect: Dialect) -> None:
    mark = dialect.quotation_mark
    text, values = dialect.render(dialect.dropping(f"a{mark}; DROP TABLE b"))

    assert text.endswith(f"{mark}a{mark * 2}; DROP TABLE b{mark}")
    assert values == []


@each
def test_a_merge_writes_where_rows_came_from_and_never_a_newer_run(dialect: Dialect) -> None:
    for statement in (dialect.updating(MERGE, 1, 9), dialect.inserting(MERGE, 1, 9)):
        text, values = dialect.render(statement)
        assert 7 in values
        assert all(name in text for name in LINEAGE)
    again = Merge(**{**{name: getattr(MERGE, name) for name in MERGE.__slots__}, "may_change_own": True})
    assert " < " in dialect.render(dialect.changeable(MERGE))[0]
    assert " <= " in dialect.render(dialect.changeable(again))[0]
    assert "1 = 0" in dialect.render(dialect.changed(Merge("t", "s", {"id": "bigint"}, ("id",), 7, False)))[0]


@each
def test_a_table_is_made_with_its_key_and_rekeyed_to_none(dialect: Dialect) -> None:
    columns = [NewColumn("id", Kind.INTEGER, nullable=False, is_key=True), NewColumn("_run", Kind.INTEGER)]
    made = " ".join(statement.shown(dialect.quote) for statement in dialect.creating("samples", columns, key=("id",)))
    gone = dialect.rekeying("samples", old=TableKey(("id",), "samples_pkey"), new=(), columns={})

    assert made.startswith("CREATE TABLE")
    assert made.count("_run") >= 2, "runs are asked for, so they are indexed"
    assert "DROP" in " ".join(statement.shown(dialect.quote) for statement in gone)


@pytest.mark.parametrize("dialect", [MYSQL, SQLITE], ids=lambda dialect: dialect.name)
def test_numbered_rows_are_cut_into_ranges_that_hold_all(dialect: Dialect) -> None:
    ranges = dialect.ranges(1, dialect.merge_rows + 1)

    assert ranges == [(1, dialect.merge_rows + 1), (dialect.merge_rows + 1, 2 * dialect.merge_rows + 1)]
    assert dialect.ranges(None, None) == []


def test_pages_are_cut_into_ranges_that_hold_all_and_addresses_are_read_back() -> None:
    ranges = POSTGRES.ranges(100, 3 * POSTGRES.merge_rows)

    assert ranges[0][0] == 0
    assert ranges[-1][1] >= 100 << 16
    assert all(end == first for (_, end), (first, _) in zip(ranges, ranges[1:], strict=False))
    assert POSTGRES.ranges(0, 0.0) == []
    assert POSTGRES.address_of("(3,17)") == 3 << 16 | 17
    assert "'(3,17)'::tid" in POSTGRES.within("", 3 << 16 | 17, 4 << 16).shown(POSTGRES.quote)


def test_postgresql_merges_by_one_statement_where_the_server_knows_it() -> None:
    assert POSTGRES.merging(MERGE, 0, 1) is not None
    assert PostgresDialect("lab", version=postgres.MERGE_SINCE - 1).merging(MERGE, 0, 1) is None
    assert MYSQL.merging(MERGE, 0, 1) is None


@pytest.mark.parametrize(("key_columns", "length"), [(1, 255), (3, 255), (4, 192)])
def test_a_text_in_a_key_of_mysql_is_as_long_as_an_index_takes(key_columns: int, length: int) -> None:
    new = NewColumn("code", Kind.TEXT, is_key=True)
    found = {"code": ActualColumn("longtext")}
    key = ["code", *(f"k{number}" for number in range(1, key_columns))]

    assert MYSQL.type_of(new, key_columns=key_columns).startswith(f"varchar({length}) ")
    assert f"varchar({length})" in MYSQL.rekeying("t", old=TableKey(), new=key, columns=found)[0].shown(MYSQL.quote)


@pytest.mark.parametrize(
    ("column_type", "is_cast"),
    [
        ("bigint", False),
        ("longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin", False),
        ("varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", True),
    ],
)
def test_a_column_of_mysql_in_which_texts_look_alike_is_compared_by_its_bytes(column_type: str, is_cast: bool) -> None:
    text = MYSQL.changed(Merge("t", "s", {"id": "bigint", "v": column_type}, ("id",), 7, False)).shown(MYSQL.quote)

    assert ("AS BINARY" in text) is is_cast


def test_a_limit_of_a_statement_is_told_to_the_servers_that_take_one() -> None:
    by_dialect = {
        dialect: " ".join(
            statement.shown(dialect.quote) for statement in dialect.beginning(limit_s=77, only_reads=False)
        )
        for dialect in (POSTGRES, MYSQL, MySQLDialect("lab", is_mariadb=True))
    }

    assert ["77" in text for text in by_dialect.values()] == [True, False, True]
