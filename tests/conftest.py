"""What every test has: a clean environment, real servers on demand, one of two databases."""

import os
from collections.abc import Iterator
from typing import Any

import dj_database_url
import pytest
from django.conf import settings
from django.db import connections

from tests.druid_server import Druid
from tests.environment import clean
from tests.servers import MariaDB, Moto, Postgres, Rclone, Valkey, VersityGateway

DATABASES = ("sqlite", "postgres")
DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup", "django_db_reset_sequences", "live_server"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller choose the database."""
    parser.addoption(
        "--database",
        choices=DATABASES,
        default=os.environ.get("TEST_DATABASE", "sqlite"),
        help="the database under the tests (also TEST_DATABASE)",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what touches the database, so that it can be run alone on the other one."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if names & DATABASE_FIXTURES or item.get_closest_marker("django_db"):
            item.add_marker("database")


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a developer's variables away, so that they cannot change a result."""
    variables = dict(os.environ)
    clean(variables)
    for name in set(os.environ) - set(variables):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADGATE_ENV_FILE", os.devnull)
    monkeypatch.setenv("HEADGATE_DATA", str(settings.HEADGATE_DATA_DIR))


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
