"""How Druid comes to the rows: by what it has loaded, by where they lie, and by what the settings ask for. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingestion.ports.context import Lake
from ingestion.ports.errors import ConfigError
from ingestion.toolkit.lake.opening import bucket_place, local_path
from sinks.druid.client import DruidClient
from sinks.druid.config import DruidConfig, Engine, InputWay
from sinks.druid.spec import JSON, PARQUET

_S3_MODULES = ("s3",)
_PARQUET_MODULES = ("parquet",)
_SQL_MODULES = ("msq", "multi-stage")
_SQL_IS_CORE = 35
"""From this version on the multi-stage engine is part of Druid and no extension any more."""


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a Druid has loaded, as its /status lists it."""

    s3: bool
    parquet: bool
    sql: bool
    version: str = ""

    @classmethod
    def of(cls, status: dict[str, Any]) -> "Extensions":
        """Return what the answer of /status says."""
        listed = status.get("modules")
        modules = [module for module in listed if isinstance(module, dict)] if isinstance(listed, list) else []
        names = [f"{module.get('artifact')} {module.get('name')}".lower() for module in modules]

        def has(marks: Sequence[str]) -> bool:
            return any(mark in name for name in names for mark in marks)

        version = str(status.get("version") or "")
        major = version.partition(".")[0]
        # A cloud library that every Druid carries is called druid-aws-common; the extension says S3.
        return cls(
            s3=has(_S3_MODULES),
            parquet=has(_PARQUET_MODULES),
            sql=has(_SQL_MODULES) or (major.isdecimal() and int(major) >= _SQL_IS_CORE),
            version=version,
        )


@dataclass(frozen=True, slots=True)
class Way:
    """One way for the rows: how Druid reads, and what it reads."""

    input: InputWay
    format: str
    reason: str


def find_way(config: DruidConfig, client: DruidClient, lake: Lake) -> Way:
    """Return how this Druid gets the rows of this lake, as its /status and the settings have it."""
    return choose_way(
        config,
        Extensions.of(client.status()),
        is_bucket=bool(config.staging) or bucket_place(lake, "x") is not None,
        is_local=not config.staging and local_path(lake, "x") is not None,
    )


def choose_way(config: DruidConfig, found: Extensions, *, is_bucket: bool, is_local: bool) -> Way:
    """Return how Druid gets the rows; ConfigError where a way was asked for that cannot be. Pure.

    `is_bucket` and `is_local` say what the place is where the rows lie.
    """
    if config.engine is Engine.SQL and not found.sql:
        raise ConfigError("sink.no_sql")
    wanted = config.input
    if wanted in (InputWay.AUTO, InputWay.S3) and is_bucket and found.s3:
        if found.parquet:
            return Way(
                InputWay.S3, PARQUET, "Druid reads the Parquet files from the bucket: both extensions are loaded."
            )
        return Way(InputWay.S3, JSON, "Druid reads JSON Lines from the bucket: its Parquet extension is not loaded.")
    if wanted is InputWay.S3:
        missing = "druid-s3-extensions is not loaded there" if is_bucket else "the rows do not lie in a bucket"
        raise ConfigError("sink.no_way", wanted="s3", detail=missing)
    if wanted in (InputWay.AUTO, InputWay.PRESIGNED) and is_bucket:
        lacks = "it was asked for" if wanted is InputWay.PRESIGNED else "druid-s3-extensions is not loaded"
        return Way(InputWay.PRESIGNED, JSON, f"Druid reads JSON Lines by signed addresses: {lacks}.")
    if wanted is InputWay.PRESIGNED:
        raise ConfigError("sink.no_way", wanted="presigned", detail="the rows do not lie in a bucket")
    if wanted in (InputWay.AUTO, InputWay.LOCAL) and config.shares_disk and is_local:
        name = "Parquet" if found.parquet else "JSON Lines"
        return Way(
            InputWay.LOCAL, PARQUET if found.parquet else JSON, f"Druid shares this machine's disk and reads {name}."
        )
    if wanted is InputWay.LOCAL:
        missing = "the rows do not lie in a folder" if config.shares_disk else "shares_disk is not set"
        raise ConfigError("sink.no_way", wanted="local", detail=missing)
    return Way(InputWay.INLINE, JSON, "The rows travel inside the task, so a run may have 1 MB of them at most.")
