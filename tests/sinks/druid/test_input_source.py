"""Choice of the input source, by what Druid has loaded and what is asked for."""

import json
from typing import Any

import pytest

from ingestion.ports.errors import ConfigError
from sinks.druid.config import DruidConfig, InputKind
from sinks.druid.input_source import Extensions, choose_input, find_input
from tests.fakes.druid import FakeDruid
from tests.sinks.druid.support import Bench, http_client

NOTHING = Extensions(s3=False, parquet=False)
S3 = Extensions(s3=True, parquet=False)
PARQUET = Extensions(s3=False, parquet=True)
BOTH = Extensions(s3=True, parquet=True)
WAYS: list[tuple[dict[str, Any], Extensions, str, tuple[InputKind, str] | None]] = [
    # settings, extensions, where the rows lie, way and format
    ({}, BOTH, "bucket", (InputKind.S3, "parquet")),
    ({}, S3, "bucket", (InputKind.S3, "json")),
    ({}, PARQUET, "bucket", (InputKind.PRESIGNED, "json")),
    ({}, NOTHING, "bucket", (InputKind.PRESIGNED, "json")),
    ({"shares_disk": True}, NOTHING, "bucket", (InputKind.PRESIGNED, "json")),
    ({"shares_disk": True}, NOTHING, "folder", (InputKind.LOCAL, "json")),
    ({"shares_disk": True}, PARQUET, "folder", (InputKind.LOCAL, "parquet")),
    ({}, BOTH, "folder", (InputKind.INLINE, "json")),
    ({}, NOTHING, "memory", (InputKind.INLINE, "json")),
    ({"shares_disk": True}, NOTHING, "memory", (InputKind.INLINE, "json")),
    ({"input": "presigned"}, BOTH, "bucket", (InputKind.PRESIGNED, "json")),
    ({"input": "inline"}, BOTH, "bucket", (InputKind.INLINE, "json")),
    ({"input": "s3"}, NOTHING, "bucket", None),
    ({"input": "s3"}, BOTH, "folder", None),
    ({"input": "presigned"}, BOTH, "folder", None),
    ({"input": "local"}, BOTH, "folder", None),
    ({"input": "local", "shares_disk": True}, BOTH, "memory", None),
]


@pytest.mark.parametrize(("settings", "extensions", "place", "expected"), WAYS)
def test_the_way_follows_from_extensions_place_and_settings(
    settings: dict[str, Any], extensions: Extensions, place: str, expected: tuple[InputKind, str] | None
) -> None:
    config = DruidConfig(url="http://druid:8888", **settings)

    def choose() -> Any:
        return choose_input(config, extensions, is_bucket=place == "bucket", is_local=place == "folder")

    if expected is None:
        with pytest.raises(ConfigError) as raised:
            choose()
        assert raised.value.code == "sink.no_way"
    else:
        chosen = choose()
        assert (chosen.kind, chosen.format) == expected
        assert chosen.reason


@pytest.mark.parametrize(
    ("extensions", "found"),
    [([], NOTHING), (["s3"], S3), (["parquet"], PARQUET), (["s3", "parquet"], BOTH)],
)
def test_extensions_are_read_off_the_status(extensions: list[str], found: Extensions) -> None:
    with FakeDruid(extensions=extensions) as druid:
        status = http_client().get(f"{druid.url}/status")

    assert Extensions.of(json.loads(status.body)) == found


@pytest.mark.parametrize(
    "status", [{}, {"modules": None}, {"modules": ["x", {}]}, {"modules": {"a": 1}, "version": None}]
)
def test_a_status_that_tells_nothing_has_no_extensions(status: dict[str, Any]) -> None:
    assert Extensions.of(status) == NOTHING


def test_the_real_places_are_told_apart(bench: Bench, local: Bench) -> None:
    class Client:
        def status(self) -> dict[str, Any]:
            return {}

    for one, expected in ((bench, InputKind.INLINE), (local, InputKind.LOCAL)):
        assert find_input(one.sink.config, Client(), one.lake).kind is expected  # type: ignore[arg-type]
