"""The compose file: valid, whole, and only the web is reached from outside."""

import json
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
from ingest_project.stack.druid.classpath import pom_version

COMPOSE = BASE_DIR / "docker-compose.yml"
ENDS_BY_ITSELF = {"migrate", "druid-database"}
DRUID_SERVICES = ("coordinator", "middlemanager", "historical", "broker", "router")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services with their anchors resolved."""
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    services: dict[str, Any] = loaded["services"]
    return services


def interpolate(text: str, **variables: str) -> str:
    """Return a value as Compose reads it: ${NAME:-default} and ${NAME:+replacement}, innermost first."""

    def replace(match: re.Match[str]) -> str:
        name, sign, other = match.groups()
        given = variables.get(name, "")
        return (other if given else "") if sign == "+" else given or other

    before = ""
    while before != text:
        before, text = text, re.sub(r"\$\{(\w+):([-+])([^${}]*)\}", replace, text)
    return text


def variables_of(service: dict[str, Any], **variables: str) -> dict[str, str]:
    """Return what a service's process is told."""
    return {name: interpolate(str(value), **variables) for name, value in service["environment"].items()}


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
    assert {name for name, service in services.items() if "healthcheck" not in service} == ENDS_BY_ITSELF


def test_only_the_web_port_is_published(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "ports" in service] == ["web"]


def test_the_workers_are_those_of_one_machine(services: dict[str, Any]) -> None:
    for name, queues in WORKERS.items():
        command = services[name]["command"]
        assert command[command.index("--queues") + 1] == ",".join(queues)
        assert command[command.index("--concurrency") + 1] == str(WORKER_CONCURRENCY[name])


def test_its_variables_are_known_to_the_product(services: dict[str, Any]) -> None:
    variables = variables_of(services["web"])

    environment = read_environment(variables)

    assert environment.is_production
    assert environment.database_url is not None
    assert environment.headgate_lake_url.startswith("s3://")


def test_druid_is_known_to_the_product_where_its_profile_is_on(services: dict[str, Any]) -> None:
    off, on, elsewhere = (
        read_environment(variables_of(services["worker-fetch"], **variables))
        for variables in ({}, {"COMPOSE_PROFILES": "druid"}, {"DRUID_URL": "https://druid.example.org"})
    )

    assert off.druid_url is None
    assert (on.druid_url, on.druid_broker_url) == ("http://druid-router:8888", None)
    assert elsewhere.druid_url == "https://druid.example.org"


def test_druid_is_a_profile_that_nothing_else_waits_for(services: dict[str, Any]) -> None:
    druid = {name for name, service in services.items() if service.get("profiles") == ["druid"]}

    assert druid == {name for name in services if name.startswith("druid-")}
    assert {f"druid-{name}" for name in DRUID_SERVICES} <= druid
    for name, service in services.items():
        if name not in druid:
            assert "profiles" not in service
            assert not druid & set(service.get("depends_on", {}))


@pytest.mark.parametrize("name", DRUID_SERVICES)
def test_every_druid_service_can_use_the_store(services: dict[str, Any], name: str) -> None:
    service = services[f"druid-{name}"]
    told = variables_of(service, S3_ACCESS_KEY="key", S3_SECRET_KEY="canary", POSTGRES_PASSWORD="canary")
    bucket = variables_of(services["web"])["HEADGATE_LAKE_URL"].removeprefix("s3://").partition("/")[0]

    # The version that the tests run.
    assert interpolate(service["image"]) == f"apache/druid:{pom_version()}"
    loaded = set(json.loads(told["druid_extensions_loadList"]))
    assert {"druid-s3-extensions", "druid-parquet-extensions", "postgresql-metadata-storage"} <= loaded
    expected = {
        # Without a region nothing starts; without path style the name of the bucket becomes a host.
        "AWS_REGION": "us-east-1",
        "druid_s3_endpoint_signingRegion": "us-east-1",
        "druid_s3_endpoint_url": "http://store:7070",
        "druid_s3_enablePathStyleAccess": "true",
        "druid_s3_disableChunkedEncoding": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "WHEN_REQUIRED",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "WHEN_REQUIRED",
        # Either of them alone ends in 403.
        "druid_storage_disableAcl": "true",
        "druid_indexer_logs_disableAcl": "true",
        "druid_storage_type": "s3",
        "druid_storage_bucket": bucket,
        "druid_indexer_logs_type": "s3",
        "druid_indexer_logs_s3Bucket": bucket,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "canary",
    }
    assert {key: told.get(key) for key in expected} == expected


@pytest.mark.parametrize("name", DRUID_SERVICES)
def test_the_log_of_a_druid_service_shows_no_secret(services: dict[str, Any], name: str) -> None:
    told = variables_of(services[f"druid-{name}"], S3_SECRET_KEY="canary", POSTGRES_PASSWORD="canary")

    # The image prints every variable that it makes a property of.
    printed = {key: value for key, value in told.items() if key.startswith("druid_")}

    assert not any("canary" in value for value in printed.values())
    for key in ("druid_s3_accessKey", "druid_s3_secretKey", "druid_metadata_storage_connector_password"):
        assert told[json.loads(printed[key])["variable"]]


def test_druids_tasks_outlive_a_restart_and_have_slots(services: dict[str, Any]) -> None:
    assert variables_of(services["druid-coordinator"])["druid_indexer_storage_type"] == "metadata"
    middle_manager = variables_of(services["druid-middlemanager"])
    assert int(middle_manager["druid_worker_capacity"]) >= 2
    # Tasks are processes of their own, with options of their own.
    options = json.loads(middle_manager["druid_indexer_runner_javaOptsArray"])
    assert "-Daws.region=us-east-1" in options
    assert "-Daws.requestChecksumCalculation=WHEN_REQUIRED" in options


def test_the_image_holds_every_package_of_the_product() -> None:
    text = (BASE_DIR / "Dockerfile").read_text()

    copied = set(re.findall(r"^COPY (\w+) \1$", text, flags=re.MULTILINE))

    assert copied == {"ingest_project", "ingestion", "connectors", "sinks", "sample"}
    assert {f"!{name}" for name in copied} <= set((BASE_DIR / ".dockerignore").read_text().split())
