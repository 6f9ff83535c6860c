"""Publishes a run into a table of a PostgreSQL database."""

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from sinks.relational.config import ServerConfig, TableConfig
from sinks.relational.connection import Connection
from sinks.relational.sink import CONNECT_TIMEOUT_S, ServerSink

if TYPE_CHECKING:
    from sinks.relational.postgres.connection import PostgresConnection


class PostgresConfig(TableConfig, ServerConfig):
    """A PostgreSQL database, a schema in it, and the table for each pipeline."""

    port: int = Field(default=5432, ge=1, le=65535)
    tls: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = Field(
        default="prefer",
        description="prefer: encrypted where the server can; verify-full also makes sure that it is the right server.",
    )
    schema_name: str = Field(default="public", min_length=1, max_length=63)

    @model_validator(mode="after")
    def _can_verify(self) -> Self:
        # libpq knows no certificates of the machine that it could fall back on everywhere.
        if self.tls.startswith("verify") and self.ca_file is None:
            msg = f"tls {self.tls} needs ca_file, the certificates that may sign the server's"
            raise ValueError(msg)
        return self


class PostgresSink(ServerSink):
    """Rows by COPY and MERGE, with the delivery's own record in the same transaction."""

    kind: ClassVar[str] = "postgres"
    Config: ClassVar[type[BaseModel]] = PostgresConfig
    config: PostgresConfig

    def __init__(self, config: PostgresConfig) -> None:
        super().__init__(config)
        self.config = config

    @property
    def connection_class(self) -> "type[PostgresConnection]":
        from sinks.relational.postgres.connection import PostgresConnection  # noqa: PLC0415 - the driver

        return PostgresConnection

    def connect(self, timeout_s: int = CONNECT_TIMEOUT_S) -> Connection:
        config = self.config
        return self.connection_class(
            schema=config.schema_name,
            host=config.host,
            port=config.port,
            dbname=config.database,
            user=config.user,
            password=config.secret,
            sslmode=config.tls,
            sslrootcert=config.ca_file,
            connect_timeout=timeout_s,
        )
