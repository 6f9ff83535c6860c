"""Places that a destination may not have."""

from pathlib import Path
from typing import Any

import pytest

from ingestion.models import Destination, Pipeline, Source
from ingestion.ports.errors import ConfigError, Refused
from ingestion.runs.operate import housekeeping
from ingestion.runs.start.pipelines import (
    check_destination_config,
    default_destinations,
    upload_pipeline,
    upload_source,
)
from ingestion.toolkit.lake.places import overlap, segments_of


@pytest.fixture
def house(settings: Any, tmp_path: Path, db: None) -> Path:
    """An installation with its lake in its data folder, and a destination elsewhere."""
    data = tmp_path / "data"
    settings.HEADGATE_DATA_DIR = data
    settings.HEADGATE_LAKE_URL = str(data / "lake")
    (tmp_path / "link").symlink_to(data)
    Destination.objects.create(name="files", kind="objects", config={"url": str(tmp_path / "out")})
    Destination.objects.create(name="tables", kind="sqlite", config={"path": str(tmp_path / "house.sqlite3")})
    return tmp_path


def refused(kind: str, config: dict[str, Any], **values: Any) -> str:
    """Return who lies there already; empty where the place is free."""
    try:
        check_destination_config(kind=kind, config=config, secrets={}, name="mine", **values)
    except Refused as error:
        assert error.code == "destination.place_taken"
        return str(error.values["owner"])
    return ""


def test_a_destination_lies_in_nobodys_place(house: Path) -> None:
    url = {
        "data/lake": "the lake",
        "data/lake/raw": "the lake",
        "data/../data/lake/": "the lake",
        "link/lake": "the lake",
        ".": "the lake",
        "data": "the lake",
        "data/secrets": "the data folder",
        "data/run/x": "the data folder",
        "data/published-not": "the data folder",
        "out": "destination files",
        "out/sub": "destination files",
        "house.sqlite3": "destination tables",
        # free
        "data/published": "",
        "data/published/mine": "",
        "data/lake-published": "",
        "out2": "",
    }
    path = {
        "data/headgate.sqlite3": "the data folder",
        "data/published/mine.sqlite3": "",
        "out/mine.sqlite3": "destination files",
        "house.sqlite3": "",  # tables of its own in the same file
        "mine.sqlite3": "",
    }

    found = {place: refused("objects", {"url": str(house / place)}) for place in url}
    found_of_files = {place: refused("sqlite", {"path": str(house / place)}) for place in path}

    assert found == url
    assert found_of_files == path
    assert refused("objects", {"url": f"file://{house}/data/lake"}) == "the lake"
    own = Destination.objects.get(name="files")
    assert refused("objects", own.config, own_id=own.pk) == ""


def test_a_prefix_of_the_lakes_bucket_is_compared_by_its_segments(house: Path, settings: Any) -> None:
    settings.HEADGATE_LAKE_URL = "s3://bucket/lake?endpoint=http://store.example.org"
    at = "?endpoint=http://STORE.example.org"
    places = {
        f"s3://bucket/lake{at}": "the lake",
        f"s3://bucket/lake/raw/{at}": "the lake",
        f"s3://bucket{at}": "the lake",
        f"s3://bucket/lake/published{at}": "",  # where an earlier version had its default
        f"s3://bucket/lake-published{at}": "",
        f"s3://bucket/lakes{at}": "",
        f"s3://other/lake{at}": "",
        "s3://bucket/lake?endpoint=http://elsewhere.example.org": "",
    }

    assert {place: refused("objects", {"url": place}) for place in places} == places
    assert default_destinations()[0].config["url"] == "s3://bucket/lake-published?endpoint=http://store.example.org"


def test_nothing_is_removed_from_a_destination_that_was_set_up_in_the_lake(house: Path) -> None:
    kept = house / "data" / "lake" / "raw" / "p" / "000000-0123456789abcdef.parquet"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"rows")
    source = Source.objects.create(name="s", kind="files")
    pipeline = Pipeline.objects.create(name="p", source=source, stream="file")
    destination = Destination.objects.create(
        name="old", kind="objects", config={"url": str(house / "data" / "lake" / "raw")}
    )

    for operation in (
        lambda: housekeeping.drop(destination, pipeline, confirm="p"),
        lambda: housekeeping.retain(destination, pipeline, keep_runs=1),
        lambda: housekeeping.compact(destination, pipeline),
    ):
        with pytest.raises(Refused) as refusal:
            operation()
        assert refusal.value.code == "destination.place_taken"

    assert kept.exists()


def test_places_are_compared_segment_by_segment(tmp_path: Path) -> None:
    assert overlap(("file", "a", "b"), ("file", "a"))
    assert not overlap(("file", "a", "b"), ("file", "a", "bc"))
    assert segments_of("s3://bucket/a/b/?region=eu-west-1") == ("s3", "", "bucket", "a", "b")


def test_a_pipeline_is_not_called_like_a_folder_of_the_lake(db: None) -> None:
    for name in ("raw", "clean", "rejected", "refused", "manifests", "uploads"):
        with pytest.raises(ConfigError) as refusal:
            upload_pipeline(name)
        assert refusal.value.code == "pipeline.name_reserved"
    assert upload_pipeline("raw_file").name == "raw_file"
    # One that an earlier version made goes on.
    old = Pipeline.objects.create(name="raw", source=upload_source(), stream="file")
    assert upload_pipeline("raw") == old
