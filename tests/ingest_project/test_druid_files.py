"""The files and ports of a Druid of one's own."""

import json
import socket
from contextlib import closing
from pathlib import Path

import pytest

from ingest_project.stack.druid.lake import lake_access
from ingest_project.stack.druid.layout import PORTS, SERVICES, choose_ports, write_files

NUMBERED = {name: 20_000 + number for number, name in enumerate(PORTS)}


def properties(path: Path) -> dict[str, str]:
    """Return the lines of a file of properties by their names."""
    pairs = (line.partition("=") for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """The configuration of one start."""
    write_files(tmp_path, ports=NUMBERED, jars=["/jars/a b.jar", "/jars/c.jar"])
    return tmp_path / "conf"


def test_every_listener_has_a_port_of_its_own(tmp_path: Path) -> None:
    assert len(set(choose_ports(tmp_path).values())) == len(PORTS)


def test_ports_stay_the_same(tmp_path: Path) -> None:
    assert choose_ports(tmp_path) == choose_ports(tmp_path)


def test_a_port_that_somebody_took_is_replaced_alone(tmp_path: Path) -> None:
    before = choose_ports(tmp_path)

    with closing(socket.create_server(("127.0.0.1", before["broker"]))):
        after = choose_ports(tmp_path)

    assert after["broker"] != before["broker"]
    assert {**after, "broker": 0} == {**before, "broker": 0}
    assert json.loads((tmp_path / "ports.json").read_text()) == after


def test_every_service_reads_its_port(conf: Path) -> None:
    for service in SERVICES:
        own = properties(conf / service / "runtime.properties")
        assert own["druid.plaintextPort"] == str(NUMBERED[service])
        assert own["druid.service"] == f"druid/{service}"
    common = properties(conf / "_common" / "common.runtime.properties")
    assert common["druid.zk.service.host"] == f"127.0.0.1:{NUMBERED['zookeeper']}"
    assert common["druid.metadata.storage.connector.port"] == str(NUMBERED["metadata"])
    assert f":{NUMBERED['metadata']}/" in common["druid.metadata.storage.connector.connectURI"]
    assert f"clientPort={NUMBERED['zookeeper']}" in (conf / "zoo.cfg").read_text()


def test_nothing_listens_beyond_this_machine(conf: Path) -> None:
    common = properties(conf / "_common" / "common.runtime.properties")

    assert (common["druid.host"], common["druid.bindOnHost"]) == ("127.0.0.1", "true")
    assert common["druid.metadata.storage.connector.host"] == "127.0.0.1"
    assert "clientPortAddress=127.0.0.1" in (conf / "zoo.cfg").read_text()


def test_tasks_outlive_a_restart_and_a_stop_is_short(conf: Path) -> None:
    common = properties(conf / "_common" / "common.runtime.properties")

    assert properties(conf / "coordinator" / "runtime.properties")["druid.indexer.storage.type"] == "metadata"
    assert common["druid.server.http.gracefulShutdownTimeout"] == "PT1S"
    assert common["druid.server.http.unannouncePropagationDelay"] == "PT0S"


def test_a_services_own_folder_stands_first_on_its_class_path(conf: Path) -> None:
    text = (conf / "broker.classpath").read_text()

    assert text == '-cp "conf/broker:conf/_common:/jars/a b.jar:/jars/c.jar"\n'


def test_what_zookeeper_kept_of_killed_processes_is_forgotten_and_data_are_not(tmp_path: Path) -> None:
    write_files(tmp_path, ports=NUMBERED, jars=[])
    kept, session = tmp_path / "var" / "druid" / "segments" / "one", tmp_path / "var" / "zk" / "session"
    kept.touch()
    session.touch()

    write_files(tmp_path, ports=NUMBERED, jars=[])

    assert kept.exists()
    assert not session.exists()


def test_no_placeholder_is_left(conf: Path) -> None:
    for path in conf.rglob("*"):
        if path.is_file() and path.name != "log4j2.xml":
            assert "$" not in path.read_text()


def test_the_s3_extension_is_told_region_keys_and_path_style(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")

    access = lake_access("s3://bucket/lake?endpoint=http://store:7070&region=eu-west-1&path_style=1")

    assert list(access.properties) == [
        'druid.s3.accessKey={"type":"environment","variable":"AWS_ACCESS_KEY_ID"}',
        'druid.s3.secretKey={"type":"environment","variable":"AWS_SECRET_ACCESS_KEY"}',
        "druid.s3.endpoint.signingRegion=eu-west-1",
        "druid.s3.enablePathStyleAccess=true",
        "druid.s3.protocol=http",
        "druid.s3.endpoint.url=http://store:7070",
        "druid.s3.disableChunkedEncoding=true",
    ]
    assert access.variables["AWS_SECRET_ACCESS_KEY"] == "canary"
    assert "canary" not in repr(access)


def test_the_s3_extension_has_a_region_and_keys_where_the_lake_is_a_folder() -> None:
    access = lake_access("/var/lake")

    assert "druid.s3.endpoint.signingRegion=us-east-1" in access.properties
    assert access.variables == {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1"}
