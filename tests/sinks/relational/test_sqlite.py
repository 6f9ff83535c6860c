"""A SQLite file."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ingestion.ports.errors import ConfigError, SinkUnavailable
from ingestion.ports.schema import ColumnType
from ingestion.ports.sink import Sink
from sinks.relational.diagnosis import ErrorClass
from sinks.relational.sink import RelationalSink
from sinks.relational.sqlite.connection import SqliteConnection, diagnose
from sinks.relational.sqlite.sink import SqliteConfig, SqliteSink
from sinks.relational.statements import sql
from tests.conformance.parts import delivery_of
from tests.conformance.sink import SinkConformance
from tests.sinks.relational.evolving import BOOLEAN, DATE, DATETIME, INTEGER, NUMBER, STRING, Evolving
from tests.sinks.relational.place import PRICED, RelationalPlace, contract_of, priced, text
from tests.sinks.relational.publishing import Publishing
from tests.sinks.relational.rejections import Rejecting
from tests.sinks.relational.seeing import Seeing
from tests.sinks.relational.tables import Tables

NOT_CASTABLE: list[tuple[ColumnType, ColumnType, Any]] = [
    (STRING, INTEGER, "12.50"),
    (STRING, NUMBER, "about 3"),
    (STRING, NUMBER, "1e400"),
    (STRING, BOOLEAN, "perhaps"),
    (STRING, DATE, "2023-02-29"),
    (STRING, DATE, "today"),
    (STRING, DATETIME, "2024-02-30T12:30:00Z"),
    (STRING, ColumnType.OBJECT, "{broken"),
    (NUMBER, INTEGER, 7.5),
]


class SqlitePlace(RelationalPlace):
    """A new file for every situation."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.root, self.file_number = tmp_path, 0

    def renew(self) -> None:
        self.file_number += 1

    @property
    def path(self) -> Path:
        return self.root / f"{self.file_number}.sqlite3"

    def make_sink(self, **_secrets: str) -> Sink:
        return self.make_relational()

    def make_relational(self, **settings: Any) -> RelationalSink:
        return SqliteSink(SqliteConfig(path=str(self.path), **settings))

    def run(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def read(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()

    def has_table(self, name: str) -> bool:
        return self.path.exists() and name in self.own_tables()

    def own_tables(self) -> list[str]:
        return [name for (name,) in self.read("SELECT name FROM sqlite_master WHERE type = 'table'")]


class TestSqlite(SqlitePlace, SinkConformance):
    """The conformance of every sink."""

    __test__ = True


class TestSqlitePublishing(SqlitePlace, Publishing):
    """Modes and control totals."""

    __test__ = True


class TestSqliteTables(SqlitePlace, Tables):
    """Tables and values."""

    __test__ = True

    def check_kinds(self, rows: list[tuple[Any, ...]]) -> None:
        low, high = rows
        assert low[:4] == (-(2**63), 1, "0001-01-01", "9999-12-31 23:59:59.999999")
        assert low[4:] == ("{}", "[]", 'line\r\nbreak, "quoted" \\. \\N', str(2**64 - 1), 5e-324)
        assert high == (2**63 - 1, None, None, None, '{"a": [1, "ü"]}', "[1.50]", "Si", None, None)


class TestSqliteRejections(SqlitePlace, Rejecting):
    """Rows that SQLite rejects."""

    __test__ = True

    def test_not_a_number_is_refused_and_infinity_kept(self) -> None:
        self.begin()
        rows = priced((1, float("inf")), (2, float("nan")), (3, None))

        rejection = self.rejected_alone(rows, PRICED)

        assert (rejection.index, rejection.rule) == (1, "not_a_number")
        assert self.read("SELECT price FROM samples1 ORDER BY id") == [(float("inf"),), (None,)]


class TestSqliteEvolution(SqlitePlace, Evolving, Seeing):
    """Columns of a table that change."""

    __test__ = True
    seeds = range(3)

    def test_a_table_of_an_earlier_version_follows_the_contract_from_the_next_delivery_on(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0), (2, 2.0)))
        ((noted,),) = self.read("SELECT columns FROM headgate_tables")
        entries = json.loads(noted)[1].items()
        earlier = {source: {k: v for k, v in entry.items() if k != "is_seen"} for source, entry in entries}
        self.run(f"UPDATE headgate_tables SET columns = '{json.dumps(earlier)}'")  # noqa: S608

        told = self.deliver(
            2, [{"id": 2, "name": "x2", "price": "two"}], contract=contract_of(text("name"), text("price"))
        )

        assert told.counts == (0, 1, 0, 0)
        assert self.read("SELECT id, price FROM samples ORDER BY id") == [(1, "1"), (2, "two")]

    @pytest.mark.parametrize("case", NOT_CASTABLE)
    def test_what_cannot_be_cast_stands_in_the_way_of_the_new_kind(self, case: Any) -> None:
        self.begin()
        self.check_not_castable(*case)

    def columns(self, table: str = "samples") -> list[str]:
        return [name for (name,) in self.read(f"SELECT name FROM pragma_table_info('{table}')")]  # noqa: S608


