"""How Druid comes to the rows, by what it has loaded and what is asked for."""

from typing import Any

import pytest

from ingestion.ports.errors import ConfigError
from sinks.druid.config import DruidConfig, InputWay
from sinks.druid.ways import Extensions, choose_way, find_way
from tests.fakes.druid import FakeDruid
from tests.sinks.druid.support import Bench, http_client

NOTHING = Extensions(s3=False, parquet=False, sql=False)
S3 = Extensions(s3=True, parquet=False, sql=False)
PARQUET = Extensions(s3=False, parquet=True, sql=False)
BOTH = Extensions(s3=True, parquet=True, sql=True)
WAYS: list[tuple[dict[str, Any], Extensions, str, tuple[InputWay, str] | None]] = [
    # settings, extensions, where the rows lie, way and format
    ({}, BOTH, "bucket", (InputWay.S3, "parquet")),
    ({}, S3, "bucket", (InputWay.S3, "json")),
    ({}, PARQUET, "bucket", (InputWay.PRESIGNED, "json")),
    ({}, NOTHING, "bucket", (InputWay.PRESIGNED, "json")),
    ({"shares_disk": True}, NOTHING, "bucket", (InputWay.PRESIGNED, "json")),
    ({"shares_disk": True}, NOTHING, "folder", (InputWay.LOCAL, "json")),
    ({"shares_disk": True}, PARQUET, "folder", (InputWay.LOCAL, "parquet")),
    ({}, BOTH, "folder", (InputWay.INLINE, "json")),
    ({}, NOTHING, "memory", (InputWay.INLINE, "json")),
    ({"shares_disk": True}, NOTHING, "memory", (InputWay.INLINE, "json")),
    ({"input": "presigned"}, BOTH, "bucket", (InputWay.PRESIGNED, "json")),
    ({"input": "inline"}, BOTH, "bucket", (InputWay.INLINE, "json")),
    ({"input": "s3"}, NOTHING, "bucket", None),
    ({"input": "s3"}, BOTH, "folder", None),
    ({"input": "presigned"}, BOTH, "folder", None),
    ({"input": "local"}, BOTH, "folder", None),
    ({"input": "local", "shares_disk": True}, BOTH, "memory", None),
]


@pytest.mark.parametrize(("settings", "extensions", "place", "expected"), WAYS)
def test_the_way_follows_from_extensions_place_and_settings(
    settings: dict[str, Any], extensions: Extensions, place: str, expected: tuple[InputWay, str] | None
) -> None:
    config = DruidConfig(url="http://druid:8888", **settings)

    def choose() -> Any:
        return choose_way(config, extensions, is_bucket=place == "bucket", is_local=place == "folder")

    if expected is None:
        with pytest.raises(ConfigError) as raised:
            choose()
        assert raised.value.code == "sink.no_way"
    else:
        way = choose()
        assert (way.input, way.format) == expected
        assert way.reason


@pytest.mark.parametrize(
    ("extensions", "version", "found"),
    [
        ([], "33.0.0", Extensions(False, False, False, "33.0.0")),
        (["s3"], "33.0.0", Extensions(True, False, False, "33.0.0")),
        (["parquet", "msq"], "33.0.0", Extensions(False, True, True, "33.0.0")),
        # From 35 on the engine is no module any more that is listed.
        ([], "37.0.0", Extensions(False, False, True, "37.0.0")),
    ],
)
def test_extensions_are_read_off_the_status(extensions: list[str], version: str, found: Extensions) -> None:
    with FakeDruid(extensions=extensions, version=version) as druid:
        status = http_client().get(f"{druid.url}/status")

    import json

    assert Extensions.of(json.loads(status.body)) == found


@pytest.mark.parametrize(
    "status", [{}, {"modules": None}, {"modules": ["x", {}]}, {"modules": {"a": 1}, "version": None}]
)
def test_a_status_that_tells_nothing_has_no_extensions(status: dict[str, Any]) -> None:
    assert Extensions.of(status) == Extensions(False, False, False)


def test_the_real_places_are_told_apart(bench: Bench, local: Bench) -> None:
    class Client:
        def status(self) -> dict[str, Any]:
            return {}

    for one, expected in ((bench, InputWay.INLINE), (local, InputWay.LOCAL)):
        assert find_way(one.sink.config, Client(), one.lake).input is expected  # type: ignore[arg-type]
