"""The servers that tests start: real, and gone afterwards."""

import signal
from contextlib import closing
from pathlib import Path

import boto3
import psycopg
import pytest
import redis
from botocore.exceptions import ClientError

from ingestion.ports.errors import ConfigError
from tests import druid_server
from tests.servers import MariaDB, Moto, Postgres, S3Server, Valkey, VersityGateway, accepts, missing


def test_valkey_keeps_what_it_was_told_when_it_is_killed() -> None:
    with Valkey() as valkey, closing(redis.Redis.from_url(valkey.url(3))) as client:
        client.set("kept", "yes")
        client.execute_command("WAITAOF", 1, 0, 5000)
        valkey.stop(signal.SIGKILL)
        valkey.start()

        assert client.get("kept") == b"yes"


@pytest.mark.postgres
def test_postgres_gives_empty_databases(postgres: Postgres) -> None:
    url = postgres.create_database("of_this_test")

    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()

    assert row == (0,)


@pytest.mark.postgres
def test_postgres_comes_back_after_an_immediate_stop() -> None:
    with Postgres() as server:
        server.stop(signal.SIGQUIT)
        server.start()

        assert server.is_ready()


def test_mariadb_takes_texts_of_any_script(mariadb: MariaDB) -> None:
    rows = mariadb.run("SET NAMES utf8mb4", "SELECT 'größe α 😀'")

    assert rows == [("größe α 😀",)]


@pytest.mark.parametrize("kind", ["moto", "versitygw"])
def test_an_s3_server_refuses_to_overwrite_where_it_is_asked_to(kind: str, request: pytest.FixtureRequest) -> None:
    server: S3Server = request.getfixturevalue(kind)
    assert isinstance(server, Moto | VersityGateway)
    url = server.create_bucket("first-come")
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    client.put_object(Bucket="first-come", Key="key", Body=b"first", IfNoneMatch="*")

    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket="first-come", Key="key", Body=b"second", IfNoneMatch="*")

    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert url.startswith("s3://first-come?endpoint=http://127.0.0.1:")


def test_a_server_leaves_nothing_behind() -> None:
    with Valkey() as server:
        port, folder = server.port, server.folder

    assert not accepts(port)
    assert not folder.exists()


def test_a_druid_without_java_is_a_skip_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_java() -> Path:
        raise ConfigError("druid.java_missing", wanted=17, found="none")

    monkeypatch.delenv("REQUIRE_ALL", raising=False)
    monkeypatch.setattr(druid_server, "find_java", find_java)
    druid_server.resolved_classpath.cache_clear()

    with pytest.raises(pytest.skip.Exception, match="apt install openjdk-17"):
        druid_server.Druid()


def test_what_a_machine_lacks_is_a_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUIRE_ALL", raising=False)

    with pytest.raises(pytest.skip.Exception, match="no such server"):
        missing("no such server")


def test_what_a_machine_lacks_is_a_failure_where_everything_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUIRE_ALL", "1")

    with pytest.raises(pytest.fail.Exception, match="no such server"):
        missing("no such server")