@pytest.mark.parametrize("path", ["", "rows.sqlite3", "./x", "a\0b"])
def test_a_path_that_cannot_be_meant_is_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        SqliteConfig(path=path)


class TestSqliteFile(SqlitePlace):
    """The failures of a file."""

    __test__ = True

    def test_a_new_file_lets_readers_read_while_a_run_is_written(self) -> None:
        self.begin()

        self.deliver(1, priced((1, 1.0)))

        assert self.read("PRAGMA journal_mode") == [("wal",)]

    def test_a_file_that_was_there_keeps_its_mode(self) -> None:
        self.begin()
        self.run("CREATE TABLE other (id)")

        self.deliver(1, priced((1, 1.0)))

        assert self.read("PRAGMA journal_mode") == [("delete",)]

    def test_headgates_own_database_is_refused(self) -> None:
        self.begin()
        self.run("CREATE TABLE ingestion_run (id)")
        manifest = self.manifest(1, priced((1, 1.0)))
        sink = self.make_relational()

        report = sink.check(self.ctx)
        with pytest.raises(ConfigError, match="own database"):
            sink.stage(manifest.parts[0], delivery_of(manifest), self.ctx)

        assert not report.ok
        assert report.findings[-1].fix

    def test_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        self.begin()
        sink = SqliteSink(SqliteConfig(path=str(tmp_path / "nowhere" / "rows.sqlite3")))
        manifest = self.manifest(1, priced((1, 1.0)))

        report = sink.check(self.ctx)
        with pytest.raises(ConfigError):
            sink.stage(manifest.parts[0], delivery_of(manifest), self.ctx)

        assert [(finding.layer, finding.ok) for finding in report.findings] == [("folder", False)]

    def test_a_file_that_is_no_database_is_a_setting_to_correct(self) -> None:
        self.begin()
        self.path.write_text("no database " * 100)

        report = self.make_relational().check(self.ctx)

        assert (report.findings[-1].ok, report.findings[-1].code) == (False, "config.invalid")

    def test_a_writer_who_does_not_end_makes_the_delivery_wait_its_turn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0)))
        manifest = self.manifest(2, priced((1, 2.0)))
        sink = self.make_relational()
        monkeypatch.setattr(sink, "connect", lambda: SqliteConnection(self.path, timeout_s=0.1))

        with closing(sqlite3.connect(self.path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(SinkUnavailable) as caught:
                sink.stage(manifest.parts[0], delivery_of(manifest), self.ctx)

        assert caught.value.code == "sink.busy"

    def test_a_cancel_breaks_off_a_statement_that_does_not_end(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0)))
        self.recording.stop()
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"

        with (
            closing(SqliteConnection(self.path)) as session,
            session.watched(self.ctx),
            pytest.raises(sqlite3.OperationalError) as caught,
        ):
            session.rows(sql(endless))

        assert diagnose(caught.value).error_class is ErrorClass.STOPPED


def test_a_new_file_and_its_journals_are_its_owners_alone_and_an_old_one_keeps_its_rights(tmp_path: Path) -> None:
    new, old = tmp_path / "new.sqlite3", tmp_path / "old.sqlite3"
    old.touch()
    old.chmod(0o640)
    for path in (new, old):
        with closing(SqliteConnection(path)) as connection:
            connection.send("CREATE TABLE t (n)", ())
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.glob(f"{path.name}*")}
        assert modes.keys() >= {path.name}
        assert set(modes.values()) == {0o600 if path == new else 0o640}, modes


def test_a_new_file_without_a_folder_is_still_sqlites_error(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError) as caught:
        SqliteConnection(tmp_path / "none" / "new.sqlite3")
    assert diagnose(caught.value).error_class is ErrorClass.CONFIG
