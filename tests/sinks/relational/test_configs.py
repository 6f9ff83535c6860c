"""The settings of the three relational destinations, as people meet them."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from ingestion.admin.config_fields import make_fields
from sinks.relational.mysql.sink import MySQLConfig
from sinks.relational.postgres.sink import PostgresConfig
from sinks.relational.sqlite.sink import SqliteConfig
from tests.conformance.connector import secret_fields
from tests.servers import ROOT

CONFIGS: list[type[BaseModel]] = [PostgresConfig, MySQLConfig, SqliteConfig]
SERVER = {"host": "db.example.org", "database": "lab", "user": "writer"}


@pytest.mark.parametrize("config", CONFIGS)
def test_every_setting_is_a_field_of_the_form(config: type[BaseModel]) -> None:
    fields = make_fields(config, secret_names=frozenset(secret_fields(config)), config={}, secrets={})

    assert {f"config_{name}" for name in config.model_fields} == set(fields)
    assert type(fields["config_deletes"]).__name__ == "TypedChoiceField"


@pytest.mark.parametrize(
    ("config", "values"), [(PostgresConfig, SERVER), (MySQLConfig, SERVER), (SqliteConfig, {"path": "/x"})]
)
def test_what_need_not_be_said_has_a_default(config: Any, values: dict[str, Any]) -> None:
    made = config(**values)

    assert (made.table, made.deletes, made.refused_limit, made.keep_old_days) == ("{pipeline}", "hard", 10_000, 7)
    with pytest.raises(ValidationError):
        made.table = "other"


@pytest.mark.parametrize("config", [PostgresConfig, MySQLConfig])
@pytest.mark.parametrize(
    "changes",
    [
        {"host": "/var/run/postgresql"},
        {"host": "a,b"},
        {"host": "user@host"},
        {"host": " host"},
        {"host": "host?sslkey=/etc/shadow"},
        {"port": 0},
        {"port": 70_000},
        {"ca_file": "relative.pem"},
        {"table": "{pipeline"},
        {"table": "{run}"},
        {"table": "{pipeline.__class__}"},
        {"table": ""},
        {"deletes": "maybe"},
        {"refused_limit": -1},
        {"options": "-c log_statement=all"},
        {"unix_socket": "/run/x"},
    ],
)
def test_settings_that_cannot_be_meant_are_rejected(config: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**{**SERVER, **changes})


def test_the_password_is_the_only_secret_and_is_not_shown() -> None:
    made = PostgresConfig(**SERVER, password="canary")

    assert set(secret_fields(PostgresConfig)) == {"password"}
    assert "canary" not in repr(made)
    assert made.secret == "canary"


@pytest.mark.parametrize("tls", ["verify-ca", "verify-full"])
def test_a_certificate_is_checked_only_against_some_that_are_named(tls: str) -> None:
    with pytest.raises(ValidationError, match="ca_file"):
        PostgresConfig(**SERVER, tls=tls)


def test_the_drivers_are_loaded_by_those_who_connect() -> None:
    script = (
        "import sys, sinks.relational.postgres.sink, sinks.relational.mysql.sink, sinks.relational.sqlite.sink; "
        "print([name for name in ('psycopg', 'pymysql', 'polars', 'pyarrow', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
