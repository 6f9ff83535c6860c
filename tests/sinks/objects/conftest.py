"""A lake in memory and a folder to publish into."""

from pathlib import Path

import pytest

from ingestion.ports.context import Context
from sinks.objects.sink import ObjectsSink
from tests.conformance.context import MemoryLake, RecordingContext
from tests.sinks.objects.support import sink_at


@pytest.fixture
def lake() -> MemoryLake:
    return MemoryLake()


@pytest.fixture
def recording(lake: MemoryLake, tmp_path: Path) -> RecordingContext:
    return RecordingContext(lake=lake, scratch=tmp_path / "scratch")


@pytest.fixture
def ctx(recording: RecordingContext) -> Context:
    return recording.context


@pytest.fixture
def sink(tmp_path: Path) -> ObjectsSink:
    return sink_at(tmp_path / "published")
