"""A database of a real MariaDB server."""

import datetime as dt
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pydantic import SecretStr

from ingestion.ports.schema import Column, ColumnType
from ingestion.ports.sink import Sink
from sinks.relational.mysql import dialect as mysql_dialect
from sinks.relational.mysql.sink import MySQLConfig, MySQLSink
from sinks.relational.sink import RelationalSink
from sinks.relational.statements import sql as sql_text
from tests.conformance.sink import SinkConformance
from tests.servers import MariaDB
from tests.sinks.relational.certificates import make_certificate
from tests.sinks.relational.evolving import Evolving
from tests.sinks.relational.place import PRICED, RelationalPlace, contract_of, integer, priced, text
from tests.sinks.relational.publishing import Publishing
from tests.sinks.relational.rejections import Rejecting, too_long
from tests.sinks.relational.seeing import Seeing
from tests.sinks.relational.serving import Serving
from tests.sinks.relational.tables import Tables

USER, PASSWORD = "guarded", "correct hörse"


class MySQLPlace(RelationalPlace):
    """A database with a hostile name, made anew for every situation; its user needs a password."""

    refuses_credentials = True
    database = "the `place`"

    @pytest.fixture(autouse=True)
    def _place(self, mariadb: MariaDB) -> None:
        self.server = mariadb

    def renew(self) -> None:
        quoted = self.database.replace("`", "``")
        self.server.run(
            f"DROP DATABASE IF EXISTS `{quoted}`",
            f"CREATE DATABASE `{quoted}` CHARACTER SET latin1",
            f"CREATE USER IF NOT EXISTS {USER} IDENTIFIED BY '{PASSWORD}'",
            f"GRANT ALL ON `{quoted}`.* TO {USER}",
        )

    def make_sink(self, **secrets: str) -> Sink:
        return self.make_relational(**{name: SecretStr(value) for name, value in secrets.items()})

    def make_relational(self, **settings: Any) -> RelationalSink:
        values = {
            **{"host": "127.0.0.1", "port": self.server.port, "database": self.database},
            **{"user": USER, "password": SecretStr(PASSWORD)},
        }
        return MySQLSink(MySQLConfig(**{**values, **settings}))

    def run(self, *statements: str) -> None:
        with self._cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def read(self, query: str) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def has_table(self, name: str) -> bool:
        return name in self.own_tables()

    def own_tables(self) -> list[str]:
        return [name for (name,) in self.read("SHOW TABLES")]

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        connection = pymysql.connect(
            host="127.0.0.1",
            port=self.server.port,
            user="root",
            database=self.database,
            charset="utf8mb4",
            autocommit=True,
            init_command="SET SESSION sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES', lock_wait_timeout = 20",
            ssl_disabled=True,
        )
        with closing(connection), connection.cursor() as cursor:
            yield cursor


class TestMySQL(MySQLPlace, SinkConformance):
    """The conformance of every sink."""

    __test__ = True


class TestMySQLPublishing(MySQLPlace, Publishing):
    """Modes and control totals."""

    __test__ = True


class TestMySQLTables(MySQLPlace, Tables):
    """Tables and values."""

    __test__ = True

    def check_kinds(self, rows: list[tuple[Any, ...]]) -> None:
        low, high = rows
        assert low[:2] == (-(2**63), 1)
        assert low[2:4] == (dt.date(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999))  # noqa: DTZ001
        assert low[4:] == ("{}", "[]", 'line\r\nbreak, "quoted" \\. \\N', 2**64 - 1, 5e-324)
        assert high == (2**63 - 1, None, None, None, '{"a": [1, "ü"]}', "[1.50]", "Si", None, None)


