"""What every sink must do, for files in folders and buckets, in every form."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest
from pydantic import SecretStr

from ingestion.ports.publication import Manifest
from ingestion.ports.sink import Sink
from ingestion.toolkit.lake.opening import open_lake
from sinks.objects.config import ObjectsConfig
from sinks.objects.sink import ObjectsSink
from tests.conformance.context import MemoryLake, RecordingContext
from tests.conformance.sink import PART_ROWS, SinkConformance
from tests.servers import S3Server
from tests.sinks.objects.support import read_manifest, records


class ObjectsConformance(SinkConformance):
    """What folders and buckets have in common."""

    settings: ClassVar[dict[str, Any]] = {}
    most_rows: ClassVar[int] = 100
    """How many rows a part has at most."""
    url: str

    def make_sink(self, **secrets: str) -> Sink:
        return ObjectsSink(ObjectsConfig(url=self.url, **self.settings, **self._keys(secrets)))

    def make_context(self, lake: MemoryLake) -> RecordingContext:
        return RecordingContext(lake=lake, scratch=self.folder / "scratch")

    def make_manifest(self, lake: MemoryLake, *, part_rows: Sequence[int] = PART_ROWS) -> Manifest:
        return super().make_manifest(lake, part_rows=[min(self.most_rows, rows) for rows in part_rows])

    def read_rows(self, manifest: Manifest) -> list[dict[str, Any]]:
        store = open_lake(self.url, **self._plain_keys())
        key = f"{manifest.pipeline}/manifests/{manifest.run_id:08d}.json"
        if store.head(key) is None:
            return []
        assert json.loads(store.read(f"{manifest.pipeline}/latest.json"))["manifests"] == [key]
        return records(read_manifest(store, json.loads(store.read(key))))

    def _plain_keys(self) -> dict[str, str]:
        return {}

    def _keys(self, secrets: dict[str, str]) -> dict[str, Any]:
        if secrets and not self._plain_keys():
            secrets = {"access_key": "k", "secret_key": "s", **secrets}
        return {name: SecretStr(value) for name, value in {**self._plain_keys(), **secrets}.items()}


class InAFolder(ObjectsConformance):
    """A folder of this machine."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.root = tmp_path

    def renew(self) -> None:
        number = len(list(self.root.glob("destination-*")))
        folder = self.root / f"destination-{number}"
        folder.mkdir()
        self.url = str(folder)


class InABucket(ObjectsConformance):
    """A bucket of an S3 server."""

    server_fixture: ClassVar[str] = "versitygw"

    @pytest.fixture(autouse=True)
    def _place(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self.server: S3Server = request.getfixturevalue(self.server_fixture)
        self.bucket = f"objects-{os.getpid()}-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
        self.server.create_bucket(self.bucket)
        self.number = 0

    def renew(self) -> None:
        self.number += 1
        query = urlencode({"endpoint": self.server.endpoint, "region": self.server.region, **self.server.options})
        self.url = f"s3://{self.bucket}/destination-{self.number}?{query}"

    def _plain_keys(self) -> dict[str, str]:
        return {"access_key": self.server.access_key, "secret_key": self.server.secret_key}


class TestParquetInAFolder(InAFolder):
    """The clean parts as they are."""


class TestParquetByPartitionInAFolder(InAFolder):
    """Rows in folders by a value; few rows, since each kill of a delivery writes them all again."""

    most_rows = 2

    settings: ClassVar[dict[str, Any]] = {"partition_by": ["formula"]}


class TestJsonLinesInAFolder(InAFolder):
    """JSON Lines, packed, under keys of one's own."""

    settings: ClassVar[dict[str, Any]] = {
        "format": "jsonl",
        "gzip": True,
        "key_template": "{pipeline}/day={date}/run={run}/rows-{part}",
    }


@pytest.mark.slow
class TestCsvByPartitionInAFolder(InAFolder):
    """CSV in folders by a value that may be null, empty or not of ASCII."""

    settings: ClassVar[dict[str, Any]] = {"format": "csv", "partition_by": ["formula"]}


class TestParquetInABucket(InABucket):
    """A real S3 server."""

    refuses_credentials = True


class TestParquetWithoutConditionalWrites(InABucket):
    """A store that takes If-None-Match and overwrites all the same."""

    server_fixture = "rclone"
    refuses_credentials = True


@pytest.mark.slow
class TestParquetByPartitionInABucket(InABucket):
    """Folders in a bucket."""

    most_rows = 2
    refuses_credentials = True
    settings: ClassVar[dict[str, Any]] = {"partition_by": ["formula"]}


@pytest.mark.slow
class TestJsonLinesInABucket(InABucket):
    """JSON Lines in a bucket."""

    refuses_credentials = True
    settings: ClassVar[dict[str, Any]] = {"format": "jsonl", "gzip": True}


@pytest.mark.slow
class TestCsvInABucket(InABucket):
    """CSV in a bucket of a store without conditional writes."""

    server_fixture = "rclone"
    refuses_credentials = True
    settings: ClassVar[dict[str, Any]] = {"format": "csv", "gzip": True}


@pytest.mark.slow
class TestEncryptedInABucket(InABucket):
    """Encrypted and tagged, by moto, which asks for no credentials."""

    most_rows = 2
    server_fixture = "moto"
    settings: ClassVar[dict[str, Any]] = {
        "format": "csv",
        "partition_by": ["formula"],
        "sse": "AES256",
        "tags": {"team": "materials"},
    }
