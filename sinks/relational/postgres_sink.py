"""Publishes a run into a table of a PostgreSQL database."""

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from ingestion.ports.check import CheckReport
from ingestion.ports.context import Context
from sinks.relational.checks import DatabaseCheck, network_steps
from sinks.relational.config import ServerConfig, TableConfig
from sinks.relational.database import Session
from sinks.relational.sink import CONNECT_TIMEOUT_S, RelationalSink


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


class PostgresSink(RelationalSink):
    """Rows by COPY and MERGE, with the delivery's own record in the same transaction."""

    kind: ClassVar[str] = "postgres"
    Config: ClassVar[type[BaseModel]] = PostgresConfig

    def __init__(self, config: PostgresConfig) -> None:
        super().__init__(config)
        self.config = config

    @property
    def address(self) -> str:
        return f"{self.config.host}:{self.config.port}/{self.config.database}"

    @property
    def session_class(self) -> type[Session]:
        from sinks.relational.postgres import PostgresSession  # noqa: PLC0415 - the driver

        return PostgresSession

    def connect(self, *, timeout_s: int = CONNECT_TIMEOUT_S) -> Session:
        from sinks.relational.postgres import PostgresSession  # noqa: PLC0415 - the driver

        config = self.config
        return PostgresSession(
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

    def check(self, ctx: Context) -> CheckReport:
        """Return which layer between here and a written row fails, each finding with its fix."""
        config = self.config
        check = DatabaseCheck(
            lambda timeout_s: self.connect(timeout_s=timeout_s), self.session_class, self.address, config.user
        )
        return CheckReport(tuple(check.findings(network_steps(config.host, config.port))))
