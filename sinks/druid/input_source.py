"""Choice of Druid's input source and format: by its extensions, by where the rows lie, and by the settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingestion.ports.context import BucketPlace, Lake
from ingestion.ports.errors import ConfigError
from sinks.druid.client import DruidClient
from sinks.druid.config import DruidConfig, InputKind
from sinks.druid.spec import JSON, PARQUET

_S3_MODULES = ("s3",)
_PARQUET_MODULES = ("parquet",)


@dataclass(frozen=True, slots=True)
class Extensions:
    """Extensions that a Druid has loaded, as its /status lists them."""

    s3: bool
    parquet: bool

    @classmethod
    def of(cls, status: dict[str, Any]) -> "Extensions":
        """Return what the answer of /status says."""
        listed = status.get("modules")
        modules = [module for module in listed if isinstance(module, dict)] if isinstance(listed, list) else []
        names = [f"{module.get('artifact')} {module.get('name')}".lower() for module in modules]

        def has(marks: Sequence[str]) -> bool:
            return any(mark in name for name in names for mark in marks)

        # A cloud library that every Druid carries is called druid-aws-common; the extension says S3.
        return cls(s3=has(_S3_MODULES), parquet=has(_PARQUET_MODULES))


@dataclass(frozen=True, slots=True)
class Input:
    """One kind of input source with its format, and the reason for it."""

    kind: InputKind
    format: str
    reason: str


def find_input(config: DruidConfig, client: DruidClient, lake: Lake) -> Input:
    """Return the input for the rows of this lake, as this Druid's /status and the settings have it."""
    return choose_input(
        config,
        Extensions.of(client.status()),
        is_bucket=bool(config.staging) or lake.place("x") is not None,
        is_local=not config.staging and lake.local_path("x") is not None,
    )


def choose_input(config: DruidConfig, found: Extensions, *, is_bucket: bool, is_local: bool) -> Input:
    """Return the input for the rows; ConfigError where one was asked for that cannot be. Pure.

    `is_bucket` and `is_local` say what the place is where the rows lie.
    """
    wanted = config.input
    if wanted in (InputKind.AUTO, InputKind.S3) and is_bucket and found.s3:
        if found.parquet:
            return Input(
                InputKind.S3, PARQUET, "Druid reads the Parquet files from the bucket: both extensions are loaded."
            )
        return Input(InputKind.S3, JSON, "Druid reads JSON Lines from the bucket: its Parquet extension is not loaded.")
    if wanted is InputKind.S3:
        missing = "druid-s3-extensions is not loaded there" if is_bucket else "the rows do not lie in a bucket"
        raise ConfigError("sink.no_way", wanted="s3", detail=missing)
    if wanted in (InputKind.AUTO, InputKind.PRESIGNED) and is_bucket:
        lacks = "it was asked for" if wanted is InputKind.PRESIGNED else "druid-s3-extensions is not loaded"
        return Input(InputKind.PRESIGNED, JSON, f"Druid reads JSON Lines by signed addresses: {lacks}.")
    if wanted is InputKind.PRESIGNED:
        raise ConfigError("sink.no_way", wanted="presigned", detail="the rows do not lie in a bucket")
    if wanted in (InputKind.AUTO, InputKind.LOCAL) and config.shares_disk and is_local:
        name = "Parquet" if found.parquet else "JSON Lines"
        return Input(
            InputKind.LOCAL, PARQUET if found.parquet else JSON, f"Druid shares this machine's disk and reads {name}."
        )
    if wanted is InputKind.LOCAL:
        missing = "the rows do not lie in a folder" if config.shares_disk else "shares_disk is not set"
        raise ConfigError("sink.no_way", wanted="local", detail=missing)
    return Input(InputKind.INLINE, JSON, "The rows travel inside the task, so a run may have 1 MB of them at most.")


def s3_source(config: DruidConfig, places: Sequence[BucketPlace]) -> dict[str, Any]:
    """Return the inputSource that reads these objects from their bucket. Pure."""
    source: dict[str, Any] = {
        "type": "s3",
        "objects": [{"bucket": place.bucket, "path": place.path} for place in places],
    }
    if config.s3_key_variable:
        # With properties a spec inherits nothing of druid.s3.*, so all of it is said again; keys themselves would not
        # survive a restart of the Overlord, the names of variables do.
        first = places[0]
        source["properties"] = {
            "accessKeyId": {"type": "environment", "variable": config.s3_key_variable},
            "secretAccessKey": {"type": "environment", "variable": config.s3_secret_variable},
        }
        source["endpointConfig"] = {"url": first.endpoint, "signingRegion": first.region}
        source["clientConfig"] = {"enablePathStyleAccess": first.path_style, "disableChunkedEncoding": True}
        if first.endpoint:
            source["clientConfig"]["protocol"] = first.endpoint.partition(":")[0]
    return source
