"""The environment: typed, complete, and every mistake is one sentence."""

import textwrap
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ingest_project import checks
from ingest_project.env import (
    BASE_DIR,
    NAMES,
    SECRET_NAMES,
    Environment,
    load_environment,
    read_environment,
    take_global_options,
)
from ingestion.ports.errors import ConfigError

HEADER = """\
# Every variable of Headgate with its default. Copy this file to .env and change what you need;
# a variable of the process itself goes before a line of .env. Empty means the default.
# A secret NAME may also be given as NAME_FILE, the path of a file that holds it.
"""


def describe() -> str:
    """Return what `.env.example` has to say."""
    lines = [HEADER]
    for name, field in Environment.model_fields.items():
        lines.extend(f"# {line}" for line in textwrap.wrap(str(field.description), width=110))
        lines.append(f"{name.upper()}={show(field.default)}\n")
    return "\n".join(lines)


def show(value: Any) -> str:
    """Return a default as a person writes it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, Path):
        return str(value.relative_to(BASE_DIR))
    return str(value)


def test_nothing_set_gives_the_embedded_defaults() -> None:
    environment = read_environment({"PATH": "/usr/bin"})

    assert environment.headgate_data == BASE_DIR / "var"
    assert environment.database_url is None
    assert environment.headgate_egress_ports == (80, 443)


def test_an_empty_variable_counts_as_not_set() -> None:
    environment = read_environment({"HEADGATE_PORT": "", "BROKER_URL": " "})

    assert environment.headgate_port == 8000
    assert environment.broker_url is None


def test_an_unknown_variable_names_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match="Did you mean HEADGATE_LAKE_URL") as caught:
        read_environment({"HEADGATE_LAEK_URL": "s3://bucket"})

    assert caught.value.code == "config.unknown_variable"


def test_an_older_name_is_read_where_the_newer_one_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"HEADGATE_NUDGE_AGAIN_S": "7"}
    monkeypatch.setenv("HEADGATE_NUDGE_AGAIN_S", "7")

    assert read_environment(old).headgate_resend_after_s == 7
    assert read_environment({**old, "HEADGATE_RESEND_AFTER_S": "9"}).headgate_resend_after_s == 9
    assert ["HEADGATE_RESEND_AFTER_S" in found.msg for found in checks.check_names()] == [True]


def test_a_wrong_value_is_named_without_being_shown() -> None:
    with pytest.raises(ConfigError, match="HEADGATE_PORT") as caught:
        read_environment({"HEADGATE_PORT": "eight-thousand"})

    assert caught.value.code == "config.invalid"
    assert "eight-thousand" not in str(caught.value)


def test_lists_are_split_at_commas() -> None:
    environment = read_environment({"HEADGATE_EGRESS_ALLOW": "10.0.0.0/8, store:9000,", "HEADGATE_EGRESS_PORTS": "443"})

    assert environment.headgate_egress_allow == ("10.0.0.0/8", "store:9000")
    assert environment.headgate_egress_ports == (443,)


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from the file\n")

    environment = read_environment({"HEADGATE_SECRET_KEY_FILE": str(tmp_path / "key")})

    assert environment.headgate_secret_key == SecretStr("from the file")


def test_a_secret_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_environment({"DATABASE_URL_FILE": str(tmp_path / "absent")})


def test_only_secrets_have_a_file_form(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HEADGATE_PORT_FILE is not a setting"):
        read_environment({"HEADGATE_PORT_FILE": str(tmp_path)})


def test_a_secret_does_not_show_in_the_settings_text() -> None:
    environment = read_environment({"DATABASE_URL": "postgres://user:canary@host/name"})

    assert "canary" not in repr(environment)


def test_lines_of_the_env_file_count_where_the_process_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env").write_text("# a comment\nHEADGATE_PORT=8100\nHEADGATE_LEASE_S='2'\n")
    monkeypatch.setenv("HEADGATE_ENV_FILE", str(tmp_path / "env"))
    monkeypatch.setenv("HEADGATE_PORT", "8200")
    monkeypatch.delenv("HEADGATE_LEASE_S", raising=False)

    environment = load_environment()
    monkeypatch.delenv("HEADGATE_LEASE_S")

    assert environment.headgate_port == 8200
    assert environment.headgate_lease_s == 2


def test_global_options_are_taken_from_anywhere_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_DATA", "before")
    monkeypatch.setenv("HEADGATE_PORT", "1")

    rest = take_global_options(["manage.py", "--data", "/srv/here", "up", "--port=8001", "--", "--data"])

    assert rest == ["manage.py", "up", "--", "--data"]
    environment = load_environment()
    assert (environment.headgate_data, environment.headgate_port) == (Path("/srv/here"), 8001)


def test_a_global_option_without_value_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--data needs a value"):
        take_global_options(["manage.py", "up", "--data"])


def test_every_secret_name_is_a_variable() -> None:
    assert SECRET_NAMES <= NAMES


def test_the_example_file_shows_every_variable_with_its_default() -> None:
    assert (BASE_DIR / ".env.example").read_text() == describe()
