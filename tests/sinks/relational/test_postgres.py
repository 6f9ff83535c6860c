"""A schema of a real PostgreSQL server."""

import datetime as dt
import random
import signal
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from ingestion.ports.errors import ConfigError
from ingestion.ports.publication import WriteMode
from ingestion.ports.schema import Column, ColumnType
from ingestion.ports.sink import Sink
from sinks.relational.postgres import dialect as postgres_dialect
from sinks.relational.postgres.sink import PostgresConfig, PostgresSink
from sinks.relational.sink import RelationalSink
from sinks.relational.statements import sql as sql_text
from tests.conformance.parts import delivery_of
from tests.conformance.sink import SinkConformance
from tests.servers import Postgres, wait_until
from tests.sinks.relational.certificates import make_certificate
from tests.sinks.relational.evolving import Evolving
from tests.sinks.relational.place import PRICED, RelationalPlace, contract_of, integer, number, priced, text
from tests.sinks.relational.publishing import Publishing
from tests.sinks.relational.rejections import Rejecting, too_long
from tests.sinks.relational.seeing import Seeing
from tests.sinks.relational.serving import Serving
from tests.sinks.relational.tables import Tables

PASSWORD = "correct horse"
KEYLESS = PRICED.model_copy(update={"key": ()})


class PostgresPlace(RelationalPlace):
    """A schema with a hostile name, emptied for every situation; its owner needs a password."""

    refuses_credentials = True
    schema = 'the "place"'

    @pytest.fixture(autouse=True)
    def _place(self, postgres: Postgres) -> None:
        self.server = postgres

    def renew(self) -> None:
        schema, user = sql.Identifier(self.schema), sql.Identifier(self.server.user_with_password)
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [self.server.user_with_password])
            if not found.fetchone():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(user, sql.Literal(PASSWORD)))
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))
            connection.execute(sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(schema, user))

    def make_sink(self, **secrets: str) -> Sink:
        return self.make_relational(**{name: SecretStr(value) for name, value in secrets.items()})

    def make_relational(self, **settings: Any) -> RelationalSink:
        values = {
            **{"host": "127.0.0.1", "port": self.server.port, "database": "postgres", "schema_name": self.schema},
            **{"user": self.server.user_with_password, "password": SecretStr(PASSWORD)},
        }
        return PostgresSink(PostgresConfig(**{**values, **settings}))

    def run(self, *statements: str) -> None:
        with self._connection() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def read(self, query: str) -> list[tuple[Any, ...]]:
        with self._connection() as connection:
            return connection.execute(query.encode()).fetchall()

    def has_table(self, name: str) -> bool:
        return name in self.own_tables()

    def own_tables(self) -> list[str]:
        with self._connection() as connection:
            found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [self.schema])
            return [name for (name,) in found]

    def _connection(self) -> "psycopg.Connection[Any]":
        connection = psycopg.connect(
            host="127.0.0.1",
            port=self.server.port,
            dbname="postgres",
            user=self.server.user_with_password,
            password=PASSWORD,
            autocommit=True,
        )
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(self.schema)))
        return connection


@pytest.mark.postgres
class TestPostgres(PostgresPlace, SinkConformance):
    """The conformance of every sink."""

    __test__ = True


@pytest.mark.postgres
class TestPostgresPublishing(PostgresPlace, Publishing):
    """Modes and control totals."""

    __test__ = True


@pytest.mark.postgres
class TestPostgresTables(PostgresPlace, Tables):
    """Tables and values."""

    __test__ = True
    system_columns = frozenset(("xmin", "ctid", "tableoid", "cmin", "cmax", "xmax"))

    def check_kinds(self, rows: list[tuple[Any, ...]]) -> None:
        low, high = rows
        assert low[:2] == (-(2**63), True)
        assert low[2] == dt.date(1, 1, 1)
        assert low[3] == dt.datetime(9999, 12, 31, 23, 59, 59, 999999, dt.UTC)
        assert low[4:] == ({}, [], 'line\r\nbreak, "quoted" \\. \\N', 2**64 - 1, 5e-324)
        assert high == (2**63 - 1, None, None, None, {"a": [1, "ü"]}, [1.5], "Si", None, None)