@pytest.mark.slow
class TestMySQLRejections(MySQLPlace, Rejecting):
    """Rows that MariaDB rejects."""

    __test__ = True
    text_type = "longtext"

    def test_not_a_number_is_refused(self) -> None:
        self.begin()

        rejection = self.rejected_alone(priced((1, 1.0), (2, float("nan")), (3, None)), PRICED)

        assert (rejection.index, rejection.rule) == (1, "not_a_number")

    def test_json_that_is_none_is_refused(self) -> None:
        self.begin()
        contract = contract_of(Column(name="cell", type=ColumnType.OBJECT))
        rows = [{"id": n, "cell": cell} for n, cell in enumerate(("{}", "{broken", None))]

        rejection = self.rejected_alone(rows, contract)

        assert (rejection.index, rejection.rule) == (1, "samples1.cell")

    def test_a_text_too_long_for_a_narrowed_column_is_refused(self) -> None:
        found = too_long(self, narrowed="varchar(20)")

        assert [(row.index, row.rule, row.column) for row in found] == [(1, "data_too_long", "name")]

    def test_a_number_too_large_for_a_narrowed_column_is_refused(self) -> None:
        self.begin()
        self.run("CREATE TABLE samples (id bigint NOT NULL, size smallint)")
        rows = [{"id": n, "size": size} for n, size in enumerate((1, 40_000, None))]

        told = self.deliver(1, rows, contract=contract_of(integer("size")))

        assert told.counts == (2, 0, 0, 1)
        assert [(row.index, row.column) for row in told.receipt.rejections] == [(1, "size")]

    def test_a_key_too_long_for_its_column_is_refused_and_not_cut(self) -> None:
        self.begin()
        contract = contract_of(text("code", nullable=False), key=("code",))
        codes = ("a", "x" * 300, "x" * 255)

        told = self.deliver(1, [{"id": n, "code": code} for n, code in enumerate(codes)], contract=contract)

        assert told.counts == (2, 0, 0, 1)
        assert told.receipt.rejections[0].index == 1

    def test_a_column_in_which_texts_look_alike_still_shows_a_difference(self) -> None:
        self.begin()
        self.run("CREATE TABLE samples (id bigint NOT NULL, name varchar(20) COLLATE utf8mb4_general_ci)")
        contract = contract_of(text("name"))
        self.deliver(1, [{"id": 1, "name": "a"}], contract=contract)

        told = self.deliver(2, [{"id": 1, "name": "A "}], contract=contract)

        assert told.counts == (0, 1, 0, 0)
        assert self.read("SELECT name FROM samples") == [("A ",)]


@pytest.mark.slow
class TestMySQLEvolution(MySQLPlace, Evolving, Seeing):
    """Columns of a table that change."""

    __test__ = True

    def columns(self, table: str = "samples") -> list[str]:
        return [row[0] for row in self.read(f"SHOW COLUMNS FROM {table}")]


@pytest.mark.slow
class TestMySQLServing(MySQLPlace, Serving):
    """The failures of a MariaDB server."""

    __test__ = True

    def stranger(self, rights: str) -> dict[str, Any]:
        quoted = self.database.replace("`", "``")
        self.server.run("CREATE USER IF NOT EXISTS stranger", f"GRANT SELECT ON `{quoted}`.* TO stranger")
        return {"user": "stranger", "password": None}

    @contextmanager
    def table_held(self) -> Iterator[None]:
        with self._cursor() as cursor:
            cursor.execute("LOCK TABLES samples WRITE")
            yield

    def shorten_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shorter = mysql_dialect.SETTINGS.replace("lock_wait_timeout = 10", "lock_wait_timeout = 1")
        monkeypatch.setattr(mysql_dialect, "SETTINGS", shorter)

    def new_server(self) -> MariaDB:
        return MariaDB()

    def crash(self, server: Any) -> None:
        server.stop(signal.SIGKILL)

    def slow_query(self) -> Any:
        return sql_text("SELECT SLEEP(1)")

    def test_a_database_that_is_not_there_is_a_setting_to_correct(self) -> None:
        self.begin()
        self.server.run(f"GRANT ALL ON nowhere.* TO {USER}")

        report = self.make_relational(database="nowhere").check(self.ctx)

        assert (report.findings[-1].layer, report.findings[-1].code) == ("database", "config.invalid")

    def test_an_encrypted_connection_is_said_to_be_so_and_a_strange_certificate_refused(self, tmp_path: Path) -> None:
        with MariaDB() as server:
            self.server = server
            server.stop()
            certificate = make_certificate(tmp_path, server.folder, owner=server.user())
            strange = make_certificate(tmp_path / "strange", None, owner=None)
            server.options = (f"--ssl-cert={server.folder}/server.crt", f"--ssl-key={server.folder}/server.key")
            server.start()
            self.begin()

            good = self.make_relational(tls="verify-full", ca_file=str(certificate)).check(self.ctx)
            bad = self.make_relational(tls="verify-full", ca_file=str(strange)).check(self.ctx)
            plain = self.make_relational(tls="disable").check(self.ctx)

        details = [finding.detail for report in (good, plain) for finding in report.findings if finding.layer == "tls"]
        assert details[0].startswith("encrypted with TLS")
        assert details[1] == "the connection is not encrypted"
        assert good.ok
        assert (bad.findings[-1].layer, bad.findings[-1].ok) == ("tls", False)
