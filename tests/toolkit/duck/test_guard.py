"""What SQL may run, and that the walls around it hold by themselves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.toolkit.clean.kinds import ColumnShape, Kind, PartShape
from ingestion.toolkit.duck import child, guard
from ingestion.toolkit.duck.views import ViewFile, view_statements


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Any]:
    """A connection as the process of a query has it: the view of one file, and every way out shut.

    DuckDB lets queries write into its folder for spill files, which is one of the query's own.
    """
    for name in ("rows", "other"):
        pq.write_table(pa.table({"id": [1, 2, 3]}), tmp_path / f"{name}.parquet")
    path = tmp_path / "rows.parquet"
    kinds = {"id": Kind.INTEGER}
    setup = view_statements([ViewFile(path, PartShape((ColumnShape("id", "int64"),), (3,)))], kinds=kinds)
    job = {
        "files": [str(path)],
        "setup": setup,
        "memory_bytes": 64 << 20,
        "threads": 1,
        "scratch": str(tmp_path / "own"),
    }
    with duckdb.connect(":memory:", config=child._config(job)) as connection:
        child._close_in(connection, job)
        yield connection


@pytest.mark.parametrize(
    "sql",
    [
        "FROM rows SELECT count(*)",
        "DESCRIBE rows",
        "SUMMARIZE rows",
        "WITH x AS (SELECT * FROM rows), y AS (SELECT * FROM x) SELECT * FROM y UNION ALL SELECT * FROM x",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL (SELECT n + 1 FROM t WHERE n < 5)) SELECT * FROM t, rows",
        "SELECT * FROM rows a JOIN Rows b USING (id), range(3), unnest([1, 2])",
        "SELECT (SELECT max(id) FROM rows r WHERE r.id < rows.id) FROM rows",
        "VALUES (1), (2);",
    ],
)
def test_one_select_over_the_rows_may_run(closed: Any, sql: str) -> None:
    guard.check_query(closed, sql)

    assert closed.execute(sql).fetchall()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_parquet('lake/**/*.parquet')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM query('SELECT 1')",
        "COPY rows TO '/tmp/rows.csv'",
        "COPY (SELECT 1) TO '/dev/stdout'",
        "ATTACH '/tmp/other.db'",
        "ATTACH 'https://example.org/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '100GB'",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO rows VALUES (1)",
        "DROP VIEW rows",
        "EXPORT DATABASE '/tmp/x'",
        "EXPLAIN ANALYZE SELECT 1",
        "WITH x AS (INSERT INTO rows VALUES (1) RETURNING *) SELECT * FROM x",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY rows TO '/tmp/rows.csv'",
        "",
        "-- nothing",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM duckdb_views",
        "WITH duckdb_settings AS (SELECT 1) SELECT * FROM duckdb_settings",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM main.rows",
        "SELECT * FROM every_version",
        "SELECT current_setting('allowed_paths')",
        "SELECT getvariable('x')",
        "SELECT sleep_ms(100000)",
        "SHOW TABLES",
    ],
)
def test_everything_else_is_refused_before_it_runs(closed: Any, sql: str) -> None:
    with pytest.raises(guard.NotAllowed):
        guard.check_query(closed, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_parquet('https://example.org/x.parquet')",
        "SELECT * FROM read_parquet('{folder}/*.parquet')",
        "SELECT * FROM read_parquet('{folder}/other.parquet')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM hidden",
        "COPY rows TO '{folder}/rows.csv'",
        "COPY rows TO '{folder}/rows.parquet'",
        "ATTACH '{folder}/other.db'",
        "EXPORT DATABASE '{folder}/x'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '100GB'",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "RESET lock_configuration",
    ],
)
def test_the_walls_hold_without_the_guard(closed: Any, tmp_path: Path, sql: str) -> None:
    before = sorted(tmp_path.iterdir())
    hidden = [1]  # noqa: F841 - what a query could find by its name

    with pytest.raises(duckdb.Error):
        closed.execute(sql.format(folder=tmp_path)).fetchall()

    assert sorted(tmp_path.iterdir()) == before