@pytest.mark.postgres
class TestPostgresRejections(PostgresPlace, Rejecting):
    """Rows that PostgreSQL rejects."""

    __test__ = True

    def test_a_nul_in_a_text_is_refused(self) -> None:
        self.begin()

        rejection = self.rejected_alone([{"id": 1, "name": "a"}, {"id": 2, "name": "b\0c"}], contract_of(text("name")))

        assert (rejection.index, rejection.rule, rejection.column) == (1, "character_not_in_repertoire", "name")

    def test_json_that_is_none_is_refused(self) -> None:
        self.begin()
        contract = contract_of(Column(name="cell", type=ColumnType.OBJECT))
        rows = [{"id": n, "cell": cell} for n, cell in enumerate(("{}", '{"a": "\\u0000"}', None))]

        rejection = self.rejected_alone(rows, contract)

        assert (rejection.index, rejection.rule) == (1, "untranslatable_character")

    def test_a_text_too_long_for_a_narrowed_column_is_refused(self) -> None:
        found = too_long(self, narrowed="varchar(20)")

        assert [(row.index, row.rule) for row in found] == [(1, "string_data_right_truncation")]

    @pytest.mark.parametrize("key", [("id",), ()])
    def test_a_number_too_large_for_a_narrowed_column_is_refused(self, key: tuple[str, ...]) -> None:
        self.begin()
        self.run("CREATE TABLE samples (id bigint NOT NULL, size smallint)")
        contract = contract_of(integer("size"), key=key)
        mode = WriteMode.MERGE if key else WriteMode.APPEND
        rows = [{"id": n, "size": size} for n, size in enumerate((1, 40_000, -40_000, None))]

        told = self.deliver(1, rows, contract=contract, mode=mode)

        assert told.counts == (2, 0, 0, 2)
        assert {row.rule for row in told.receipt.rejections} == {"numeric_value_out_of_range"}

    def test_a_key_too_long_for_its_index_is_refused(self) -> None:
        self.begin()
        contract = contract_of(text("code", nullable=False), key=("code",))
        long_code = "".join(random.Random(7).choices(string.printable, k=6000))

        told = self.deliver(1, [{"id": 1, "code": "a"}, {"id": 2, "code": long_code}], contract=contract)

        assert told.counts == (1, 0, 0, 1)
        assert told.receipt.rejections[0].rule == "samples_pkey"
        assert "index row size" in told.receipt.rejections[0].message

    def test_a_rule_that_would_be_checked_at_the_end_is_checked_at_once(self) -> None:
        self.begin()
        self.run(
            "CREATE TABLE prices (price double precision PRIMARY KEY)",
            "INSERT INTO prices VALUES (1)",
            "CREATE TABLE samples (id bigint NOT NULL, name text, price double precision"
            " REFERENCES prices DEFERRABLE INITIALLY DEFERRED)",
        )

        told = self.deliver(1, priced((1, 1.0), (2, 2.0)))

        assert told.counts == (1, 0, 0, 1)
        assert told.receipt.rejections[0].rule == "samples_price_fkey"

    def test_what_a_trigger_refuses_is_refused_with_its_words(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0)))
        self.run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN IF NEW.price > 10 THEN RAISE 'too dear'; END IF; RETURN NEW; END $$",
            "CREATE TRIGGER dear BEFORE INSERT OR UPDATE ON samples FOR EACH ROW EXECUTE FUNCTION refuse()",
        )

        told = self.deliver(2, priced((1, 11.0), (2, 9.0), (3, 12.0)))

        assert told.counts == (1, 0, 0, 2)
        assert {(row.rule, row.message) for row in told.receipt.rejections} == {("raise_exception", "too dear")}

    def test_counts_are_right_though_a_trigger_writes_into_the_table_as_well(self) -> None:
        self.begin()
        self.deliver(1, priced((1, 1.0), (2, 2.0)))
        self.run(
            "CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS"
            " $$ BEGIN UPDATE samples SET name = 'marked' WHERE id = NEW.id; RETURN NULL; END $$",
            "CREATE TRIGGER marking AFTER INSERT OR UPDATE ON samples FOR EACH ROW"
            " WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION mark()",
        )

        told = self.publish(self.manifest(2, priced((1, 5.0), (3, 3.0))), differences=["name has other values"])

        assert told.counts == (1, 1, 0, 0)
        assert self.read("SELECT id, name FROM samples ORDER BY id") == [(1, "marked"), (2, "x2"), (3, "marked")]

    def test_many_refused_rows_are_found_among_many(self) -> None:
        self.begin()
        self.run("CREATE TABLE samples (id bigint NOT NULL, name text, price double precision CHECK (price > 0))")
        rows = priced(*((n, -1.0 if n % 37 == 5 else 1.0) for n in range(3000)))

        merged = self.deliver(1, rows)
        appended = self.deliver(2, rows, mode=WriteMode.APPEND, contract=KEYLESS, pipeline="others")

        assert merged.counts == (2919, 0, 0, 81)
        assert [row.index for row in merged.receipt.rejections] == list(range(5, 3000, 37))
        assert appended.counts == (3000, 0, 0, 0)


