"""The compose file: valid, whole, and only the web is reached from outside."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest_project.env import BASE_DIR, read_environment
from ingest_project.queues import WORKER_CONCURRENCY, WORKERS

COMPOSE = BASE_DIR / "docker-compose.yml"
ENDS_BY_ITSELF = {"migrate"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services with their anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    services: dict[str, Any] = loaded["services"]
    return services


def test_it_follows_the_schema_of_compose_files() -> None:
    program = str(Path(sys.executable).parent / "check-jsonschema")

    checked = subprocess.run(
        [program, "--builtin-schema", "vendor.compose-spec", str(COMPOSE)], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stdout


def test_docker_understands_it(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed here; the schema test reads the same file")

    checked = subprocess.run(
        [docker, "compose", "--file", str(COMPOSE), "config", "--quiet"], capture_output=True, text=True, check=False
    )

    assert checked.returncode == 0, checked.stderr


def test_every_service_that_is_waited_for_exists(services: dict[str, Any]) -> None:
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)


def test_every_named_volume_is_declared(services: dict[str, Any]) -> None:
    declared = set(yaml.safe_load(COMPOSE.read_text())["volumes"])

    used = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}

    assert used == declared


def test_every_lasting_service_has_a_health_check(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "healthcheck" not in service] == sorted(ENDS_BY_ITSELF)


def test_only_the_web_port_is_published(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "ports" in service] == ["web"]


def test_the_workers_are_those_of_one_machine(services: dict[str, Any]) -> None:
    for name, queues in WORKERS.items():
        command = services[name]["command"]
        assert command[command.index("--queues") + 1] == ",".join(queues)
        assert command[command.index("--concurrency") + 1] == str(WORKER_CONCURRENCY[name])


def test_its_variables_are_known_to_the_product(services: dict[str, Any]) -> None:
    variables = {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for name, value in services["web"]["environment"].items()
    }

    environment = read_environment(variables)

    assert environment.is_production
    assert environment.database_url is not None
    assert environment.headgate_lake_url.startswith("s3://")


def test_the_image_holds_every_package_of_the_product() -> None:
    text = (BASE_DIR / "Dockerfile").read_text()

    copied = set(re.findall(r"^COPY (\w+) \1$", text, flags=re.MULTILINE))

    assert copied == {"ingest_project", "ingestion", "connectors", "sinks", "sample"}
    assert {f"!{name}" for name in copied} <= set((BASE_DIR / ".dockerignore").read_text().split())
