"""Settings that all relational destinations share."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from sinks.relational.naming import problem_of_template

_SPACES_AND_LISTS = frozenset("/\\,;@?#'\"")


class TableConfig(BaseModel):
    """The table that a pipeline's rows go into."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str = Field(
        default="{pipeline}",
        max_length=200,
        description="The table's name; {pipeline} stands for the pipeline's. Without it only one pipeline can deliver.",
    )
    deletes: Literal["hard", "soft"] = Field(
        default="hard",
        description="What becomes of rows that a full refresh no longer brings: removed, or marked in _deleted_at.",
    )
    refused_limit: int = Field(
        default=10_000, ge=0, description="How many rows the database may reject before the whole delivery fails."
    )
    keep_old_days: int = Field(
        default=7, ge=0, le=365, description="How long a change of columns can be reverted; old columns stay so long."
    )

    @field_validator("table")
    @classmethod
    def _is_a_name(cls, table: str) -> str:
        if problem := problem_of_template(table):
            raise ValueError(problem)
        return table


class ServerConfig(BaseModel):
    """The address of a database server, and the user who writes there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1, max_length=253, description="Name or address of the server.")
    port: int = Field(ge=1, le=65535)
    database: str = Field(min_length=1, max_length=64)
    user: str = Field(min_length=1, max_length=128)
    password: SecretStr | None = None
    ca_file: str | None = Field(
        default=None,
        description="File of the certificates that may sign the server's; without it those of the machine.",
    )

    @field_validator("host")
    @classmethod
    def _is_one_host(cls, host: str) -> str:
        # Drivers take a path for a socket of this machine, and some a list for several servers.
        if host != host.strip() or _SPACES_AND_LISTS & set(host) or not host.isprintable() or " " in host:
            msg = "write one host name or address, without scheme, port or path"
            raise ValueError(msg)
        return host

    @field_validator("database", "user")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not name.isprintable():
            msg = "the name has characters that do not show"
            raise ValueError(msg)
        return name

    @field_validator("ca_file")
    @classmethod
    def _is_absolute(cls, path: str | None) -> str | None:
        if path is not None and not Path(path).is_absolute():
            msg = "write the file as an absolute path: a relative one would depend on where a worker was started"
            raise ValueError(msg)
        return path

    @property
    def secret(self) -> str | None:
        """Return the password itself."""
        return None if self.password is None else self.password.get_secret_value()