@pytest.mark.postgres
class TestPostgresEvolution(PostgresPlace, Evolving, Seeing):
    """Columns of a table that change."""

    __test__ = True

    def columns(self, table: str = "samples") -> list[str]:
        query = "SELECT attname FROM pg_attribute WHERE attrelid = '{}'::regclass AND attnum > 0 AND NOT attisdropped"
        return [name for (name,) in self.read(query.format(table) + " ORDER BY attnum")]


@pytest.mark.postgres
class TestPostgresWays(PostgresPlace):
    """The ways rows take where the server or a table is not as usual."""

    __test__ = True

    @pytest.fixture
    def _old_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Treat the server as one that knows no MERGE."""
        monkeypatch.setattr(postgres_dialect, "MERGE_SINCE", 10**9)

    @pytest.mark.usefixtures("_old_server")
    def test_a_server_without_merge_counts_the_same(self) -> None:
        self.begin()
        self.run("CREATE TABLE samples (id bigint NOT NULL, name text, price double precision CHECK (price < 100))")
        self.deliver(1, priced((1, 1.0), (2, 2.0), (3, None)))

        told = self.deliver(2, priced((2, 2.5), (4, 4.0), (4, 4.0)), priced((3, None), (5, 500.0)))

        assert told.counts == (1, 1, 2, 1)
        assert self.read("SELECT id, price, _run FROM samples ORDER BY id") == [
            (1, 1.0, 1),
            (2, 2.5, 2),
            (3, None, 1),
            (4, 4.0, 2),
        ]

    def test_rows_written_as_csv_and_as_binary_are_the_same_rows(self) -> None:
        self.begin()
        texts = ["", " ", '"', "a,b", "line\nbreak", "\r", "\\.", "\\N", "NULL", "ü😀", None]
        contract = contract_of(
            text("name"), number("price"), Column(name="at", type=ColumnType.DATETIME), integer("odd")
        )
        rows = [
            {
                **{"id": n, "name": name, "price": (None, 1e300, -0.1, float("inf"))[n % 4], "odd": n},
                "at": None if n % 3 == 0 else dt.datetime(1969, 12, 31, 23, 59, 59, n, dt.UTC),
            }
            for n, name in enumerate(texts)
        ]
        self.run(
            "CREATE TABLE csv (id bigint NOT NULL, name text, price double precision, at timestamptz, odd integer)"
        )

        for run_id, pipeline in ((1, "samples"), (2, "csv")):
            self.deliver(run_id, rows, contract=contract, pipeline=pipeline)

        query = "SELECT id, name, price, at, odd FROM {} ORDER BY id"
        assert self.read(query.format("samples")) == self.read(query.format("csv"))
        assert [row[1] for row in self.read(query.format("samples"))] == texts

    def test_a_run_larger_than_one_range_is_merged_range_by_range(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begin()
        monkeypatch.setattr(postgres_dialect.PostgresDialect, "merge_rows", 200)
        rows = priced(*((n, 1.0) for n in range(2000)), name="x" * 50)
        self.deliver(1, rows[:1000], mode=WriteMode.REPLACE)

        told = self.deliver(2, rows[500:], mode=WriteMode.REPLACE)

        assert told.counts == (1000, 0, 500, 0)
        assert self.read("SELECT count(*), min(id) FROM samples") == [(1500, 500)]

    def test_an_unchanged_row_is_not_even_locked(self) -> None:
        self.begin()
        query = "SELECT xmin::text, xmax::text, ctid::text FROM samples ORDER BY id"
        self.deliver(1, priced((1, 1.0), (2, 2.0)), mode=WriteMode.REPLACE)
        before = self.read(query)

        self.deliver(2, priced((1, 1.0), (2, 2.0)), mode=WriteMode.REPLACE)

        assert self.read(query) == before

    def test_a_view_keeps_working_and_keeps_the_old_column_it_shows(self) -> None:
        self.begin()
        self.deliver(1, [{"id": 1, "v": "5"}], contract=contract_of(text("v")))
        self.run("CREATE VIEW shown AS SELECT id, v FROM samples")

        self.deliver(2, [{"id": 2, "v": 6}], contract=contract_of(integer("v")))
        self.later(days=8)
        self.deliver(3, [{"id": 2, "v": 7}], contract=contract_of(integer("v")))

        assert self.read("SELECT id, v FROM shown ORDER BY id") == [(1, "5"), (2, None)]
        assert "destination.column_kept" in self.recording.event_kinds()

    def test_an_encrypted_connection_is_said_to_be_so_and_a_strange_certificate_refused(self, tmp_path: Path) -> None:
        with Postgres() as server:
            self.server = server
            certificate = make_certificate(tmp_path, server.folder / "data", owner=server.user())
            strange = make_certificate(tmp_path / "strange", None, owner=None)
            self.begin()
            with psycopg.connect(server.url(), autocommit=True) as connection:
                for setting in ("ssl = on", "ssl_cert_file = 'server.crt'", "ssl_key_file = 'server.key'"):
                    connection.execute(f"ALTER SYSTEM SET {setting}".encode())
                connection.execute("SELECT pg_reload_conf()")
            wait_until(
                lambda: self.make_relational(tls="require").check(self.ctx).ok, what="the server's turn to encryption"
            )

            good = self.make_relational(tls="verify-full", ca_file=str(certificate)).check(self.ctx)
            bad = self.make_relational(tls="verify-full", ca_file=str(strange)).check(self.ctx)

        assert [finding.detail for finding in good.findings if finding.layer == "tls"] == [
            "the connection is encrypted"
        ]
        assert good.ok
        assert (bad.findings[-1].layer, bad.findings[-1].ok) == ("tls", False)


@pytest.mark.postgres
class TestPostgresServing(PostgresPlace, Serving):
    """The failures of a PostgreSQL server."""

    __test__ = True

    def stranger(self, rights: str) -> dict[str, Any]:
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'stranger'").fetchone():
                connection.execute("CREATE ROLE stranger LOGIN")
        return {"user": "stranger", "password": None}

    @contextmanager
    def table_held(self) -> Iterator[None]:
        with self._connection() as connection, connection.transaction():
            connection.execute("LOCK TABLE samples IN ACCESS EXCLUSIVE MODE")
            yield

    def shorten_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(postgres_dialect, "LOCK_WAIT_S", 1)

    def new_server(self) -> Postgres:
        return Postgres()

    def crash(self, server: Any) -> None:
        server.stop(signal.SIGQUIT)

    def slow_query(self) -> Any:
        return sql_text("SELECT pg_sleep(1)")

    def test_a_schema_that_is_not_there_is_a_setting_to_correct(self) -> None:
        self.begin()
        sink = self.make_relational(schema_name="nowhere")
        manifest = self.manifest(1, priced((1, 1.0)))

        report = sink.check(self.ctx)
        with pytest.raises(ConfigError):
            sink.stage(manifest.parts[0], delivery_of(manifest), self.ctx)

        assert (report.findings[-1].layer, report.findings[-1].ok) == ("database", False)
        assert "nowhere" in report.findings[-1].fix

    def test_a_database_that_is_not_there_is_a_setting_to_correct(self) -> None:
        self.begin()

        report = self.make_relational(database="nowhere").check(self.ctx)

        assert (report.findings[-1].layer, report.findings[-1].code) == ("database", "config.invalid")
