"""Conformance of the sink, for each way that rows come into Druid."""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from ingestion.ports.publication import Manifest, WriteMode
from ingestion.ports.sink import Sink
from ingestion.toolkit.lake.local import LocalLake
from sinks.druid.config import DruidConfig
from sinks.druid.sink import DruidSink
from tests.conformance.context import MemoryLake, RecordingContext
from tests.conformance.sink import PART_ROWS, SinkConformance
from tests.fakes.druid import FakeDruid
from tests.servers import VersityGateway
from tests.sinks.druid.support import http_client

USER, PASSWORD = "ingest", "password-of-the-test"


class DruidConformance(SinkConformance):
    """Common ground of the ways: a fake Druid that asks who is there, and a new one for each destination."""

    refuses_credentials = True
    mode: ClassVar[WriteMode] = WriteMode.MERGE
    extensions: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _druids(self) -> Iterator[None]:
        self.druid: FakeDruid | None = None
        yield
        if self.druid is not None:
            self.druid.__exit__(None, None, None)

    def renew(self) -> None:
        if self.druid is not None:
            self.druid.__exit__(None, None, None)
        self.druid = FakeDruid(users={USER: PASSWORD}, extensions=self.extensions)
        self.druid.start()

    def secrets(self) -> dict[str, str]:
        """Return the right secrets."""
        return {"password": PASSWORD}

    def make_sink(self, **secrets: str) -> Sink:
        url = self.druid.url if self.druid is not None else "http://druid:8888"
        values = {name: SecretStr(value) for name, value in {**self.secrets(), **secrets}.items()}
        if "staging" not in self.settings and not hasattr(self, "staging"):
            # Keys of a bucket that there is none of say nothing.
            values = {name: value for name, value in values.items() if not name.startswith("read_")}
        return DruidSink(DruidConfig(url=url, username=USER, **self.settings, **self.places(), **values))

    def places(self) -> dict[str, Any]:
        """Return settings that are known only once the test runs."""
        return {}

    def make_context(self, lake: MemoryLake) -> RecordingContext:
        recording = RecordingContext(lake=lake, now=datetime.now(UTC), scratch=self.folder / "scratch")
        # The client's own signs of life are its business; killed at each of them, a delivery would die a hundred times.
        object.__setattr__(recording.context, "http", http_client())
        return recording

    def make_manifest(self, lake: MemoryLake, *, part_rows: Sequence[int] = PART_ROWS) -> Manifest:
        from dataclasses import replace

        return replace(super().make_manifest(lake, part_rows=part_rows), mode=self.mode)

    def read_rows(self, manifest: Manifest) -> list[dict[str, Any]]:
        assert self.druid is not None
        rows = [row for row in self.druid.rows(manifest.pipeline) if row["_run"] == manifest.run_id]
        found = [{name: row.get(name) for name in ("id", "formula", "energy")} for row in rows]
        return sorted(found, key=lambda row: int(row["id"]))


class ByDisk(DruidConformance):
    """A folder that Druid's workers see."""

    settings: ClassVar[dict[str, Any]] = {"shares_disk": True}

    def make_lake(self) -> Any:
        return LocalLake(self._fresh_folder())


class BySignedAddress(DruidConformance):
    """A bucket of a real S3 server, read by signed addresses."""

    @pytest.fixture(autouse=True)
    def _bucket(self, versitygw: VersityGateway, tmp_path: Path) -> None:
        self.server = versitygw
        self.staging = versitygw.create_bucket(f"conformance-{os.getpid()}-{abs(hash(str(tmp_path))) % 10**9}")

    def places(self) -> dict[str, Any]:
        return {"staging": self.staging}

    def secrets(self) -> dict[str, str]:
        keys = {
            f"{kind}_{name}": value
            for kind in ("staging", "read")
            for name, value in (("access_key", self.server.access_key), ("secret_key", self.server.secret_key))
        }
        return {**super().secrets(), **keys}


class TestInlineMerges(DruidConformance):
    """Rows travel inside the task."""

    credentials = ("password",)


@pytest.mark.slow
class TestAppendsByDisk(ByDisk):
    """Rows lie on a shared disk."""

    mode = WriteMode.APPEND
    credentials = ("password",)


@pytest.mark.slow
class TestInlineReplacements(DruidConformance):
    """A full refresh."""

    mode = WriteMode.REPLACE
    credentials = ("password",)


@pytest.mark.slow
class TestParquetReplacementsByDisk(ByDisk):
    """The clean parts themselves are read."""

    mode = WriteMode.REPLACE
    extensions = ("parquet",)
    credentials = ("password",)


@pytest.mark.slow
class TestMergesByDisk(ByDisk):
    """Merged rows lie on a shared disk."""

    credentials = ("password",)


@pytest.mark.slow
class TestReplacementsBySignedAddress(BySignedAddress):
    """Every pair of keys is refused where one of it is wrong."""

    mode = WriteMode.REPLACE


@pytest.mark.slow
class TestMergesBySignedAddress(BySignedAddress):
    """Merged rows in a bucket."""
