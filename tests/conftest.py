"""Ground of every test: a clean environment, real servers on demand, one of two databases."""

import functools
import os
from collections.abc import Iterator
from typing import Any

import dj_database_url
import pytest
from django.conf import settings
from django.core.management.color import no_style
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.test import TransactionTestCase

from tests.druid_server import Druid
from tests.environment import clean
from tests.servers import MariaDB, Moto, Postgres, Rclone, Valkey, VersityGateway

DATABASES = ("sqlite", "postgres")
NEVER_EMPTIED = {"django_content_type", "auth_permission"}
"""Tables whose rows follow from the models alone."""
WAITING_MARKERS = ("waits", "worker", "druid")
"""Tests of processes: the only ones that `--reruns` runs again."""
DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup", "django_db_reset_sequences", "live_server"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller choose the database."""
    parser.addoption(
        "--database",
        choices=DATABASES,
        default=os.environ.get("TEST_DATABASE", "sqlite"),
        help="the database under the tests (also TEST_DATABASE)",
    )
    parser.addoption(
        "--drill-seed",
        default="",
        help="run the twentieth of the fault matrix that this seed chooses; without it, all of it",
    )


def pytest_configure() -> None:
    """Let a test that commits leave its database empty in a tenth of the time of Django's `flush`."""
    TransactionTestCase._fixture_teardown = empty_tables  # type: ignore[method-assign]


def empty_tables(case: TransactionTestCase) -> None:
    """Delete every row that a test may have committed.

    `flush` would make all content types and permissions anew after every test, and PostgreSQL's TRUNCATE takes longer
    than to delete a few rows. Foreign keys are checked at the commit, when all rows are gone.
    """
    for name in case._databases_names(include_mirrors=False):
        connection = connections[name]
        tables = sorted(set(connection.introspection.django_table_names()) - NEVER_EMPTIED)
        if connection.vendor == "postgresql":
            quoted = map(connection.ops.quote_name, tables)
            statements = ["; ".join(f"DELETE FROM {table}" for table in quoted)]  # noqa: S608 - our own tables
        else:
            statements = connection.ops.sql_flush(no_style(), tables)
        connection.ops.execute_sql_flush(statements)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what touches the database, and keep `--reruns` away from what must be right at once."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if names & DATABASE_FIXTURES or item.get_closest_marker("django_db"):
            item.add_marker("database")
        if not may_run_again(item):
            item.add_marker(pytest.mark.flaky(reruns=0))


def may_run_again(item: pytest.Item) -> bool:
    """Return whether a busy machine may be to blame where the test fails: it starts processes and waits for them.

    Never a fault, never a plugin's contract: what happens there once in a hundred times is what they look for.
    """
    kind = getattr(item, "cls", None)
    is_contract = kind is not None and any(base.__name__.endswith("Conformance") for base in kind.__mro__)
    is_fault = bool(item.get_closest_marker("faults")) or "faults" in item.path.stem
    return not is_contract and not is_fault and any(item.get_closest_marker(name) for name in WAITING_MARKERS)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List every test that was run again, and what it failed with before."""
    again = terminalreporter.getreports("rerun")
    if not again:
        return
    terminalreporter.section(f"{len(again)} times a test was run again")
    for report in again:
        lines = report.longreprtext.strip().splitlines() or ["no message"]
        said = next((line[1:].strip() for line in lines if line.startswith("E ")), lines[-1])
        terminalreporter.write_line(f"{report.nodeid} ({report.when}): {said}")


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a developer's variables away, so that they cannot change a result."""
    variables = dict(os.environ)
    clean(variables)
    for name in set(os.environ) - set(variables):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADGATE_ENV_FILE", os.devnull)
    monkeypatch.setenv("HEADGATE_DATA", str(settings.HEADGATE_DATA_DIR))


@pytest.fixture(scope="session", autouse=True)
def installed_plugins() -> None:
    """Look once for the packages that bring plugins: every test that adds one of its own would read the disk again."""
    from ingestion import registry

    registry.entry_points = functools.cache(registry.entry_points)  # type: ignore[assignment]


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A Valkey server for the whole session; use a key prefix or database of your own."""
    with Valkey() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole session; make a database of your own."""
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB server for the whole session; make a database of your own."""
    with MariaDB() as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    """Moto's S3 server for the whole session; make a bucket of your own."""
    with Moto() as server:
        yield server


@pytest.fixture(scope="session")
def versitygw() -> Iterator[VersityGateway]:
    """A real S3 server for the whole session; make a bucket of your own."""
    with VersityGateway() as server:
        yield server


@pytest.fixture(scope="session")
def druid() -> Iterator[Druid]:
    """A real Druid for the whole session, for tests marked `druid`; use datasources of your own."""
    with Druid() as server:
        yield server


@pytest.fixture(scope="session")
def rclone() -> Iterator[Rclone]:
    """An S3 server without conditional writes for the whole session; make a bucket of your own."""
    with Rclone() as server:
        yield server


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """Make the tables from the models, and note the migrations as applied: a command would make the tables again."""
    settings.MIGRATION_MODULES = {}
    with django_db_blocker.unblock():
        recorder = MigrationRecorder(connections["default"])
        for app, name in MigrationLoader(None).graph.nodes:
            recorder.record_applied(app, name)


@pytest.fixture(scope="session")
def django_db_keepdb(request: pytest.FixtureRequest) -> bool:
    """Leave the test database to the end of its PostgreSQL server, which is the session's own.

    To drop it fails where a thread that still ends holds a connection.
    """
    return bool(request.config.getoption("--database") == "postgres" or request.config.getvalue("reuse_db"))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(request: pytest.FixtureRequest) -> None:
    """Put the chosen database under the tests before pytest-django creates it."""
    if request.config.getoption("--database") != "postgres":
        return
    server: Postgres = request.getfixturevalue("postgres")
    chosen: dict[str, Any] = dict(dj_database_url.parse(server.url()))
    connections.close_all()
    settings.DATABASES = {"default": chosen}
    connections.settings = connections.configure_settings({"default": chosen})
    del connections["default"]
