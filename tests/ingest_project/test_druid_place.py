"""The Druid that is delivered to, and who may know of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest_project.env import foreign_environment, read_environment
from ingest_project.stack.druid.layout import choose_ports
from ingest_project.stack.druid.place import druid_home, embedded_place, find_druid, stopped_place
from ingest_project.stack.state import StackState, hold_stack, write_state
from ingestion.ports.errors import ConfigError
from tests.servers import ROOT, product_environment

PORTS = {"coordinator": 8081, "broker": 8082}


@contextmanager
def running_druid(data: Path) -> Iterator[None]:
    """Describe a running Druid in a data directory."""
    with hold_stack(druid_home(data)):
        write_state(druid_home(data), StackState(pid=1, services=("druid",), druid_ports=PORTS))
        yield


@pytest.mark.parametrize(
    ("variables", "config", "secrets", "reached"),
    [
        ({"DRUID_URL": "http://router:8888/"}, {"url": "http://router:8888"}, {}, ["router:8888"]),
        (
            {"DRUID_URL": "https://druid.example.org", "DRUID_BROKER_URL": "http://[::1]:8082"},
            {"url": "https://druid.example.org", "broker_url": "http://[::1]:8082"},
            {},
            ["druid.example.org:443", "[::1]:8082"],
        ),
        (
            {"DRUID_URL": "http://router", "DRUID_USER": "ingest", "DRUID_PASSWORD": "canary"},
            {"url": "http://router", "username": "ingest"},
            {"password": "canary"},
            ["router:80"],
        ),
    ],
)
def test_the_configured_druid_is_the_destination(
    tmp_path: Path, variables: dict[str, str], config: dict[str, str], secrets: dict[str, str], reached: list[str]
) -> None:
    place = find_druid(read_environment(variables), data=tmp_path)

    assert place is not None
    assert (place.config, place.secrets, place.reached) == (config, secrets, reached)
    assert not place.is_embedded
    assert "canary" not in repr(place)


def test_without_anything_there_is_none(tmp_path: Path) -> None:
    assert find_druid(read_environment({}), data=tmp_path) is None


def test_the_running_one_of_the_data_directory_is_taken(tmp_path: Path) -> None:
    with running_druid(tmp_path):
        place = find_druid(read_environment({}), data=tmp_path)

    assert place == embedded_place(PORTS)
    assert place.config == {
        "url": "http://127.0.0.1:8081",
        "broker_url": "http://127.0.0.1:8082",
        "shares_disk": True,
    }
    assert place.reached == ["127.0.0.1:8081", "127.0.0.1:8082"]
    assert find_druid(read_environment({}), data=tmp_path) is None


def test_where_a_stopped_one_was_is_known(tmp_path: Path) -> None:
    assert stopped_place(tmp_path) is None

    ports = choose_ports(druid_home(tmp_path))
    place = stopped_place(tmp_path)

    assert place is not None
    assert place.reached == [f"127.0.0.1:{ports['coordinator']}", f"127.0.0.1:{ports['broker']}"]
    assert find_druid(read_environment({}), data=tmp_path) is None


def test_the_configured_one_goes_before_it(tmp_path: Path) -> None:
    with running_druid(tmp_path):
        place = find_druid(read_environment({"DRUID_URL": "http://router:8888"}), data=tmp_path)

    assert place is not None
    assert place.config == {"url": "http://router:8888"}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"DRUID_URL": "router:8888"}, "DRUID_URL: write an address such as"),
        ({"DRUID_URL": "http://user:canary@router:8888"}, "DRUID_URL: write the address without user"),
        ({"DRUID_BROKER_URL": "http://broker:8082"}, "DRUID_BROKER_URL is set without DRUID_URL"),
        ({"DRUID_URL": "http://router:8888", "DRUID_USER": "ingest"}, "belong together"),
        ({"HEADGATE_DRUID_VERSION": "33 -Dx"}, "HEADGATE_DRUID_VERSION"),
    ],
)
def test_what_cannot_be_an_address_is_one_sentence(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_environment(variables)

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "allowed"),
    [
        ({}, ["127.0.0.1:8081", "127.0.0.1:8082"]),
        ({"HEADGATE_ENV": "production"}, []),
        ({"HEADGATE_ENV": "production", "HEADGATE_ALLOW_EMBEDDED": "1"}, ["127.0.0.1:8081", "127.0.0.1:8082"]),
        ({"DRUID_URL": "http://router:8888", "HEADGATE_ENV": "production"}, ["router:8888"]),
    ],
)
def test_its_addresses_may_be_reached(tmp_path: Path, variables: dict[str, str], allowed: list[str]) -> None:
    script = (
        "import json; from ingest_project import settings as s; "
        "print(json.dumps([s.HEADGATE_EGRESS_ALLOW, 'druid' in s.HEADGATE_EMBEDDED]))"
    )

    with running_druid(tmp_path):
        told = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=product_environment(tmp_path, **variables),
            capture_output=True,
            text=True,
            check=True,
        )

    assert json.loads(told.stdout) == [allowed, "DRUID_URL" not in variables]


def test_the_services_do_not_get_the_products_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADGATE_SECRET_KEY", "DATABASE_URL", "DRUID_PASSWORD_FILE", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "canary")

    environment = foreign_environment({"HEADGATE_DATA": "/data"})

    assert "canary" not in environment.values()
    assert environment["HEADGATE_DATA"] == "/data"
    assert "PATH" in environment
