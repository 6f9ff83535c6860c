"""Settings of an Apache Druid: its addresses, the way of the rows, and our patience with it."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from ingestion.ports.errors import ConfigError
from ingestion.toolkit.lake.s3_options import parse_s3_url

PLACEHOLDER = "{pipeline}"
LONGEST_TASK_S = 6 * 86_400
"""A signed address cannot hold for longer than a week, and has to outlive the task that reads it."""
LONGEST_NAME = 128
"""Druid's SQL takes no longer identifier, so a longer datasource could never be asked for (measured on 33.0.0)."""
_FORMER_ENGINES = ("native", "sql")
_LITERAL = re.compile(r"[A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Granularity(StrEnum):
    """Length of the time chunk that a segment belongs to."""

    AUTO = "auto"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    YEAR = "year"


class InputKind(StrEnum):
    """Kinds of input source that Druid reads the rows by."""

    AUTO = "auto"
    S3 = "s3"
    PRESIGNED = "presigned"
    LOCAL = "local"
    INLINE = "inline"


class DruidConfig(BaseModel):
    """An Apache Druid: its addresses, who may write there, and how its workers get the rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        min_length=1, description="The Router; without one the Coordinator, where it is the Overlord as well."
    )
    broker_url: str = Field("", description="Answers queries; empty: the Router does.")
    overlord_url: str = Field("", description="Takes tasks; empty: as the first address.")
    coordinator_url: str = Field("", description="Knows the segments; empty: as the first address.")
    allowed_redirects: tuple[str, ...] = Field(
        (), description="More host:port that may be the leader; requests with credentials follow to no others."
    )
    username: str = ""
    password: SecretStr | None = None
    ca_file: str = Field("", description="Certificates that sign Druid's own, as a file on the workers.")
    datasource: str = Field(PLACEHOLDER, description="Name of the datasource; {pipeline} stands for the pipeline's.")
    segment_granularity: Granularity = Field(
        Granularity.AUTO, description="Of a new datasource; auto: chosen from the first rows."
    )
    input: InputKind = Field(InputKind.AUTO, description="auto: chosen from the extensions that Druid has loaded.")
    shares_disk: bool = Field(False, description="Druid's workers see the lake's folder under the same path.")
    staging: str = Field(
        "",
        description="s3://bucket/prefix?endpoint=.. that Druid can reach, for the rows on their way; empty: the lake.",
    )
    staging_access_key: SecretStr | None = Field(None, description="Writes there; empty: as the machine finds them.")
    staging_secret_key: SecretStr | None = None
    read_access_key: SecretStr | None = Field(
        None, description="Can only read there; signs the addresses that Druid is given. Empty: the other pair signs."
    )
    read_secret_key: SecretStr | None = None
    s3_key_variable: str = Field(
        "",
        description="Variable on Druid's machines that holds its key for S3 input; empty: druid.s3.* of the cluster.",
    )
    s3_secret_variable: str = ""
    discover_schema: bool = Field(
        False,
        description="Let Druid find the types of undeclared columns; a mismatch with the contract stops the load.",
    )
    max_tasks: int | None = Field(
        None, ge=1, description="Our tasks at one time; empty: all slots of the cluster but one."
    )
    task_timeout_s: int = Field(3600, ge=10, le=LONGEST_TASK_S, description="A task that takes longer is shut down.")
    load_timeout_s: int = Field(600, ge=10, description="How long published segments may take until they are served.")
    task_attempts: int = Field(3, ge=1, le=20, description="Tasks for one delivery, where Druid loses or breaks them.")

    @model_validator(mode="before")
    @classmethod
    def _has_one_engine(cls, settings: Any) -> Any:
        # Until ingestion by SQL left, `engine` chose between it and the native one: stored settings stay valid.
        if isinstance(settings, Mapping) and settings.get("engine") in _FORMER_ENGINES:
            return {name: value for name, value in settings.items() if name != "engine"}
        return settings

    @field_validator("url", "broker_url", "overlord_url", "coordinator_url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        if not url:
            return url
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            msg = "write an address such as http://router:8888"
            raise ValueError(msg)
        if parts.username or parts.password:
            msg = "credentials do not belong into the address: write them into username and password"
            raise ValueError(msg)
        if parts.query or parts.fragment:
            msg = "the address has a query or fragment; write the service's base address"
            raise ValueError(msg)
        return url.rstrip("/")

    @field_validator("allowed_redirects")
    @classmethod
    def _are_hosts(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        for place in places:
            parts = urlsplit(f"http://{place}")
            if place != parts.netloc or not parts.hostname or not parts.port or "@" in place:
                msg = "write host:port, as in overlord-2:8090"
                raise ValueError(msg)
        return places

    @field_validator("datasource")
    @classmethod
    def _names_the_pipeline(cls, template: str) -> str:
        # Two pipelines in one datasource would replace each other's rows.
        before, found, after = template.partition(PLACEHOLDER)
        if not found or PLACEHOLDER in after:
            msg = f"write {PLACEHOLDER} once: each pipeline has a datasource of its own"
            raise ValueError(msg)
        if not _LITERAL.fullmatch(before + after) or before.startswith("."):
            msg = "use letters, digits, '_', '-' and '.', and no '.' at the beginning"
            raise ValueError(msg)
        return template

    @field_validator("staging")
    @classmethod
    def _is_bucket(cls, url: str) -> str:
        if not url:
            return url
        if not url.startswith("s3://"):
            msg = "write s3://bucket/prefix?endpoint=https://host"
            raise ValueError(msg)
        if "access_key" in url or "secret_key" in url:
            msg = "credentials do not belong into the address: write them into the fields for keys"
            raise ValueError(msg)
        try:
            parse_s3_url(url)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return url

    @field_validator("s3_key_variable", "s3_secret_variable")
    @classmethod
    def _is_variable(cls, name: str) -> str:
        if name and not _VARIABLE.fullmatch(name):
            msg = "write the name of an environment variable, not its value"
            raise ValueError(msg)
        return name

    @model_validator(mode="after")
    def _pairs_are_whole(self) -> Self:
        for one, other in (
            ("username", "password"),
            ("staging_access_key", "staging_secret_key"),
            ("read_access_key", "read_secret_key"),
            ("s3_key_variable", "s3_secret_variable"),
        ):
            if bool(getattr(self, one)) != bool(getattr(self, other)):
                msg = f"{one} and {other} belong together, only one is set"
                raise ValueError(msg)
        if self.read_access_key and not self.staging:
            msg = "read_access_key needs staging: name the place that it reads"
            raise ValueError(msg)
        return self

    @property
    def place(self) -> str:
        """Return which Druid this is, as it is called where no destination's name is known."""
        return urlsplit(self.url or self.overlord_url or self.coordinator_url).netloc

    @property
    def patience_s(self) -> int:
        """Return the seconds after which a load that was handed over is over, or given up."""
        return self.task_timeout_s + self.load_timeout_s

    @property
    def claim(self) -> str:
        """Return what no other destination may have, too: the datasources, and where they lie."""
        return f"datasource {self.datasource} of {self.place}"

    def datasource_of(self, pipeline: str) -> str:
        """Return the name of the pipeline's datasource; ConfigError where Druid could not be asked for it."""
        name = self.datasource.replace(PLACEHOLDER, pipeline)
        if len(name) > LONGEST_NAME or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
            raise ConfigError("sink.bad_name", what="datasource", name=name[:LONGEST_NAME])
        return name
